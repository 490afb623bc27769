"""The side effects of a plugin: of its import, its registration, its probe, and any other of its hooks.

Functions that take the plugin's entry point as a mapping are called in another process, without any plugin.
"""

from __future__ import annotations

import atexit
import gc
import inspect
import locale
import logging
import multiprocessing
import os
import random
import re
import resource
import signal
import socket
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import distribution
from itertools import product
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, Final

import psutil

# Plugins use these modules of core, so they must be imported before the first comparison.
import chipperf.hardware
import chipperf.torchtools  # noqa: F401
from chipperf.contract.isolation import undisturbed_s
from chipperf.contract.plugin_files import importable_names, named_variables, source_files
from chipperf.errors import PerfError, PluginError
from chipperf.plugin import installed
from chipperf.plugin.hook_results import describe_mismatch
from chipperf.plugin.installed import PluginEntry, package_directory
from chipperf.plugin.registration import VENDOR_HOOKS, BoundPlugin
from chipperf.plugin.session import Session
from chipperf.plugin.types import ProbeResult, VendorInfo

_State = dict[str, dict[str, object]]
"""Kinds of things that a plugin must not change: what a change of one is called, and the value of each by its name."""

_THREAD_END_S: Final = 2.0
"""Time that a joined thread has to disappear from the kernel's list."""

_VARIABLES: Final = "changes environment variables"
_MODULES: Final = "replaces modules"
_FUNCTIONS: Final = "replaces functions"
_LOGGING: Final = "changes the logging of"
_SETTINGS: Final = "changes"
_FILES: Final = "leaves or changes files"
_OPEN: Final = "leaves open"
_THREADS: Final = "leaves threads running"
_LIBRARY_THREADS: Final = "leaves threads of a library running"

_ALL_LOGGERS: Final = "all loggers"
_ROOT_LOGGER: Final = "the root logger"

_WARNINGS: Final = (UserWarning, FutureWarning, RuntimeWarning)
_WARNERS: Final = ("torch", "torch.nn.functional", "torchvision.ops.misc", "chipperf.train.worker", "__main__")
"""Kinds of warnings, and modules of others that warn; a plugin may leave only those unshown whose text it names."""

_TORCH_MODULE: Final = re.compile(r"torch\.[a-z]\w*")
"""Matches a public module directly in torch."""

_OPERATORS: Final = ("torch.nn.", "torch.optim.", "torch.Tensor.")
"""Where torch replaces nothing of its own later."""

_OF_RUNTIMES: Final = frozenset({_MODULES, _OPEN, _THREADS, _LIBRARY_THREADS})
"""Kinds of changes that a runtime may make: its extension replaces modules, its driver has open files and threads."""

_SETTINGS_OF_RUNTIMES: Final = frozenset(
    {
        "sys.path",
        "import hooks",
        "warnings.filters",
        "limits of the process",
        "the state of random",
        "atexit's handlers",
        "torch.compiler.get_default_backend",
    }
)
"""Settings that the import of an extension changes for its own sake. Core seeds the generators after it."""


def observe_import(entry: Mapping[str, str]) -> dict[str, Any]:
    """Import a plugin; return the modules that this loads, the libraries that it opens with ctypes, and its time."""
    libraries: list[str] = []

    def audit(event: str, values: tuple[Any, ...]) -> None:
        # None is the process itself, which ctypes opens when it is imported.
        if event == "ctypes.dlopen" and values[0]:
            libraries.append(str(values[0]))

    before = set(sys.modules)
    sys.addaudithook(audit)
    started_s = undisturbed_s()
    installed.load(PluginEntry(**entry))
    seconds = undisturbed_s() - started_s
    return {"modules": sorted(set(sys.modules) - before), "libraries": libraries, "seconds": seconds}


def observe_changes(entry: Mapping[str, str]) -> list[str]:
    """Import, register and probe a plugin, call its hooks that need no device, and return the changes as phrases."""
    from chipperf.contract.sample_records import data_answers

    started: list[str] = []

    def audit(event: str, values: tuple[Any, ...]) -> None:
        if event == "subprocess.Popen":
            started.append(str(values[0]))

    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        os.environ.update(dict.fromkeys(("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"), place))
        tempfile.tempdir = None
        sys.addaudithook(audit)
        with watched("its import", place) as found:
            session = _session(entry)
        # A probe may run a management tool, an import may not.
        changes = [*found, *(f"its import runs {program}" for program in started)]
        # Core never shows what a probe prints to standard error.
        with watched("its probe", place, streams=(1,)) as found, suppress(PerfError):
            session.probe()
        changes += found
        with watched("a hook that needs no device", place) as found, suppress(PerfError):
            list(data_answers(session))
        os.chdir("/")
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
        fault, answers = executor.submit(_answer_spawned, entry).result()
    if fault:
        return fault
    with suppress(PerfError):
        # A10 reports a hook that raises.
        for call, answer in answer_what_is_constant(entry).items():
            if answer != answers.get(call, answer):
                return f"{call} returns {answer}, and {answers[call]} in a spawned process"
    return None


def _register(entry: Mapping[str, str]) -> VendorInfo:
    return _session(entry).vendor_info()


def _answer_spawned(entry: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Return why an interpreter that has just started cannot register a plugin, empty if it can, and its answers."""
    try:
        _register(entry)
    except PluginError as error:
        # An exception of chipperf cannot be sent between processes.
        return f"the registration in a spawned process fails: {error.message}", {}
    with suppress(PerfError):
        return "", answer_what_is_constant(entry)
    return "", {}


def observe_probe_result(entry: Mapping[str, str]) -> dict[str, Any]:
    """Probe, and return a fault in the result's types or ``None``, and the name and capacity of each device."""
    result = BoundPlugin(PluginEntry(**entry), VENDOR_HOOKS).call("perf_probe")
    fault = describe_mismatch(result, ProbeResult)
    devices = () if fault else result.devices
    return {"fault": fault, "memory_bytes": [(device.name, device.total_bytes) for device in devices]}


def answer_elsewhere(entry: Mapping[str, str]) -> dict[str, str]:
    """Return the answers that depend on their arguments alone, each as text, as on another machine of another user.

    There is no package that the plugin's distribution does not require, such as the vendor's.
    """
    required = importable_names(distribution(entry["distribution"])) | {entry["value"].partition(".")[0]}
    known = required.union(sys.stdlib_module_names, (name.partition(".")[0] for name in sys.modules))
    finders: list[Any] = [_FinderOf(known, finder) for finder in sys.meta_path]
    sys.meta_path[:] = finders
    named = {name for file in source_files(PluginEntry(**entry)) for name in named_variables(file.read_text("utf-8"))}
    cores = {0, 1, 2}
    substitutes: dict[str, Any] = {
        "os.cpu_count": lambda: len(cores),
        "os.sched_getaffinity": lambda pid: cores,
        "multiprocessing.cpu_count": lambda: len(cores),
        "psutil.cpu_count": lambda logical=True: len(cores),
        "platform.node": lambda: "elsewhere",
        "socket.gethostname": lambda: "elsewhere",
    }
    for name, substitute in substitutes.items():
        module, _, function = name.partition(".")
        setattr(sys.modules[module], function, substitute)
    with tempfile.TemporaryDirectory() as place:
        os.environ.clear()
        # What begins so is a setting of the plugin's own, by which a user chooses another stack.
        os.environ.update({name: "7" for name in named if not name.startswith(("PERF_", "CHIPPERF_"))})
        os.environ.update(HOME=place, USER="somebody", HOSTNAME="elsewhere", TZ="Asia/Shanghai", LANG="zh_CN.UTF-8")
        os.chdir(place)
        return answer_what_is_constant(entry)


def answer_again(entry: Mapping[str, str]) -> dict[str, str]:
    """Return every answer of the hooks that need no device, each as text, asked for in another order."""
    from chipperf.contract.sample_records import data_answers

    return {call: repr(answer) for call, answer in data_answers(_session(entry), backwards=True)}


def answer_what_is_constant(entry: Mapping[str, str]) -> dict[str, str]:
    """Return the answers that depend on their arguments alone, each as text."""
    from chipperf.contract.sample_records import constant_answers

    return {call: repr(answer) for call, answer in constant_answers(_session(entry))}


def visible_devices_env(entry: Mapping[str, str]) -> list[str]:
    """Return the names of the variables that restrict the visible devices."""
    return list(_session(entry).vendor_info().visible_devices_env)


def _session(entry: Mapping[str, str]) -> Session:
    return Session(BoundPlugin(PluginEntry(**entry), VENDOR_HOOKS))


@dataclass(frozen=True)
class _FinderOf:
    """An import hook that finds some top-level modules and packages only."""

    names: set[str]
    finder: Any

    def find_spec(self, name: str, *arguments: Any) -> Any:
        return self.finder.find_spec(name, *arguments) if name.partition(".")[0] in self.names else None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.finder, name)


@dataclass(eq=False)
class _Events:
    """What the interpreter reports while a block runs: the files it opens to write, and who sets a variable."""

    written: set[str] = field(default_factory=set)
    authors: dict[str, str] = field(default_factory=dict)
    is_watching: bool = True

    def __post_init__(self) -> None:
        # A hook cannot be removed.
        sys.addaudithook(self._note)

    def _note(self, event: str, values: tuple[Any, ...]) -> None:
        if not self.is_watching:
            return
        if event == "os.mkdir" or (event == "open" and _writes(values) and isinstance(values[0], str | bytes)):
            self.written.add(os.path.abspath(os.fsdecode(values[0])))
        elif event == "os.putenv":
            frame = inspect.currentframe()
            while frame and frame.f_code.co_filename.startswith(("<frozen", os.__file__, __file__)):
                frame = frame.f_back
            self.authors[os.fsdecode(values[0])] = frame.f_code.co_filename if frame else ""


def _writes(values: tuple[Any, ...]) -> bool:
    return isinstance(values[2], int) and bool(values[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))


@contextmanager
def watched(
    action: str, place: str, *, streams: tuple[int, ...] = (1, 2), of_runtime: PluginEntry | None = None
) -> Iterator[list[str]]:
    """Yield a list. At the end of the block it holds the changes that the block made, as phrases.

    Args:
        action: What the block does, for the phrases.
        place: The working directory. Every new file there is one that the block left.
        streams: Descriptors on which the block must not print.
        of_runtime: The plugin whose hooks the block calls, if these use the vendor's runtime, which may change more.
    """
    found: list[str] = []
    threads = psutil.Process().num_threads()
    with tempfile.TemporaryFile() as output:
        kept = {stream: os.dup(stream) for stream in streams}
        before = _read_state(place)
        events = _Events()
        for stream in streams:
            os.dup2(output.fileno(), stream)
        try:
            yield found
        finally:
            with suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            for stream, own in kept.items():
                os.dup2(own, stream)
        events.is_watching = False
        deadline_s = time.monotonic() + _THREAD_END_S
        while psutil.Process().num_threads() > threads and not of_runtime and time.monotonic() < deadline_s:
            time.sleep(0.02)
        after = _read_state(place)
        for own in kept.values():
            os.close(own)
        output.seek(0)
        printed = output.read().decode(errors="replace").strip()
    if of_runtime is None:
        after[_FILES] |= {path: None for path in events.written if _is_left(path)}
    for kind, names in _changes(before, after):
        culprits = [
            name
            for name in names
            if not of_runtime or not _may_change(kind, name, before, after, of_runtime, events.authors.get(name, ""))
        ]
        if culprits:
            found.append(f"{action} {kind}: {', '.join(sorted(culprits))}")
    if printed:
        found.append(f"{action} prints {printed[:200]!r}")


def _may_change(kind: str, name: str, before: _State, after: _State, plugin: PluginEntry, author: str) -> bool:
    """Return whether it is legitimate that the hooks that use the vendor's runtime make a change."""
    if kind == _VARIABLES:
        # A runtime sets variables for itself and adds to paths. What the plugin sets must be recorded; what was set
        # before is the user's choice, or recorded.
        package = package_directory(plugin)
        is_kept = str(before[kind].get(name, "")) in str(after[kind].get(name))
        return is_kept and not (package and Path(author).is_relative_to(package))
    if kind == _FUNCTIONS:
        # Extensions replace functions of torch by their own. The plugin's own would be another stack than the vendor's,
        # and so would one operator of torch in the place of another.
        owner = getattr(inspect.unwrap(after[kind].get(name)), "__module__", None) or ""  # type: ignore[arg-type]
        is_swap = owner.startswith("torch") and name.startswith(_OPERATORS)
        return not (_is_part(owner, plugin.value) or is_swap or name.startswith(installed.CORE_PACKAGE))
    if kind == _LOGGING:
        return name not in (_ALL_LOGGERS, _ROOT_LOGGER) and not _is_part(name, installed.CORE_PACKAGE)
    return kind in _OF_RUNTIMES or name in _SETTINGS_OF_RUNTIMES


def _is_part(module: str, of: str) -> bool:
    return module.partition(".")[0] == of.partition(".")[0]


def _is_left(path: str) -> bool:
    """Return whether a file or directory that was written is still there, and not a compiled module."""
    return "__pycache__" not in path and (os.path.isfile(path) or os.path.isdir(path))


def _read_state(place: str) -> _State:
    process = psutil.Process()
    modules = {name: module for name, module in list(sys.modules.items()) if isinstance(module, ModuleType)}
    umask = os.umask(0)
    os.umask(umask)
    limits = [name for name in dir(resource) if name.startswith("RLIMIT_")]
    threads = threading.enumerate()
    return {
        _VARIABLES: dict(os.environ),
        _MODULES: dict(modules),
        _FUNCTIONS: dict(_functions(modules)),
        "replaces": {f"sys.{name}": getattr(sys, name) for name in ("stdin", "stdout", "stderr")},
        # Real-time signals have no name.
        "changes the handling of": {
            str(getattr(number, "name", number)): signal.getsignal(number) for number in signal.valid_signals()
        },
        _LOGGING: dict(_loggers()),
        "leaves unshown": dict.fromkeys(_silenced()),
        _SETTINGS: {
            "the working directory": _directory(),
            "sys.path": list(sys.path),
            "import hooks": [*sys.meta_path, *sys.path_hooks],
            "sys.argv": list(sys.argv),
            "warnings.filters": list(warnings.filters),
            "the start method of multiprocessing": multiprocessing.get_start_method(allow_none=True),
            "the locale": locale.setlocale(locale.LC_ALL),
            "the time zone": time.tzname,
            "the umask": umask,
            "limits of the process": {name: resource.getrlimit(getattr(resource, name)) for name in limits},
            "the priority of the process": os.nice(0),
            "the cores of the process": process.cpu_affinity() if hasattr(process, "cpu_affinity") else None,
            "the recursion limit": sys.getrecursionlimit(),
            "the switch interval of threads": sys.getswitchinterval(),
            "the stack size of threads": threading.stack_size(),
            "the tracing of functions": (sys.gettrace(), sys.getprofile()),
            "the state of random": random.getstate(),
            "the garbage collection": (gc.isenabled(), gc.get_threshold(), list(gc.callbacks)),
            "atexit's handlers": getattr(atexit, "_ncallbacks", int)(),
            "the time-out of sockets": socket.getdefaulttimeout(),
            "the timer of SIGALRM": signal.getitimer(signal.ITIMER_REAL)[1],
            **_torch_settings(),
        },
        _FILES: {str(path): path.lstat().st_mtime_ns for path in Path(place).rglob("*")},
        _OPEN: _open_files(),
        _THREADS: {thread.name: thread for thread in threads},
        _LIBRARY_THREADS: {f"number {number}": number for number in range(process.num_threads() - len(threads))},
        "leaves processes running": {str(child.pid): child.pid for child in process.children()},
    }


def _functions(modules: Mapping[str, ModuleType]) -> Iterator[tuple[str, object]]:
    """Yield the functions and classes in modules, and the methods of classes, each with its name."""
    for module_name, module in modules.items():
        for key, value in list(vars(module).items()):
            if callable(value):
                name = f"{module_name}.{key}"
                yield name, value
                if isinstance(value, type) and value.__module__ == module_name:
                    yield from (
                        (f"{name}.{own}", method)
                        for own, method in list(vars(value).items())
                        if isinstance(method, FunctionType | staticmethod | classmethod | property)
                    )


def _silenced() -> Iterator[str]:
    """Yield each kind of warning that is not shown whatever its text, with the module it comes from."""
    for kind, module in product(_WARNINGS, _WARNERS):
        for action, message, hidden, place, _ in warnings.filters:
            if message is None and issubclass(kind, hidden) and _is_matched(place, module):
                if action == "ignore":
                    yield f"{kind.__name__} of {module}"
                break


def _is_matched(pattern: re.Pattern[str] | str | None, text: str) -> bool:
    return pattern is None or bool(re.match(pattern, text))


def _loggers() -> Iterator[tuple[str, object]]:
    """Yield what decides about messages. Libraries may give their own loggers a level, and handlers that do nothing."""
    root = logging.root
    yield _ALL_LOGGERS, root.manager.disable
    yield _ROOT_LOGGER, (root.level, list(root.handlers), list(root.filters))
    for name, logger in list(root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger):
            handlers = [handler for handler in logger.handlers if not isinstance(handler, logging.NullHandler)]
            level = logger.level if _is_part(name, installed.CORE_PACKAGE) else logging.NOTSET
            if level or handlers or logger.filters or logger.disabled or not logger.propagate:
                yield name, (level, handlers, list(logger.filters), logger.disabled, logger.propagate)


def _torch_settings() -> dict[str, object]:
    torch: Any = sys.modules.get("torch")
    # A stand-in for torch has no types.
    if not hasattr(torch, "get_default_dtype"):
        return {}
    return {
        "torch's default type": torch.get_default_dtype(),
        "torch's default device": torch.empty(()).device,
        "torch's gradient mode": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "torch's number of threads": torch.get_num_threads(),
        **dict(_choices_of_torch()),
    }


def _choices_of_torch() -> Iterator[tuple[str, object]]:
    """Yield what torch's modules let a program choose, beside switches of numerics and what belongs to a device type.

    Each is what a function without arguments returns that has a setter beside it.
    """
    for name, module in list(sys.modules.items()):
        if not _TORCH_MODULE.fullmatch(name) or hasattr(module, "device_count"):
            continue
        for key, read in list(vars(module).items()):
            if key.startswith("get_") and hasattr(module, key.replace("get", "set", 1)) and inspect.isfunction(read):
                with suppress(Exception):
                    value = read()
                    if isinstance(value, bool | int | float | str):
                        yield f"{name}.{key}", value


def _directory() -> str | None:
    with suppress(FileNotFoundError):
        return os.getcwd()
    return None


def _open_files() -> dict[str, object]:
    found: dict[str, object] = {}
    with suppress(OSError):
        for number in os.listdir("/proc/self/fd"):
            # The descriptor of the listing itself is closed again.
            with suppress(OSError):
                found[f"{os.readlink(f'/proc/self/fd/{number}')} (descriptor {number})"] = number
    return found


def _changes(before: _State, after: _State) -> Iterator[tuple[str, list[str]]]:
    """Yield the kinds of changes, each with the names of what changed."""
    replaced = set()
    for kind, old in before.items():
        new = after[kind]
        if kind in (_MODULES, _FUNCTIONS):
            names = [name for name, value in old.items() if new.get(name) is not value]
            if kind == _MODULES:
                replaced.update(names)
            names = [name for name in names if kind == _MODULES or name.rpartition(".")[0] not in replaced]
        else:
            names = [name for name, value in new.items() if name not in old or old[name] != value]
            if not kind.startswith("leaves"):
                names += [name for name in old if name not in new]
        yield kind, names
