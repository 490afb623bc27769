"""A: checks of the plugin's package: metadata, import, hooks and declared capabilities."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import asdict, replace
from difflib import get_close_matches
from functools import partial
from importlib.metadata import distribution
from itertools import product
from typing import TYPE_CHECKING, Any, Final

from jinja2 import TemplateError
from jinja2.meta import find_referenced_templates

from chipperf.cases import registry as cases
from chipperf.contract import plugin_files, plugin_side_effects, tolerances
from chipperf.contract.check import Failed, NotApplicable, NotRun, check, fail, not_run_on, require
from chipperf.contract.isolation import call_in_fork, call_in_new_interpreter
from chipperf.contract.sample_records import RANKS, device_names
from chipperf.errors import PerfError, PluginLoadError, VendorHookError, did_you_mean
from chipperf.plugin import installed, registration
from chipperf.plugin.installed import CORE_PACKAGE, OBSERVER_GROUP, VENDOR_GROUP, PluginEntry, package_directory
from chipperf.plugin.session import Session
from chipperf.plugin.types import Capability, EnvironmentSettings, VendorInfo
from chipperf.precisions import PRECISIONS, precisions_by_capability
from chipperf.report.render import template_directory
from chipperf.report.templating import SandboxedTemplates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path
    from types import ModuleType

    from chipperf.contract.plugin_under_test import PluginUnderTest

_GROUPS: Final = (VENDOR_GROUP, OBSERVER_GROUP, cases.ENTRY_POINT_GROUP)
_IMPORT_TIMEOUT_S: Final = 15.0

_entry_check = partial(check, level=0, needs="entry")


@_entry_check("A1", fault="the group of an entry point is misspelled, or its target does not exist")
def entry_points_resolve(subject: PluginUnderTest) -> None:
    """Every entry point for chipperf is in a group that chipperf reads, and can be loaded."""
    for point in distribution(subject.entry.distribution).entry_points:
        if point.group in _GROUPS:
            fault = _fault_of_import(replace(subject.entry, name=point.name, value=point.value, group=point.group))
            require(fault is None, f"entry point {point.name} = {point.value!r} cannot be loaded: {fault}")
        else:
            require(
                CORE_PACKAGE not in point.group and not get_close_matches(point.group, _GROUPS, cutoff=0.8),
                f"entry point {point.name!r} is in the group {point.group!r}, which chipperf does not read"
                f"{did_you_mean(point.group, _GROUPS)}",
            )


@_entry_check("A2", fault="the vendor cannot be selected by its own name")
def entry_point_bears_vendor_name(subject: PluginUnderTest) -> None:
    """The entry point has the name in VendorInfo.name, in lower-case letters, digits and underscores."""
    _require_none(registration.name_faults(subject.entry, _vendor_info(_registered(subject))))


@_entry_check("A3", fault="pip keeps the plugin installed with a core that it does not work with")
def core_is_bounded(subject: PluginUnderTest) -> None:
    """The distribution requires chipperf with a lower and an upper bound."""
    provider = distribution(subject.entry.distribution)
    if installed.normal_name(subject.entry.distribution) == CORE_PACKAGE:
        raise NotApplicable("the plugin is part of core's own distribution")
    required = [each for each in plugin_files.requirements(provider) if each.name == CORE_PACKAGE and not each.optional]
    remedy = f"write 'chipperf>=X.Y,<X+1' among the dependencies of {subject.entry.distribution}"
    require(required, f"{subject.entry.source} does not require chipperf; {remedy}")
    require(any(each.has_lower_bound for each in required), f"any older chipperf satisfies it; {remedy}")
    require(any(each.has_upper_bound for each in required), f"any later chipperf satisfies it; {remedy}")


@_entry_check("A4", fault="every command loads torch or the vendor's runtime, also without a card")
def import_is_light(subject: PluginUnderTest) -> None:
    """Importing the module loads no torch, no shared library, and no package that is not required."""
    observed = _observed(subject, plugin_side_effects.observe_import)
    top_level = {name.partition(".")[0] for name in observed["modules"]}
    remedy = "import it inside the hooks that use it"
    # Even if the distribution requires torch: the import takes seconds, and some vendors' builds patch torch.
    require("torch" not in top_level, f"importing {subject.entry.value} imports torch; {remedy}")
    require(
        not observed["libraries"],
        f"importing {subject.entry.value} opens {', '.join(observed['libraries'])}; {remedy}",
    )
    own = {
        subject.entry.value.partition(".")[0],
        *plugin_files.importable_names(distribution(subject.entry.distribution)),
    }
    # The module that sysconfig reads has the platform in its name, and is not among the standard library's names.
    known = {*sys.stdlib_module_names, *(name for name in top_level if name.startswith("_sysconfigdata"))}
    foreign = sorted(top_level - own - known)
    require(
        not foreign,
        f"importing {subject.entry.value} imports {', '.join(foreign)}, which {subject.entry.distribution} does not "
        f"require; {remedy}",
    )


@_entry_check("A5", fault="the plugin installs import hooks, patches modules, or sets environment variables")
def process_stays_unchanged(subject: PluginUnderTest) -> None:
    """Import, registration and probe do not change the environment, modules, threads or standard output."""
    changes = _observed(subject, plugin_side_effects.observe_changes)
    require(not changes, f"{'; '.join(changes)}: do it in the hooks that need it, or return it from perf_environment")


@_entry_check("A6", fault="the plugin works only once per machine or process")
def registration_repeats(subject: PluginUnderTest) -> None:
    """The plugin can be loaded and registered twice, and in a spawned process."""
    fault = _observed(subject, plugin_side_effects.register_again)
    require(fault is None, f"{fault}; keep no state that breaks another registration")


@_entry_check("A7", fault="a misspelled hook is never called")
def hooks_match_specification(subject: PluginUnderTest) -> None:
    """Every function named like a hook is marked as a hook, and has the name and arguments of a vendor hook."""
    _require_none(registration.mismatches(_load(subject), registration.VENDOR_HOOKS))


@_entry_check("A8", fault="the result depends on the order of registration or the version of pluggy")
def hooks_are_plain(subject: PluginUnderTest) -> None:
    """No hook is a wrapper, sets its position in the call order, or has a default for an argument."""
    _require_none(registration.forbidden_options(_load(subject)))


@_entry_check("A9", fault="the run stops at the missing hook")
def required_hooks_are_there(subject: PluginUnderTest) -> None:
    """Every required hook is implemented."""
    missing = registration.missing_hooks(vars(_load(subject)), "train")
    require(not missing, f"required hooks are missing: {', '.join(missing)}; docs/hooks.md has an example of each")


@_entry_check("A10", fault="a hook returns a dict or another unit instead of the documented dataclass")
def data_hooks_return_specified_types(subject: PluginUnderTest) -> None:
    """Hooks that need no device return exactly the specified types, with values in the right units."""
    plugin = _registered(subject)
    try:
        _call_data_hooks(Session(plugin))
    except VendorHookError as error:
        raise Failed(error.message) from error
    except PerfError as error:
        raise NotRun(f"a hook refuses this machine: {error.message}") from error
    with suppress(NotRun):
        # If the probe raises, B1 and B2 report it.
        probed = _observed(subject, plugin_side_effects.observe_probe_result)
        require(probed["fault"] is None, f"perf_probe returned {probed['fault']}")
        for name, memory_bytes in probed["memory_bytes"]:
            _require_plausible_memory(memory_bytes, f"the probed device {name}")


@_entry_check("A11", fault="the plugin needs another version of the hooks, and fails during a run")
def api_version_is_supported(subject: PluginUnderTest) -> None:
    """The plugin is written for a version of the hook specification that this core supports."""
    _require_none(registration.api_version_faults(_vendor_info(_registered(subject))))


@_entry_check("A12", fault="a declared capability has no hook, or the capability of a hook is not declared")
def capabilities_have_hooks(subject: PluginUnderTest) -> None:
    """Each declared capability has its hook, and the capability of each such hook is declared."""
    plugin = _registered(subject)
    hooks, info = plugin.hooks, _vendor_info(plugin)
    faults = list(registration.capability_faults(hooks, info, "train"))
    for capability in map(Capability, precisions_by_capability()):
        # Without the hook, core runs only fp32.
        if capability in info.capabilities and "perf_precision" not in hooks:
            faults.append(f"it declares Capability.{capability.name}, but does not implement perf_precision")
    _require_none(faults)


@_entry_check("A13", fault="the plugin breaks when the internals of core change")
def only_public_core_is_used(subject: PluginUnderTest) -> None:
    """The plugin's source uses only public names of chipperf."""
    used = [f"{file}, {use}" for file, source in _sources(subject) for use in plugin_files.private_names(source)]
    require(not used, f"{'; '.join(used)}: import from chipperf and its public modules only")


@_entry_check("A14", fault="the installed plugin lacks files that exist in its source")
def files_are_complete(subject: PluginUnderTest) -> None:
    """The distribution contains its license, py.typed, and the templates that it names."""
    provider = distribution(subject.entry.distribution)
    package = package_directory(subject.entry)
    if package is None:
        _load(subject)
        fail(f"{subject.entry.value} is not in a package: py.typed and templates need a package")
    # A plugin that is part of core has a package inside core's package.
    marked = any((place / "py.typed").is_file() for place in (package, package.parent))
    require(marked, f"{package.name}/py.typed is missing: without it type checkers ignore the annotations")
    _require_none(_missing_templates(subject, package))
    licenses = plugin_files.license_files(provider)
    if licenses is None:
        raise NotRun(f"{provider.metadata['Name']} was not installed by pip, so there is no list of its files")
    require(licenses, f"{provider.metadata['Name']} has no license file: name it in license-files of pyproject.toml")


def _import(entry: PluginEntry) -> None:
    if entry.group == cases.ENTRY_POINT_GROUP:
        cases.find_case(entry.name)
    else:
        installed.load(entry)


def _fault_of_import(entry: PluginEntry) -> str | None:
    """Import an entry point's target in another process, because it may hang or exit. Return why it cannot be."""
    return call_in_fork(_import, entry, timeout_s=_IMPORT_TIMEOUT_S).fault


def _load(subject: PluginUnderTest) -> ModuleType:
    """Import the plugin's module, after a successful import in another process."""
    fault = _fault_of_import(subject.entry)
    if fault:
        raise NotRun(f"the plugin cannot be imported, see A1: {fault}")
    return installed.load(subject.entry)


def _registered(subject: PluginUnderTest) -> registration.BoundPlugin:
    _load(subject)
    with not_run_on(PluginLoadError, "the plugin cannot be registered, see A7 and A8"):
        plugin = registration.BoundPlugin(subject.entry, registration.VENDOR_HOOKS)
    if "perf_vendor_info" not in plugin.hooks:
        raise NotRun("perf_vendor_info is missing, see A9")
    return plugin


def _vendor_info(plugin: registration.BoundPlugin) -> VendorInfo:
    with not_run_on(VendorHookError, "perf_vendor_info does not work, see A10"):
        return Session(plugin).vendor_info()


def _observed(subject: PluginUnderTest, function: Callable[[Mapping[str, str]], object]) -> Any:
    """Call a function of :mod:`~chipperf.contract.plugin_side_effects` in a new interpreter."""
    outcome = call_in_new_interpreter(function, asdict(subject.entry), timeout_s=2 * _IMPORT_TIMEOUT_S)
    if outcome.fault:
        raise NotRun(f"import, registration or probe does not finish: {outcome.fault}")
    return outcome.value


def _call_data_hooks(session: Session) -> None:
    info = session.vendor_info()
    for known in info.known_devices:
        _require_plausible_memory(known.memory_bytes, f"VendorInfo.known_devices: {known.name}")
    for case, rank, device_name in product(cases.case_names(), RANKS, device_names(info)):
        session.case_overrides(case, rank, device_name)
    for case, rank, deterministic in product(cases.case_names(), RANKS, (False, True)):
        session.environment(rank, EnvironmentSettings(case=case, precision="fp32", deterministic=deterministic))
    session.tool_commands()
    for device_name, precision in product(device_names(info), PRECISIONS):
        peak = session.peak_flops(device_name, precision)
        if peak is not None:
            require(
                peak.flops_per_s >= tolerances.LEAST_PEAK_FLOPS_PER_S,
                f"perf_peak_flops gives {device_name} {peak.flops_per_s:g} FLOP/s at {precision}: "
                "the unit is FLOP/s, not TFLOP/s",
            )


def _require_plausible_memory(memory_bytes: int | None, what: str) -> None:
    require(
        memory_bytes is None or memory_bytes >= tolerances.LEAST_DEVICE_MEMORY_BYTES,
        f"{what} has {memory_bytes} bytes: the unit is bytes, not MiB or GiB",
    )


def _missing_templates(subject: PluginUnderTest, package: Path) -> list[str]:
    own = template_directory(subject.entry)
    faults = [
        f"{file} names {name}, which is not in {package.name}"
        for file, source in _sources(subject)
        for name in plugin_files.named_templates(source)
        if not any(package.rglob(name.rpartition("/")[2]))
    ]
    environment = SandboxedTemplates(None, own)
    existing = environment.list_templates()
    for path in sorted(own.glob("*.j2")) if own else ():
        try:
            names = find_referenced_templates(environment.parse(path.read_text(encoding="utf-8")))
        except TemplateError as error:
            raise NotRun(f"{path.name} cannot be read, see R3: {error}") from error
        # Only rendering can find a computed name, and the plugin is not responsible for templates that a user adds.
        named = [name for name in names if name and not name.startswith("user/")]
        faults += [f"{path.name} uses {name}, which does not exist" for name in named if name not in existing]
    return faults


def _sources(subject: PluginUnderTest) -> list[tuple[str, str]]:
    files = plugin_files.source_files(subject.entry)
    if not files:
        raise NotRun(f"the source of {subject.entry.value} is not available")
    return [(path.name, path.read_text(encoding="utf-8")) for path in files]


def _require_none(faults: Iterable[str]) -> None:
    found = list(faults)
    require(not found, "; ".join(found))
