"""Registering a plugin after checking it against the hook specification. The contract suite finds faults here too."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any, Final, Literal

import pluggy

from chipperf.errors import PluginLoadError, did_you_mean
from chipperf.plugin.hookspecs import PROJECT_NAME, ObserverSpecs, VendorSpecs
from chipperf.plugin.installed import PluginEntry, load
from chipperf.plugin.types import API_VERSION, Capability, VendorInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, Mapping
    from types import ModuleType

    Hook = Callable[..., Any]

Purpose = Literal["inspect", "train"]
"""Purpose of binding a vendor: ``inspect`` to list and probe it, or ``train``, which needs every required hook."""


def _hooks_of(specs: type) -> dict[str, tuple[str, ...]]:
    functions = inspect.getmembers(specs, inspect.isfunction)
    return {name: tuple(inspect.signature(function).parameters)[1:] for name, function in functions}


VENDOR_HOOKS: Final = _hooks_of(VendorSpecs)
"""Argument names of each vendor hook."""

OBSERVER_HOOKS: Final = _hooks_of(ObserverSpecs)
"""Argument names of each observer hook."""

EVENT_HOOKS: Final = {
    inspect.signature(getattr(ObserverSpecs, name)).parameters["event"].annotation: name for name in OBSERVER_HOOKS
}
"""The observer hook of each type of event, by the name of the type."""

INSPECTION_HOOKS: Final = ("perf_vendor_info", "perf_probe")
"""Hooks that a vendor needs to be listed."""

REQUIRED_HOOKS: Final = (
    *INSPECTION_HOOKS,
    "perf_load_runtime",
    "perf_device_init",
    "perf_device_info",
    "perf_synchronize",
    "perf_memory_query",
    "perf_memory_reset_peak",
)
"""Hooks that a vendor needs for training."""

CAPABILITY_HOOKS: Final = {Capability.DISTRIBUTED: "perf_distributed_setup", Capability.TELEMETRY: "perf_telemetry"}
"""The hook of each capability. A plugin must declare the capability exactly if it implements the hook."""

_VENDOR_NAME: Final = re.compile(r"[a-z][a-z0-9_]*")
_API_VERSION: Final = re.compile(r"([0-9]+)\.([0-9]{1,9})")


class BoundPlugin:
    """A plugin and its ``hooks``, with its own pluggy manager, so that no other plugin can answer them.

    ``arguments`` are the hooks that it may implement. If it cannot be loaded, or does not match the specification, a
    :class:`PluginLoadError` lists every fault.
    """

    def __init__(self, entry: PluginEntry, arguments: Mapping[str, tuple[str, ...]]) -> None:
        module = load(entry)
        faults = [*mismatches(module, arguments), *forbidden_options(module)]
        if faults:
            raise _broken(entry, faults)
        self.entry = entry
        self._arguments = arguments
        self._manager = pluggy.PluginManager(PROJECT_NAME)
        self._manager.add_hookspecs(VendorSpecs)
        self._manager.add_hookspecs(ObserverSpecs)
        try:
            self._manager.register(module, name=str(entry))
            self._manager.check_pending()
        except (ValueError, pluggy.PluginValidationError) as error:
            raise _broken(entry, [str(error)]) from error
        self.hooks = frozenset(name for name in arguments if getattr(self._manager.hook, name).get_hookimpls())

    def call(self, hook: str, *arguments: object) -> Any:
        """Call a hook that the plugin implements through pluggy, with its arguments in the specified order."""
        caller = getattr(self._manager.hook, hook)
        result = caller(**dict(zip(self._arguments[hook], arguments, strict=True)))
        # For a hook without firstresult, pluggy returns the list of all results that are not None.
        return result if caller.spec.opts["firstresult"] else next(iter(result), None)

    def resolve(self, hook: str) -> Hook:
        """Return a function that takes the hook's arguments by position and does not call pluggy."""
        (implementation,) = getattr(self._manager.hook, hook).get_hookimpls()
        arguments = self._arguments[hook]
        function: Hook = implementation.function
        if implementation.argnames == arguments:
            return function
        # As in pluggy, an implementation may omit arguments, and may take the others in any order.
        positions = [arguments.index(name) for name in implementation.argnames]
        return lambda *values: function(*(values[position] for position in positions))


def require_hooks(plugin: BoundPlugin, purpose: Purpose) -> None:
    """Raise a :class:`PluginLoadError` that names all hooks that ``purpose`` needs and the vendor lacks."""
    missing = missing_hooks(plugin.hooks, purpose)
    if missing:
        raise PluginLoadError(
            f"{plugin.entry} lacks required hooks: {', '.join(missing)}",
            hint=f"implement them in {plugin.entry.value}; docs/hooks.md has an example of each",
        )


def require_consistent(plugin: BoundPlugin, info: VendorInfo, purpose: Purpose) -> None:
    """Raise a :class:`PluginLoadError` if a vendor's info disagrees with its entry point, its hooks or this core."""
    faults = [*name_faults(plugin.entry, info), *api_version_faults(info)]
    faults += capability_faults(plugin.hooks, info, purpose)
    if faults:
        raise _broken(plugin.entry, faults)


def mismatches(module: ModuleType, hooks: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    """Yield faults of functions in ``module`` that look like a hook but do not match one of ``hooks``."""
    manager = pluggy.PluginManager(PROJECT_NAME)
    for name, value in sorted(vars(module).items()):
        if manager.parse_hookimpl_opts(module, name) is None:
            # An imported helper, such as time.perf_counter, is not a hook.
            is_own = getattr(value, "__module__", None) == module.__name__ or name in {**VENDOR_HOOKS, **OBSERVER_HOOKS}
            if name.startswith("perf_") and callable(value) and is_own:
                yield f"{name} lacks @hookimpl and would never be called"
        elif name in hooks:
            yield from _unknown_arguments(name, value, hooks[name])
        elif name in VENDOR_HOOKS:
            yield f"{name} is a vendor's hook, which an observer may not implement"
        elif name in OBSERVER_HOOKS:
            yield f"{name} is an observer's hook, which belongs in a separate plugin in the group chipperf.observers"
        else:
            yield f"{name} is not a hook{did_you_mean(name, hooks)}"


def forbidden_options(module: ModuleType) -> Iterator[str]:
    """Yield every use of a feature of pluggy that hooks must not use: wrappers, call order, defaults of arguments."""
    manager = pluggy.PluginManager(PROJECT_NAME)
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
    """Return the hooks that ``purpose`` needs and that ``hooks`` does not contain."""
    required = INSPECTION_HOOKS if purpose == "inspect" else REQUIRED_HOOKS
    return [name for name in required if name not in hooks]


def name_faults(entry: PluginEntry, info: VendorInfo) -> Iterator[str]:
    """Yield the reasons why the vendor cannot be selected by its name."""
    if info.name != entry.name:
        yield f"VendorInfo.name is {info.name!r}, but the entry point is called {entry.name!r}"
    if not _VENDOR_NAME.fullmatch(info.name):
        yield f"VendorInfo.name {info.name!r} is not of the form {_VENDOR_NAME.pattern}"


def api_version_faults(info: VendorInfo) -> Iterator[str]:
    """Yield the reason why this core cannot run a plugin of the vendor's API version: its major, and a later minor."""
    major, minor = API_VERSION.split(".")
    match = _API_VERSION.fullmatch(info.api_version)
    if match is None or match[1] != major or int(match[2]) > int(minor):
        yield f"it is written for API version {info.api_version}, this chipperf has {API_VERSION}"


def capability_faults(hooks: Container[str], info: VendorInfo, purpose: Purpose) -> Iterator[str]:
    """Yield hooks whose capability is not declared and, for training, capabilities whose hook is not implemented."""
    for capability, hook in CAPABILITY_HOOKS.items():
        declared = capability in info.capabilities
        if hook in hooks and not declared:
            yield f"it implements {hook}, but does not declare Capability.{capability.name}"
        # An unfinished plugin can be listed.
        if purpose == "train" and declared and hook not in hooks:
            yield f"it declares Capability.{capability.name}, but does not implement {hook}"


def _unknown_arguments(name: str, function: Callable[..., object], specified: tuple[str, ...]) -> Iterator[str]:
    for argument in inspect.signature(function).parameters.values():
        if argument.kind is not inspect.Parameter.POSITIONAL_OR_KEYWORD:
            yield f"{name} takes {argument}: name the arguments ({', '.join(specified)})"
        elif argument.name not in specified:
            yield f"{name} takes {argument.name!r}, but the hook passes ({', '.join(specified)})"


def _broken(entry: PluginEntry, faults: list[str]) -> PluginLoadError:
    return PluginLoadError(
        f"{entry} does not fulfill the hook specification: {'; '.join(faults)}",
        hint=f"correct {entry.value}; docs/hooks.md specifies every hook",
    )
