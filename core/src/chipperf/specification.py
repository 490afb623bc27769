"""Registering a plugin, after checking that it fulfils the hook specification.

Every fault of a plugin is reported at once, and nothing is registered if there is one.
"""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any, Final, Literal

import pluggy

from chipperf.catalogue import load
from chipperf.errors import PluginLoadError
from chipperf.hookspecs import ObserverSpecs, VendorSpecs
from chipperf.suggestions import did_you_mean
from chipperf.types import API_VERSION, Capability

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import ModuleType

    from chipperf.catalogue import PluginEntry
    from chipperf.types import VendorInfo

    Hook = Callable[..., Any]

Purpose = Literal["inspect", "train"]
"""What a vendor is bound for: ``inspect`` lists and probes it, ``train`` demands every required hook."""


def _hooks_of(specs: type) -> dict[str, tuple[str, ...]]:
    functions = inspect.getmembers(specs, inspect.isfunction)
    return {name: tuple(inspect.signature(function).parameters)[1:] for name, function in functions}


VENDOR_HOOKS: Final = _hooks_of(VendorSpecs)
"""Argument names of each vendor hook."""

OBSERVER_HOOKS: Final = _hooks_of(ObserverSpecs)
"""Argument names of each observer hook."""

INSPECTION_HOOKS: Final = ("perf_vendor_info", "perf_probe")
"""Hooks without which a vendor cannot even be listed."""

REQUIRED_HOOKS: Final = (
    *INSPECTION_HOOKS,
    "perf_load_runtime",
    "perf_device_init",
    "perf_device_info",
    "perf_synchronize",
    "perf_memory_query",
    "perf_memory_reset_peak",
)
"""Hooks without which a vendor cannot train."""

CAPABILITY_HOOKS: Final = {
    Capability.DISTRIBUTED: "perf_distributed_setup",
    Capability.TELEMETRY: "perf_telemetry",
}
"""Hook that a capability stands for: whoever declares one implements the other."""


_VENDOR_NAME: Final = re.compile(r"[a-z][a-z0-9_]*")


def register(
    manager: pluggy.PluginManager, entry: PluginEntry, hooks: Mapping[str, tuple[str, ...]]
) -> dict[str, Hook]:
    """Load and register a plugin.

    Args:
        manager: Where to register it; it knows the specifications.
        entry: The plugin.
        hooks: Hooks it may implement, with their argument names.

    Returns:
        What the plugin implements, by hook. Each function takes the hook's arguments by position.

    Raises:
        PluginLoadError: The plugin cannot be imported or breaks the specification; every fault is listed.
    """
    module = load(entry)
    faults = [*_faults_of_unmarked(manager, module), *_faults_of_marked(manager, module, hooks)]
    if faults:
        raise _broken(entry, faults)
    try:
        manager.register(module, name=str(entry))
        manager.check_pending()
    except (ValueError, pluggy.PluginValidationError) as error:
        raise _broken(entry, [str(error)]) from error
    return {
        name: _with_arguments(implementation, arguments)
        for name, arguments in hooks.items()
        for implementation in getattr(manager.hook, name).get_hookimpls()
        if implementation.plugin is module
    }


def require_hooks(entry: PluginEntry, hooks: Mapping[str, Hook], purpose: Purpose) -> None:
    """Make sure that a vendor implements what ``purpose`` needs.

    Raises:
        PluginLoadError: Required hooks are missing; all are named.
    """
    required = INSPECTION_HOOKS if purpose == "inspect" else REQUIRED_HOOKS
    missing = [name for name in required if name not in hooks]
    if missing:
        raise PluginLoadError(
            f"{entry} lacks required hooks: {', '.join(missing)}",
            hint=f"implement them in {entry.value}; docs/hooks.md has an example of each",
        )


def require_consistent(entry: PluginEntry, hooks: Mapping[str, Hook], info: VendorInfo, purpose: Purpose) -> None:
    """Make sure that what a vendor says of itself agrees with its entry point, its hooks and this version of core.

    Raises:
        PluginLoadError: It does not; every disagreement is named.
    """
    faults = []
    if info.name != entry.name:
        faults.append(f"VendorInfo.name is {info.name!r}, but the entry point is called {entry.name!r}")
    if not _VENDOR_NAME.fullmatch(info.name):
        faults.append(f"VendorInfo.name {info.name!r} is not of the form {_VENDOR_NAME.pattern}")
    if info.api_version.partition(".")[0] != API_VERSION.partition(".")[0]:
        faults.append(f"it is written for API version {info.api_version}, this chipperf has {API_VERSION}")
    for capability, hook in CAPABILITY_HOOKS.items():
        if hook in hooks and capability not in info.capabilities:
            faults.append(f"it implements {hook}, but does not declare Capability.{capability.name}")
        # A plugin that is still being written can be listed.
        if purpose == "train" and capability in info.capabilities and hook not in hooks:
            faults.append(f"it declares Capability.{capability.name}, but does not implement {hook}")
    if faults:
        raise _broken(entry, faults)


def _faults_of_unmarked(manager: pluggy.PluginManager, module: ModuleType) -> Iterator[str]:
    for name, value in sorted(vars(module).items()):
        if not name.startswith("perf_") or not callable(value) or manager.parse_hookimpl_opts(module, name):
            continue
        # A helper that was imported, such as time.perf_counter, is not meant to be a hook.
        if getattr(value, "__module__", None) == module.__name__ or name in {**VENDOR_HOOKS, **OBSERVER_HOOKS}:
            yield f"{name} lacks @hookimpl and would never be called"


def _faults_of_marked(
    manager: pluggy.PluginManager, module: ModuleType, hooks: Mapping[str, tuple[str, ...]]
) -> Iterator[str]:
    for name, function in sorted(vars(module).items()):
        options = manager.parse_hookimpl_opts(module, name)
        if options is None:
            continue
        used = [key for key in ("wrapper", "hookwrapper", "tryfirst", "trylast", "specname") if options[key]]
        if used:
            yield f"{name} uses {' and '.join(used)}: a hook is one function of its name, called alone"
        if name in hooks:
            yield from _faults_of_signature(name, function, hooks[name])
        elif name in VENDOR_HOOKS:
            yield f"{name} is a vendor's hook, which an observer may not implement"
        elif name in OBSERVER_HOOKS:
            yield f"{name} is an observer's hook, which belongs in a plugin of its own in the group chipperf.observers"
        else:
            yield f"{name} is not a hook{did_you_mean(name, hooks)}"


def _faults_of_signature(name: str, function: Callable[..., object], specified: tuple[str, ...]) -> Iterator[str]:
    for argument in inspect.signature(function).parameters.values():
        if argument.kind is not inspect.Parameter.POSITIONAL_OR_KEYWORD:
            yield f"{name} takes {argument}: name the arguments ({', '.join(specified)})"
        elif argument.name not in specified:
            yield f"{name} takes {argument.name!r}, but the hook passes ({', '.join(specified)})"
        elif argument.default is not inspect.Parameter.empty:
            yield f"{name} gives {argument.name!r} a default, so it would never be passed"


def _with_arguments(implementation: pluggy.HookImpl, arguments: tuple[str, ...]) -> Hook:
    # As in pluggy, an implementation may leave out arguments it does not need, and order the others as it likes.
    function: Hook = implementation.function
    if implementation.argnames == arguments:
        return function
    positions = [arguments.index(name) for name in implementation.argnames]
    return lambda *values: function(*(values[position] for position in positions))


def _broken(entry: PluginEntry, faults: list[str]) -> PluginLoadError:
    return PluginLoadError(
        f"{entry} does not fulfil the hook specification: {'; '.join(faults)}",
        hint=f"correct {entry.value}; docs/hooks.md specifies every hook",
    )
