"""A: checks of the plugin's package: metadata, import, hooks and declared capabilities."""

from __future__ import annotations

import os
import re
import sys
from contextlib import suppress
from dataclasses import asdict, replace
from difflib import get_close_matches
from functools import partial
from importlib.metadata import distribution
from itertools import combinations
from typing import TYPE_CHECKING, Any, Final

from jinja2 import TemplateError
from jinja2.meta import find_referenced_templates

from chipperf.cases import registry as cases
from chipperf.contract import plugin_files, plugin_side_effects, tolerances
from chipperf.contract.check import Failed, NotApplicable, NotRun, check, fail, not_run_on, require
from chipperf.contract.isolation import CallOutcome, call_in_fork, call_in_new_interpreter
from chipperf.contract.sample_records import data_answers, device_names, environments, is_known
from chipperf.errors import PerfError, PluginLoadError, VendorHookError, did_you_mean
from chipperf.plugin import installed, registration
from chipperf.plugin.installed import CORE_PACKAGE, OBSERVER_GROUP, VENDOR_GROUP, PluginEntry, package_directory
from chipperf.plugin.session import Session
from chipperf.plugin.types import Capability, VendorInfo
from chipperf.precisions import PRECISIONS, precisions_by_capability
from chipperf.report.render import template_directory
from chipperf.report.templating import SandboxedTemplates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path
    from types import ModuleType

    from chipperf.contract.plugin_under_test import PluginUnderTest

_GROUPS: Final = (VENDOR_GROUP, OBSERVER_GROUP, cases.ENTRY_POINT_GROUP)
_READINGS: Final = (
    "8589934592",
    "85899345920",
    "81920 MiB",
    "65 C",
    "312.50 W",
    "100 %",
    "2026-01-02 03:04:05",
    "550.54.15",
)
"""What a tool prints of a card and is not private: memory, sensors, the time, versions."""

_IMPORT_TIMEOUT_S: Final = 15.0

_BUILDS_OF_TORCH: Final = {"torch", "torchvision", "torchaudio", "triton"}
"""Distributions of which a vendor's image has builds of its own."""

_CHANGING: Final = re.compile(
    "pm|pl|ac|rac|lgc|rgc|lmc|rmc|r|am|caa|dm|fdm|gom|cc|cgi|dgi|cci|dci|set.*|reset.*|gpureset|enable|disable|"
    "clear|kill|write|update|upgrade|flash|install|create|destroy|delete|remove|restore|apply|load|unload|lock|unlock|"
    "add|switch|restart|start|stop|bind|unbind|inject"
)
"""Matches options and subcommands of management tools that change a card, and words in their names."""

_BY_RATE: Final = {"fp32": 32, "tf32": 19, "amp": 16, "fp16": 16, "bf16": 16}
"""Bits of the formats of each precision's products: those with fewer bits are not slower."""

_SPARSE: Final = re.compile("spars|2:4|稀疏", re.IGNORECASE)
_DENSE: Final = re.compile("half|dense|without|not? |non-|稠密|一半", re.IGNORECASE)
"""Matches what the source of a peak says if it mentions sparse products but does not give their rate."""

_PART: Final = "1/7"
"""What follows a card's name in the name of a slice of it."""

_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_RUNNERS: Final = frozenset({"sh", "bash", "sudo", "env", "su", "python", "python3", "rm", "modprobe", "insmod"})
"""Programs that run others, or change the machine."""

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


@_entry_check("A3", fault="pip keeps the plugin with a core that it does not work with, or replaces the vendor's torch")
def core_is_bounded(subject: PluginUnderTest) -> None:
    """The distribution requires chipperf with a lower and an upper bound, and does not require torch."""
    provider = distribution(subject.entry.distribution)
    if installed.normal_name(subject.entry.distribution) == CORE_PACKAGE:
        raise NotApplicable("the plugin is part of core's own distribution")
    required = [each for each in plugin_files.requirements(provider) if each.name == CORE_PACKAGE and not each.optional]
    remedy = f"write 'chipperf>=X.Y,<X+1' among the dependencies of {subject.entry.distribution}"
    require(required, f"{subject.entry.source} does not require chipperf; {remedy}")
    require(any(each.has_lower_bound for each in required), f"any older chipperf satisfies it; {remedy}")
    require(any(each.has_upper_bound for each in required), f"any later chipperf satisfies it; {remedy}")
    builds = sorted(_BUILDS_OF_TORCH & plugin_files.required_distributions(provider).keys())
    require(
        not builds,
        f"{subject.entry.source} requires {', '.join(builds)}, so that pip replaces the vendor's build by another: "
        "leave it out of the dependencies, or put it into an extra",
    )


@_entry_check("A4", fault="every command loads torch or the vendor's runtime, also without a card")
def import_is_light(subject: PluginUnderTest) -> None:
    """Importing the module takes no time, loads no torch, no library, and no package that is not required."""
    observed = _observed(subject, plugin_side_effects.observe_import)
    top_level = {name.partition(".")[0] for name in observed["modules"]}
    remedy = "import it inside the hooks that use it"
    # Even if the distribution requires torch: the import takes seconds, and some vendors' builds patch torch.
    require("torch" not in top_level, f"importing {subject.entry.value} imports torch; {remedy}")
    require(
        not observed["libraries"],
        f"importing {subject.entry.value} opens {', '.join(observed['libraries'])}; {remedy}",
    )
    seconds = observed["seconds"]
    if seconds > tolerances.IMPORT_S:
        # A busy machine may delay one import.
        seconds = min(seconds, _observed(subject, plugin_side_effects.observe_import)["seconds"])
    require(
        seconds <= tolerances.IMPORT_S,
        f"importing {subject.entry.value} takes {seconds:.1f} s instead of {tolerances.IMPORT_S:g} s in every command; "
        "do in the hooks what they need",
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


@_entry_check(
    "A5", fault="the plugin patches modules, sets variables, configures logging, or leaves files or processes"
)
def process_stays_unchanged(subject: PluginUnderTest) -> None:
    """Import, probe and hooks that need no device change nothing in the process, and leave nothing behind."""
    outcome = call_in_fork(plugin_side_effects.observe_changes, asdict(subject.entry), timeout_s=2 * _IMPORT_TIMEOUT_S)
    changes = _value_of(outcome)
    require(not changes, f"{'; '.join(changes)}: do it in the hooks that need it, or return it from perf_environment")


@_entry_check("A6", fault="the plugin works only once per machine or process")
def registration_repeats(subject: PluginUnderTest) -> None:
    """The plugin can be loaded and registered twice, and in a spawned process, where its answers are the same."""
    fault = _observed(subject, plugin_side_effects.register_again)
    require(fault is None, f"{fault}; keep no state that breaks another registration, and ask for no hash of a text")


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
    """Hooks that need no device return the specified types in every situation, in the right units, and consistently."""
    # Before the plugin is imported here.
    ask = partial(call_in_fork, argument=asdict(subject.entry), timeout_s=_IMPORT_TIMEOUT_S)
    names = ask(plugin_side_effects.visible_devices_env).value or ()
    situations = {
        "on a machine with other cores, home, host name and packages": ask(plugin_side_effects.answer_elsewhere),
        "if one device is visible": ask(
            plugin_side_effects.answer_what_is_constant, environment=dict.fromkeys(names, "0")
        ),
        "in another process that asks in another order": ask(plugin_side_effects.answer_again),
    }
    plugin = _registered(subject)
    try:
        session = Session(plugin)
        first, second = ({call: repr(answer) for call, answer in data_answers(session)} for _ in range(2))
        _require_sound_answers(session)
    except VendorHookError as error:
        raise Failed(error.message) from error
    except PerfError as error:
        raise NotRun(f"a hook refuses this machine: {error.message}") from error
    for call, answer in first.items():
        require(second[call] == answer, f"{call} returns {answer}, and in a second call {second[call]}")
    for situation, outcome in situations.items():
        if outcome.fault:
            fail(f"{situation}: {outcome.fault}")
        for call, other in outcome.value.items():
            require(
                first[call] == other,
                f"{call} returns {first[call]}, and {other} {situation}: let it depend on its arguments only",
            )
    with suppress(NotRun):
        # If the probe raises, B1 and B2 report it.
        probed = _observed(subject, plugin_side_effects.observe_probe_result)
        require(probed["fault"] is None, f"perf_probe returned {probed['fault']}")
        for name, memory_bytes in probed["memory_bytes"]:
            _require_plausible_memory(memory_bytes, f"the probed device {name}")
            short_names = {known.short_name for known in session.vendor_info().known_devices}
            require(
                name not in short_names or session.vendor_info().product(name),
                f"VendorInfo.known_devices has {name!r}, which the probe reports, as a short_name: the name is the one "
                "that the probe reports",
            )


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


@_entry_check("A14", fault="the installed plugin lacks files, or has some that every Python process runs")
def files_are_complete(subject: PluginUnderTest) -> None:
    """The distribution contains its license, py.typed and the templates that it names, and only its own code."""
    provider = distribution(subject.entry.distribution)
    others = _BUILDS_OF_TORCH | ({CORE_PACKAGE} - {installed.normal_name(subject.entry.distribution)})
    imposed = plugin_files.imposed(provider, others)
    require(not imposed, f"{subject.entry.source} installs {', '.join(imposed)}: leave all but its own package out")
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
    return _value_of(call_in_new_interpreter(function, asdict(subject.entry), timeout_s=2 * _IMPORT_TIMEOUT_S))


def _value_of(outcome: CallOutcome) -> Any:
    if outcome.fault:
        raise NotRun(f"import, registration or probe does not finish: {outcome.fault}")
    return outcome.value


def _require_sound_answers(session: Session) -> None:
    """Check what the types of the data hooks' results do not say."""
    products, commands = session.vendor_info().known_devices, session.tool_commands()
    for what, names in (
        ("known_devices", [each.name for each in products]),
        ("perf_tool_commands", [each.name for each in commands]),
    ):
        require(
            len({name.casefold() for name in names}) == len(names), f"{what} has a name twice, of {', '.join(names)}"
        )
    for known in products:
        _require_plausible_memory(known.memory_bytes, f"VendorInfo.known_devices: {known.name}")
    for situation, variables in environments(session):
        names = [variable.name for variable in variables]
        wrong = sorted({name for name in names if names.count(name) > 1 or not _VARIABLE.fullmatch(name)})
        require(not wrong, f"perf_environment of {situation} returns {wrong}: no name, or there twice")
    for command in commands:
        for pattern in command.private_patterns:
            try:
                matches_nothing = re.search(pattern, "")
            except re.error as error:
                fail(f"perf_tool_commands has the private pattern {pattern!r}, which is no regular expression: {error}")
            require(
                not matches_nothing, f"perf_tool_commands has the private pattern {pattern!r}, which matches anywhere"
            )
            hidden = [reading for reading in _READINGS if re.search(pattern, reading)]
            require(
                not hidden,
                f"perf_tool_commands has the private pattern {pattern!r}, which would hide readings such as "
                f"{', '.join(hidden)}: match the name of the private value too",
            )
        changing = list(_changing_words(command.argv))
        require(
            not changing,
            f"perf_tool_commands has {' '.join(command.argv)}, in which {', '.join(changing)} may change a card: list "
            "calls that only read",
        )
    for device_name in device_names(session.vendor_info()):
        _require_plausible_peaks(session, device_name)
        of_part = [precision for precision in PRECISIONS if session.peak_flops(f"{device_name} {_PART}", precision)]
        require(not of_part, f"perf_peak_flops gives a part of {device_name!r} the peak of the card: return None")


def _changing_words(argv: Sequence[str]) -> Iterator[str]:
    """Yield the parts of a command that change a card or run something else."""
    if argv and os.path.basename(argv[0]) in _RUNNERS:
        yield argv[0]
    for argument in argv[1:]:
        # Only the names of options count: a query may ask for the persistence mode.
        option = argument.partition("=")[0].lower()
        words = re.split(r"[-_]+", option.lstrip("-")) if option.startswith("-") else [option]
        if any(map(_CHANGING.fullmatch, words)) and words[0] != "query":
            yield argument


def _require_plausible_peaks(session: Session, device_name: str) -> None:
    peaks = {precision: session.peak_flops(device_name, precision) for precision in PRECISIONS}
    known = {precision: peak for precision, peak in peaks.items() if peak is not None}
    for precision, peak in known.items():
        what = f"perf_peak_flops gives {device_name or 'an unknown device'} {peak.flops_per_s:g} FLOP/s at {precision}"
        require(is_known(device_name), f"{what}, although it does not know it: return None")
        require(peak.flops_per_s >= tolerances.LEAST_PEAK_FLOPS_PER_S, f"{what}: the unit is FLOP/s, not TFLOP/s")
        require(
            not _SPARSE.search(peak.source) or _DENSE.search(peak.source),
            f"{what} from {peak.source!r}: the peak must be that of dense products, which is half of it",
        )
    for slower, faster in combinations([each for each in _BY_RATE if each in known], 2):
        rates = f"{known[slower].flops_per_s:g} FLOP/s at {slower} and {known[faster].flops_per_s:g} at {faster}"
        ratio = known[faster].flops_per_s / known[slower].flops_per_s
        require(ratio >= 1 or _BY_RATE[faster] == _BY_RATE[slower], f"{device_name} has {rates}: one is the other's")
        require(
            slower == "fp32" or ratio < tolerances.PEAK_OF_HALF,
            f"{device_name} has {rates}: the peak must be that of dense products, which is half of that of sparse ones",
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
