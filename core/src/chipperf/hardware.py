"""Torch-free tools for a vendor's probe: PCI devices, driver files, management tools.

A probe must return within seconds and must not raise, on every machine. So nothing here raises because a file, a tool
or a permission is missing, and whatever could hang takes a time limit.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import signal
import subprocess
import threading
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

Result = TypeVar("Result")

PCI_ROOT = Path("/sys/bus/pci/devices")
_PCI_ADDRESS = re.compile(r"\b([0-9a-f]{4,8}):([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])\b", re.IGNORECASE)
_DISPLAY_CLASS = 0x03
_KILL_WAIT_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class PciDevice:
    """A PCI function as the kernel lists it.

    Attributes:
        address: Domain, bus, device and function, in the form of :func:`normalise_pci_address`.
        vendor_id: 16-bit vendor id.
        device_id: 16-bit device id.
        class_code: 24-bit class code: class, subclass, programming interface.
    """

    address: str
    vendor_id: int
    device_id: int
    class_code: int

    @property
    def is_display(self) -> bool:
        """True for display controllers, which include accelerators without a video output."""
        return self.class_code >> 16 == _DISPLAY_CLASS


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolOutput:
    """What a management tool printed.

    Attributes:
        stdout: Its output, empty if it did not run.
        problem: Why the output is not to be trusted; ``None`` if the tool ended well.
    """

    stdout: str = ""
    problem: str | None = None


def find_pci_devices(root: Path | None = None) -> tuple[PciDevice, ...]:
    """List the machine's PCI functions by address.

    Args:
        root: Directory with one entry per function, each with the files ``vendor``, ``device`` and ``class``;
            :data:`PCI_ROOT` if not given.

    Returns:
        Functions whose identity is readable; none if ``root`` does not exist.
    """
    with suppress(OSError):
        entries = sorted((root or PCI_ROOT).iterdir())
        return tuple(device for device in map(_read_pci_device, entries) if device is not None)
    return ()


def _read_pci_device(entry: Path) -> PciDevice | None:
    address = normalise_pci_address(entry.name)
    try:
        vendor_id, device_id, class_code = (int(read_text(entry / n) or "", 16) for n in ("vendor", "device", "class"))
    except ValueError:
        return None
    if address is None:
        return None
    return PciDevice(address=address, vendor_id=vendor_id, device_id=device_id, class_code=class_code)


def normalise_pci_address(text: str) -> str | None:
    """Return the PCI address in ``text`` as ``0000:1b:00.0``, or ``None`` if there is none.

    Management tools print the same address with a domain of four or eight digits and in either case.
    """
    match = _PCI_ADDRESS.search(text)
    if match is None:
        return None
    domain, bus, device, function = match.groups()
    return f"{int(domain, 16):04x}:{bus.lower()}:{device.lower()}.{function}"


def read_text(path: Path) -> str | None:
    """Return a small text file without surrounding white space, or ``None`` if it cannot be read."""
    with suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace").strip()
    return None


def distribution_version(name: str) -> str | None:
    """Return the version of an installed distribution from its metadata, importing nothing; ``None`` if absent."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def find_tool(name: str, directories: Iterable[Path] = ()) -> str | None:
    """Find an executable on ``PATH``, then in the directories where its vendor installs it; ``None`` if absent."""
    search_path = (os.environ.get("PATH", os.defpath), *map(str, directories))
    return shutil.which(name, path=os.pathsep.join(search_path))


def run_tool(
    argv: Sequence[str], *, timeout_s: float = 5.0, environment: Mapping[str, str] | None = None
) -> ToolOutput:
    """Run a management tool and return what it printed, in about ``timeout_s`` seconds at most.

    Args:
        argv: Program and arguments; no shell is involved.
        timeout_s: Time after which the tool and its children are killed.
        environment: Its environment variables; this process's if not given.

    Returns:
        The output, as far as it came; ``problem`` is set if the tool is missing, failed, or did not finish.
    """
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
            env=environment,
        )
    except OSError as error:
        return ToolOutput(problem=f"{argv[0]} cannot be run: {error.strerror or error}")
    try:
        stdout, stderr = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        _kill_group(process)
        printed = error.output.decode(errors="replace") if isinstance(error.output, bytes) else error.output or ""
        return ToolOutput(stdout=printed, problem=f"{argv[0]} did not finish within {timeout_s:g} s")
    if process.returncode != 0:
        complaint = (stderr.strip() or stdout.strip() or "no message").splitlines()[0]
        return ToolOutput(stdout=stdout, problem=f"{argv[0]} ended with status {process.returncode}: {complaint}")
    return ToolOutput(stdout=stdout)


def _kill_group(process: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    # A tool that is stuck inside the kernel does not die: it is left behind, because the probe must return.
    with suppress(subprocess.TimeoutExpired):
        process.wait(_KILL_WAIT_S)
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def call_bounded(function: Callable[[], Result], *, timeout_s: float = 5.0) -> Result:
    """Call a function of a foreign library that may hang, and wait ``timeout_s`` seconds for it at most.

    Args:
        function: What to call, in a thread of its own; when it hangs, the thread is abandoned.
        timeout_s: How long to wait.

    Returns:
        What the function returned.

    Raises:
        TimeoutError: The function did not finish in time. What it raises itself is passed on.
    """
    future: Future[Result] = Future()

    def work() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    thread = threading.Thread(target=work, name="chipperf-bounded-call", daemon=True)
    thread.start()
    thread.join(timeout_s)
    if thread.is_alive():
        raise TimeoutError(f"no answer within {timeout_s:g} s")
    return future.result()
