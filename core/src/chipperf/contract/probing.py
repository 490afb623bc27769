"""Probing a plugin in separate processes, on this machine and with simulated devices of another vendor."""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import chipperf.hardware
from chipperf.contract.check import NotRun
from chipperf.contract.isolation import Variables, call_in_fork, undisturbed_s
from chipperf.errors import VendorHookError
from chipperf.plugin.installed import PluginEntry
from chipperf.plugin.probe_process import ANSWER_TIMEOUT_S, PROBE_TIMEOUT_S
from chipperf.plugin.session import bind
from chipperf.plugin.types import ProbedDevice
from chipperf.run.ranks import device_key

_CLONE_NEWNS: Final = 0x00020000
_CLONE_NEWUSER: Final = 0x10000000
_MS_BIND: Final = 4096

_IMPERSONATOR: Final = '''
"""Claims a CUDA device, as builds of torch for other vendors' devices do."""

from types import SimpleNamespace

__version__ = "2.4.0+impersonator"
version = SimpleNamespace(cuda="12.4", hip=None)
_properties = SimpleNamespace(name="Impersonator", total_memory=2**34, uuid="GPU-00000000", major=8, minor=0)
cuda = SimpleNamespace(
    is_available=lambda: True,
    is_initialized=lambda: True,
    device_count=lambda: 1,
    current_device=lambda: 0,
    get_device_name=lambda *device: "Impersonator",
    get_device_capability=lambda *device: (8, 0),
    get_device_properties=lambda *device: _properties,
    mem_get_info=lambda *device: (2**34, 2**34),
)
'''

_FOREIGN_VENDOR: Final = "0xfffe"
"""A PCI vendor id that no vendor of accelerators uses."""

_FOREIGN_DEVICES: Final = {"0000:f1:00.0": "0x030200", "0000:f2:00.0": "0x120000"}
"""Address and class of each foreign device: a 3D controller, and a processing accelerator."""


_FAULTY_TOOLS: Final = {
    "do not end": b"#!/bin/sh\nexec sleep 60\n",
    "print what nobody can read": b"#!/bin/sh\nprintf '\\377\\376 | 0000:f1:00.0 | {\"0\": \\n'\n",
    "fail": b"#!/bin/sh\necho 'cannot talk to the driver' >&2\nexit 9\n",
    "are not executable": b"",
}
"""What programs do, and the program."""

_REPEAT_S: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Probing:
    """The outcome of a probe.

    Attributes:
        fault: Why there is no result: the probe raised, hung or ended its process; ``None`` if there is a result.
        imported_torch: True if the hook imported torch.
        tools: Names of the programs that the hook looked for or ran.
        unlike: Result of a further call in the same process with other devices, as text; ``None`` if all were alike.
        visible_devices_env: The value in VendorInfo, so that this process need not import the plugin.
    """

    fault: str | None = None
    seconds: float = 0.0
    reason: str = ""
    devices: tuple[ProbedDevice, ...] = ()
    imported_torch: bool = False
    tools: tuple[str, ...] = ()
    unlike: str | None = None
    visible_devices_env: tuple[str, ...] = ()

    @property
    def identities(self) -> tuple[str, ...]:
        """The key of each device."""
        return tuple(map(device_key, self.devices))


def probe(
    entry: PluginEntry,
    *,
    variables: Variables | None = None,
    pci: Path | None = None,
    path: Path | None = None,
    bereft: bool = False,
    calls: int = 1,
) -> Probing:
    """Probe in a fork of this process, which must not have imported the plugin; an invalid result is :class:`NotRun`.

    In the fork, the directory ``pci`` replaces the kernel's list of PCI functions, and modules are searched first in
    the directory ``path``. If it is ``bereft``, its working directory is deleted, and nothing can be written to files.
    The hook is called ``calls`` times, as far as that takes no more than a second.
    """
    arguments = {"entry": asdict(entry), "pci": pci, "path": path, "bereft": bereft, "calls": calls}
    # A fake machine has no driver to wait for.
    timeout_s = ANSWER_TIMEOUT_S if pci else PROBE_TIMEOUT_S
    outcome = call_in_fork(run_probe, arguments, timeout_s=timeout_s, environment=variables)
    if outcome.fault:
        return Probing(fault=outcome.fault)
    value = outcome.value
    if "mistyped" in value:
        raise NotRun(f"see A10: {value['mistyped']}")
    devices = tuple(ProbedDevice(**device) for device in value.pop("devices"))
    rest: dict[str, Any] = {
        key: tuple(content) if isinstance(content, list) else content for key, content in value.items()
    }
    return Probing(devices=devices, **rest)


def run_probe(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Probe in this process. :func:`probe` calls this function in a fork."""
    if arguments["path"]:
        sys.path.insert(0, str(arguments["path"]))
    if arguments["pci"]:
        _replace_pci(arguments["pci"])
    tools: set[str] = set()
    _watch_programs(tools)
    session = bind(PluginEntry(**arguments["entry"]), purpose="inspect")
    had_torch = "torch" in sys.modules
    sizes = resource.getrlimit(resource.RLIMIT_FSIZE)
    if arguments["bereft"]:
        _bereave(sizes[1])
    started_s, undisturbed_start_s = time.monotonic(), undisturbed_s()
    try:
        result = session.probe()
        seconds = undisturbed_s() - undisturbed_start_s
        further = (session.probe() for _ in range(1, arguments["calls"]) if time.monotonic() - started_s < _REPEAT_S)
        unlike = next((repr(other) for other in further if other.devices != result.devices), None)
    except VendorHookError as error:
        if error.__cause__ is not None:
            raise
        # The hook raised no exception, so its result is wrong.
        return {"mistyped": error.message}
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, sizes)
    return {
        "seconds": seconds,
        "reason": result.reason,
        "devices": [asdict(device) for device in result.devices],
        "imported_torch": "torch" in sys.modules and not had_torch,
        "tools": sorted(tools),
        "unlike": unlike,
        "visible_devices_env": session.vendor_info().visible_devices_env,
    }


def _watch_programs(names: set[str]) -> None:
    """Add the names of the programs that this process looks for or runs to ``names``."""
    find = shutil.which

    def which(command: str, *arguments: Any, **options: Any) -> str | None:
        names.add(os.path.basename(command))
        return find(command, *arguments, **options)

    def audit(event: str, values: tuple[Any, ...]) -> None:
        if event == "subprocess.Popen":
            names.add(os.path.basename(os.fsdecode(values[0])))

    shutil.which = which  # type: ignore[assignment]
    sys.addaudithook(audit)


def _bereave(largest_file_bytes: int) -> None:
    """Let this process write to no file, and delete its working directory."""
    directory = tempfile.mkdtemp()
    os.chdir(directory)
    os.rmdir(directory)
    # The output of the process is a file, too.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, largest_file_bytes))


def make_faulty_tools(directory: Path, names: Iterable[str]) -> dict[str, str]:
    """Write programs that fail, with the given names, and return their directory by what is wrong with them."""
    directories = {}
    for number, (fault, script) in enumerate(_FAULTY_TOOLS.items()):
        place = directory / str(number)
        place.mkdir(parents=True, exist_ok=True)
        for name in names:
            (place / name).write_bytes(script)
            (place / name).chmod(0o644 if "executable" in fault else 0o755)
        directories[fault] = str(place)
    return directories


def make_foreign_pci(directory: Path) -> Path:
    """Write a list of PCI functions in the kernel's format, with devices of an unknown vendor, and return it."""
    for address, class_code in _FOREIGN_DEVICES.items():
        function = directory / address
        function.mkdir(parents=True)
        for name, text in (("vendor", _FOREIGN_VENDOR), ("device", "0x0001"), ("class", class_code)):
            (function / name).write_text(text + "\n", encoding="utf-8")
    return directory


def make_impersonator(directory: Path) -> Path:
    """Write a ``torch`` that claims a CUDA device, and return the directory to import it from."""
    directory.mkdir(parents=True)
    (directory / "torch.py").write_text(_IMPERSONATOR, encoding="utf-8")
    return directory


def _replace_pci(directory: Path) -> None:
    """Replace the kernel's list of PCI functions by ``directory`` in this process.

    For a plugin that reads the list itself, this works only if the kernel permits user namespaces with mounts.
    """
    chipperf.hardware.PCI_ROOT, original = directory, chipperf.hardware.PCI_ROOT
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    unshare = getattr(libc, "unshare", None)
    if unshare is None or unshare(_CLONE_NEWUSER | _CLONE_NEWNS) != 0:
        return
    # Without a mapping the process would no longer own its files (user_namespaces(7)).
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        Path("/proc/self", name).write_text(text, encoding="ascii")
    libc.mount(os.fsencode(directory), os.fsencode(original), None, _MS_BIND, None)
