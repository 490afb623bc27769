"""Registering a plugin, after checking that it fulfils the hook specification.

Every fault of a plugin is reported at once, and nothing is registered if there is one. The functions that find one kind
of fault each are also checks of the contract suite.
"""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any, Final, Literal

import pluggy

from chipperf.errors import PluginLoadError, did_you_mean
from chipperf.plugin.hookspecs import PROJECT_NAME, ObserverSpecs, VendorSpecs
from chipperf.plugin.installed import load
from chipperf.plugin.types import API_VERSION, Capability

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, Mapping
    from types import ModuleType

    from chipperf.plugin.installed import PluginEntry
    from chipperf.plugin.types import VendorInfo

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


def new_manager() -> pluggy.PluginManager:
    """Return a plugin manager that knows every hook and no plugin."""
    manager = pluggy.PluginManager(PROJECT_NAME)
    manager.add_hookspecs(VendorSpecs)
    manager.add_hookspecs(ObserverSpecs)
    return manager


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
    faults = [*mismatches(manager, module, hooks), *forbidden_options(manager, module)]
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
    missing = missing_hooks(hooks, purpose)
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
    faults = [*name_faults(entry, info), *api_version_faults(info), *undeclared_capabilities(hooks, info)]
    # A plugin that is still being written can be listed.
    if purpose == "train":
        faults += unfounded_capabilities(hooks, info)
    if faults:
        raise _broken(entry, faults)


def mismatches(
    manager: pluggy.PluginManager, module: ModuleType, hooks: Mapping[str, tuple[str, ...]]
) -> Iterator[str]:
    """Yield what in ``module`` looks like a hook and would not be called as one of ``hooks``."""
    for name, value in sorted(vars(module).items()):
        if manager.parse_hookimpl_opts(module, name) is None:
            yield from _unmarked(module, name, value)
        elif name in hooks:
            yield from _unknown_arguments(name, value, hooks[name])
        elif name in VENDOR_HOOKS:
            yield f"{name} is a vendor's hook, which an observer may not implement"
        elif name in OBSERVER_HOOKS:
            yield f"{name} is an observer's hook, which belongs in a plugin of its own in the group chipperf.observers"
        else:
            yield f"{name} is not a hook{did_you_mean(name, hooks)}"


def forbidden_options(manager: pluggy.PluginManager, module: ModuleType) -> Iterator[str]:
    """Yield every use of what pluggy offers and a hook does without: wrappers, an order, defaults of arguments."""
    for name, function in sorted(vars(module).items()):
        options = manager.parse_hookimpl_opts(module, name)
        if options is None:
            continue
        used = [key for key in ("wrapper", "hookwrapper", "tryfirst", "trylast", "specname") if options[key]]
        if used:
            yield f"{name} uses {' and '.join(used)}: a hook is one function of its name, called alone"
        for argument in inspect.signature(function).parameters.values():
            if argument.default is not inspect.Parameter.empty:
                yield f"{name} gives {argument.name!r} a default, so it would never be passed"


def missing_hooks(hooks: Container[str], purpose: Purpose) -> list[str]:
    """Return the hooks that ``purpose`` needs and that are not among ``hooks``."""
    required = INSPECTION_HOOKS if purpose == "inspect" else REQUIRED_HOOKS
    return [name for name in required if name not in hooks]


def name_faults(entry: PluginEntry, info: VendorInfo) -> Iterator[str]:
    """Yield why the vendor cannot be selected by its name."""
    if info.name != entry.name:
        yield f"VendorInfo.name is {info.name!r}, but the entry point is called {entry.name!r}"
    if not _VENDOR_NAME.fullmatch(info.name):
        yield f"VendorInfo.name {info.name!r} is not of the form {_VENDOR_NAME.pattern}"


def api_version_faults(info: VendorInfo) -> Iterator[str]:
    """Yield why this core cannot run a plugin of the vendor's API version."""
    if info.api_version.partition(".")[0] != API_VERSION.partition(".")[0]:
        yield f"it is written for API version {info.api_version}, this chipperf has {API_VERSION}"


def undeclared_capabilities(hooks: Container[str], info: VendorInfo) -> Iterator[str]:
    """Yield hooks whose capability the vendor does not declare."""
    for capability, hook in CAPABILITY_HOOKS.items():
        if hook in hooks and capability not in info.capabilities:
            yield f"it implements {hook}, but does not declare Capability.{capability.name}"


def unfounded_capabilities(hooks: Container[str], info: VendorInfo) -> Iterator[str]:
    """Yield capabilities whose hook the vendor does not implement."""
    for capability, hook in CAPABILITY_HOOKS.items():
        if capability in info.capabilities and hook not in hooks:
            yield f"it declares Capability.{capability.name}, but does not implement {hook}"


def _unmarked(module: ModuleType, name: str, value: object) -> Iterator[str]:
    if not name.startswith("perf_") or not callable(value):
        return
    # A helper that was imported, such as time.perf_counter, is not meant to be a hook.
    if getattr(value, "__module__", None) == module.__name__ or name in {**VENDOR_HOOKS, **OBSERVER_HOOKS}:
        yield f"{name} lacks @hookimpl and would never be called"


def _unknown_arguments(name: str, function: Callable[..., object], specified: tuple[str, ...]) -> Iterator[str]:
    for argument in inspect.signature(function).parameters.values():
        if argument.kind is not inspect.Parameter.POSITIONAL_OR_KEYWORD:
            yield f"{name} takes {argument}: name the arguments ({', '.join(specified)})"
        elif argument.name not in specified:
            yield f"{name} takes {argument.name!r}, but the hook passes ({', '.join(specified)})"


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
