"""The side effects of importing, registering and probing a plugin, observed in an interpreter without any plugin."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import psutil

# Plugins use these modules of core, so they must be imported before the first comparison.
import chipperf.hardware
import chipperf.torchtools  # noqa: F401
from chipperf.errors import PerfError, PluginError
from chipperf.plugin import installed
from chipperf.plugin.hook_results import describe_mismatch
from chipperf.plugin.installed import PluginEntry
from chipperf.plugin.registration import VENDOR_HOOKS, register
from chipperf.plugin.session import Session
from chipperf.plugin.types import ProbeResult

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import ModuleType

    from chipperf.plugin.types import VendorInfo

_THREAD_END_S: Final = 2.0
"""Time that a joined thread has to disappear from the kernel's list."""


def observe_import(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Import a plugin and return the modules and libraries that the import loads.

    Args:
        arguments: ``entry``: the plugin's entry point, as a mapping.

    Returns:
        ``modules``: names of the modules that were imported. ``libraries``: shared libraries that ctypes opened.
    """
    libraries: list[str] = []

    def audit(event: str, values: tuple[Any, ...]) -> None:
        # None is the process itself, which ctypes opens when it is imported.
        if event == "ctypes.dlopen" and values[0]:
            libraries.append(str(values[0]))

    before = set(sys.modules)
    sys.addaudithook(audit)
    installed.load(PluginEntry(**arguments["entry"]))
    return {"modules": sorted(set(sys.modules) - before), "libraries": libraries}


def observe_changes(arguments: Mapping[str, Any]) -> list[str]:
    """Import, register and probe a plugin, and return the changes in the process as phrases.

    Args:
        arguments: ``entry``: the plugin's entry point, as a mapping.
    """
    entry = PluginEntry(**arguments["entry"])
    started: list[str] = []

    def audit(event: str, values: tuple[Any, ...]) -> None:
        if event == "subprocess.Popen":
            started.append(str(values[0]))

    sys.addaudithook(audit)
    with _watched("its import") as found:
        session = Session(register(entry, VENDOR_HOOKS))
    # A probe may run a management tool, an import may not.
    changes = [*found, *(f"its import runs {program}" for program in started)]
    with _watched("its probe") as found, suppress(PerfError):
        session.probe()
    return changes + found


def register_again(arguments: Mapping[str, Any]) -> str | None:
    """Load and register a plugin twice in this process and once in a spawned one; return the fault or ``None``.

    Args:
        arguments: ``entry``: the plugin's entry point, as a mapping.

    Raises:
        PluginError: The first registration fails.
    """
    entry = PluginEntry(**arguments["entry"])
    first = _register(entry)
    try:
        second = _register(entry)
    except PluginError as error:
        return f"the second registration in a process fails: {error.message}"
    if second != first:
        return "perf_vendor_info returns another value after the second registration in a process"
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as executor:
        return executor.submit(_register_spawned, entry).result()


def _register(entry: PluginEntry) -> VendorInfo:
    return Session(register(entry, VENDOR_HOOKS)).vendor_info()


def _register_spawned(entry: PluginEntry) -> str | None:
    try:
        _register(entry)
    except PluginError as error:
        # An exception of chipperf cannot be sent between processes.
        return f"the registration in a spawned process fails: {error.message}"
    return None


def observe_probe_result(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Probe, and return faults in the result's types and the capacities of the devices.

    Args:
        arguments: ``entry``: the plugin's entry point, as a mapping.

    Returns:
        ``fault``: a phrase, or ``None``. ``memory_bytes``: name and capacity of each device if there is no fault.
    """
    result = register(PluginEntry(**arguments["entry"]), VENDOR_HOOKS).call("perf_probe")
    fault = describe_mismatch(result, ProbeResult)
    devices = () if fault else result.devices
    return {"fault": fault, "memory_bytes": [(device.name, device.total_bytes) for device in devices]}


@dataclass(frozen=True, slots=True)
class _State:
    """The state of a process that a plugin must not change."""

    environment: dict[str, str]
    modules: dict[str, ModuleType]
    functions: dict[tuple[str, str], object]
    streams: dict[str, object]
    import_hooks: list[object]
    path: list[str]
    signals: dict[int, object]
    directory: str
    threads: set[threading.Thread]
    native_threads: int
    children: set[int]


def _read_state() -> _State:
    process = psutil.Process()
    modules = dict(sys.modules)
    return _State(
        environment=dict(os.environ),
        modules=modules,
        functions={
            (name, key): value
            for name, module in modules.items()
            for key, value in list(vars(module).items())
            if callable(value)
        },
        streams={name: getattr(sys, name) for name in ("stdin", "stdout", "stderr")},
        import_hooks=[*sys.meta_path, *sys.path_hooks],
        path=list(sys.path),
        signals={number: signal.getsignal(number) for number in signal.valid_signals()},
        directory=os.getcwd(),
        threads=set(threading.enumerate()),
        native_threads=process.num_threads(),
        children={child.pid for child in process.children()},
    )


@contextmanager
def _watched(action: str) -> Iterator[list[str]]:
    """Yield a list. At the end of the block it holds the changes that the block made."""
    found: list[str] = []
    before = _read_state()
    with _caught_output() as printed:
        yield found
    found += [f"{action} {change}" for change in _differences(before, _settled_state(before))]
    if printed:
        found.append(f"{action} prints {printed[0]!r} to standard output")


def _settled_state(before: _State) -> _State:
    deadline_s = time.monotonic() + _THREAD_END_S
    state = _read_state()
    while state.native_threads > before.native_threads and time.monotonic() < deadline_s:
        time.sleep(0.02)
        state = _read_state()
    return state


def _differences(before: _State, after: _State) -> Iterator[str]:
    variables = [
        name
        for name in sorted({*before.environment, *after.environment})
        if before.environment.get(name) != after.environment.get(name)
    ]
    if variables:
        yield f"changes environment variables: {', '.join(variables)}"
    replaced = [name for name, module in before.modules.items() if after.modules.get(name) is not module]
    if replaced:
        yield f"replaces modules: {', '.join(replaced)}"
    patched = [
        f"{module}.{name}"
        for (module, name), function in before.functions.items()
        if module not in replaced and after.functions.get((module, name)) is not function
    ]
    if patched:
        yield f"replaces functions: {', '.join(patched)}"
    streams = [f"sys.{name}" for name, stream in before.streams.items() if after.streams[name] is not stream]
    if streams:
        yield f"replaces {', '.join(streams)}"
    if after.import_hooks != before.import_hooks:
        yield "changes sys.meta_path or sys.path_hooks, which affects every later import"
    if after.path != before.path:
        yield f"changes sys.path: {', '.join(sorted({*after.path} ^ {*before.path})) or 'its order'}"
    signals = [
        signal.Signals(number).name for number, handler in before.signals.items() if after.signals[number] != handler
    ]
    if signals:
        yield f"changes the handling of {', '.join(signals)}"
    if after.directory != before.directory:
        yield f"changes the working directory to {after.directory}"
    yield from _left_running(before, after)


def _left_running(before: _State, after: _State) -> Iterator[str]:
    threads = after.threads - before.threads
    if threads:
        yield f"leaves threads running: {', '.join(sorted(thread.name for thread in threads))}"
    elif after.native_threads > before.native_threads:
        yield f"leaves {after.native_threads - before.native_threads} thread(s) of a library running"
    children = after.children - before.children
    if children:
        yield f"leaves {len(children)} process(es) running"


@contextmanager
def _caught_output() -> Iterator[list[str]]:
    """Yield a list. At the end of the block it holds the block's standard output, if there is any."""
    printed: list[str] = []
    stdout = os.dup(1)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 1)
        try:
            yield printed
        finally:
            sys.stdout.flush()
            os.dup2(stdout, 1)
            os.close(stdout)
        file.seek(0)
        text = file.read().decode(errors="replace").strip()
        if text:
            printed.append(text[:200])
