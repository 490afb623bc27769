"""The side effects of importing, registering and probing a plugin, observed in an interpreter without any plugin.

Each function takes the plugin's entry point as a mapping, because it is called in another process.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, Final

import psutil

# Plugins use these modules of core, so they must be imported before the first comparison.
import chipperf.hardware
import chipperf.torchtools  # noqa: F401
from chipperf.errors import PerfError, PluginError
from chipperf.plugin import installed
from chipperf.plugin.hook_results import describe_mismatch
from chipperf.plugin.installed import PluginEntry
from chipperf.plugin.registration import VENDOR_HOOKS, BoundPlugin
from chipperf.plugin.session import Session
from chipperf.plugin.types import ProbeResult, VendorInfo

_THREAD_END_S: Final = 2.0
"""Time that a joined thread has to disappear from the kernel's list."""


def observe_import(entry: Mapping[str, str]) -> dict[str, list[str]]:
    """Import a plugin and return the modules that the import loads, and the libraries that it opens with ctypes."""
    libraries: list[str] = []

    def audit(event: str, values: tuple[Any, ...]) -> None:
        # None is the process itself, which ctypes opens when it is imported.
        if event == "ctypes.dlopen" and values[0]:
            libraries.append(str(values[0]))

    before = set(sys.modules)
    sys.addaudithook(audit)
    installed.load(PluginEntry(**entry))
    return {"modules": sorted(set(sys.modules) - before), "libraries": libraries}


def observe_changes(entry: Mapping[str, str]) -> list[str]:
    """Import, register and probe a plugin, and return the changes in the process as phrases."""
    started: list[str] = []

    def audit(event: str, values: tuple[Any, ...]) -> None:
        if event == "subprocess.Popen":
            started.append(str(values[0]))

    sys.addaudithook(audit)
    with _watched("its import") as found:
        session = Session(BoundPlugin(PluginEntry(**entry), VENDOR_HOOKS))
    # A probe may run a management tool, an import may not.
    changes = [*found, *(f"its import runs {program}" for program in started)]
    with _watched("its probe") as found, suppress(PerfError):
        session.probe()
    return changes + found


def register_again(entry: Mapping[str, str]) -> str | None:
    """Load and register a plugin twice in this process and once in a spawned one; return the fault or ``None``."""
    first = _register(entry)
    try:
        second = _register(entry)
    except PluginError as error:
        return f"the second registration in a process fails: {error.message}"
    if second != first:
        return "perf_vendor_info returns another value after the second registration in a process"
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        return executor.submit(_register_spawned, entry).result()


def _register(entry: Mapping[str, str]) -> VendorInfo:
    return Session(BoundPlugin(PluginEntry(**entry), VENDOR_HOOKS)).vendor_info()


def _register_spawned(entry: Mapping[str, str]) -> str | None:
    try:
        _register(entry)
    except PluginError as error:
        # An exception of chipperf cannot be sent between processes.
        return f"the registration in a spawned process fails: {error.message}"
    return None


def observe_probe_result(entry: Mapping[str, str]) -> dict[str, Any]:
    """Probe, and return a fault in the result's types or ``None``, and the name and capacity of each device."""
    result = BoundPlugin(PluginEntry(**entry), VENDOR_HOOKS).call("perf_probe")
    fault = describe_mismatch(result, ProbeResult)
    devices = () if fault else result.devices
    return {"fault": fault, "memory_bytes": [(device.name, device.total_bytes) for device in devices]}


class _State:
    """The state of this process that a plugin must not change."""

    def __init__(self) -> None:
        process = psutil.Process()
        self.environment = dict(os.environ)
        self.modules = dict(sys.modules)
        self.functions = {
            f"{name}.{key}": value
            for name, module in self.modules.items()
            for key, value in list(vars(module).items())
            if callable(value)
        }
        self.streams = {f"sys.{name}": getattr(sys, name) for name in ("stdin", "stdout", "stderr")}
        self.import_hooks = [*sys.meta_path, *sys.path_hooks]
        self.path = list(sys.path)
        # Real-time signals have no name.
        self.handlers = {
            str(getattr(number, "name", number)): signal.getsignal(number) for number in signal.valid_signals()
        }
        self.directory = os.getcwd()
        self.threads = set(threading.enumerate())
        self.native_threads = process.num_threads()
        self.children = {child.pid for child in process.children()}

    def changes_since(self, before: _State) -> Iterator[str]:
        modules = _replaced(before.modules, self.modules)
        functions = _replaced(before.functions, self.functions)
        variables = {name for name, _ in before.environment.items() ^ self.environment.items()}
        listed = {
            "changes environment variables: ": sorted(variables),
            "replaces modules: ": modules,
            "replaces functions: ": [name for name in functions if name.rpartition(".")[0] not in modules],
            "replaces ": _replaced(before.streams, self.streams),
            "changes the handling of ": _replaced(before.handlers, self.handlers),
        }
        yield from (phrase + ", ".join(names) for phrase, names in listed.items() if names)
        if self.import_hooks != before.import_hooks:
            yield "changes sys.meta_path or sys.path_hooks, which affects every later import"
        if self.path != before.path:
            yield f"changes sys.path: {', '.join(sorted({*self.path} ^ {*before.path})) or 'its order'}"
        if self.directory != before.directory:
            yield f"changes the working directory to {self.directory}"
        threads = self.threads - before.threads
        if threads:
            yield f"leaves threads running: {', '.join(sorted(thread.name for thread in threads))}"
        elif self.native_threads > before.native_threads:
            yield f"leaves {self.native_threads - before.native_threads} thread(s) of a library running"
        children = self.children - before.children
        if children:
            yield f"leaves {len(children)} process(es) running"


def _replaced(before: Mapping[str, object], after: Mapping[str, object]) -> list[str]:
    return [name for name, value in before.items() if after.get(name) is not value]


@contextmanager
def _watched(action: str) -> Iterator[list[str]]:
    """Yield a list. At the end of the block it holds the changes that the block made."""
    found: list[str] = []
    before = _State()
    with tempfile.TemporaryFile() as output:
        stdout = os.dup(1)
        os.dup2(output.fileno(), 1)
        try:
            yield found
        finally:
            sys.stdout.flush()
            os.dup2(stdout, 1)
            os.close(stdout)
        output.seek(0)
        printed = output.read().decode(errors="replace").strip()
    deadline_s = time.monotonic() + _THREAD_END_S
    after = _State()
    while after.native_threads > before.native_threads and time.monotonic() < deadline_s:
        time.sleep(0.02)
        after = _State()
    found += [f"{action} {change}" for change in after.changes_since(before)]
    if printed:
        found.append(f"{action} prints {printed[:200]!r} to standard output")
