"""Rules on hyperparameters, compared with the configurations and records of the runs."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from chipperf.cases.base import Case, Role
from chipperf.documents import cells
from chipperf.documents.markdown import Place
from chipperf.documents.wording import lower_is_better
from chipperf.errors import did_you_mean
from chipperf.lint.configs import (
    BATCH_SIZE_KEYS,
    EPOCHS_KEYS,
    LEARNING_RATE_KEYS,
    is_number,
    missing_modules,
    names_used,
    targets_in,
)
from chipperf.lint.rule import LintedDocument, NotChecked, Problem, rule
from chipperf.precisions import PRECISIONS, precision_of
from chipperf.records.schema import Missing, Record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from chipperf.documents.case_document import DocumentRow
    from chipperf.lint.configs import BaseValues, Config

_SETTINGS: Final = {
    "bs": BATCH_SIZE_KEYS,
    "lr": LEARNING_RATE_KEYS,
    "gradient_accumulation_steps": ["gradient_accumulation_steps", "accumulate_steps"],
    "max_tokens": ["max_tokens"],
}
"""Names in configurations of the settings that a row's ``fix_hp`` states or leaves at the base's."""

_ALIASES: Final = {
    **dict.fromkeys(("lbs", "local_bs", "local_batchsize", "per_device_bs"), "bs"),
    **dict.fromkeys(("gas", "accumulate"), "gradient_accumulation_steps"),
    "sharding_degree": "sharding_parallel_degree",
}
_PARALLEL_KEYS: Final = {
    "TP": ["tensor_parallel", "tensor_parallel_degree"],
    "PP": ["pipeline_parallel", "pipeline_parallel_degree"],
}
_PARALLEL: Final = re.compile(r"(?:[A-Z]P\d+[\s,，]*){2,}")
_IN_NAME: Final = re.compile(r"(TP|PP|SH)(\d+)")
"""Degrees of parallelism and the sharding's stage in a configuration's name."""

_GLOBAL_BATCH: Final = re.compile(r"\b(?:gbs|global_?(?:bs|batch_?size))\s*=\s*(\d{1,18})\b(?!\s*[KMG])", re.IGNORECASE)
"""A batch of all cards in samples, not in tokens."""
_BATCH_IN_TOKENS: Final = re.compile(
    r"\b(?:gbs|global ?_?(?:bs|batch_?size))\b[^()，;]*?=\s*(\d+(?:\.\d+)?)\s*([KMG])\s*tokens", re.IGNORECASE
)
_DEFAULT_KEYS: Final = {"local_batchsize": BATCH_SIZE_KEYS, "seqlength": ["seqlength", "seq_length", "max_seq_length"]}
_DEFAULT: Final = re.compile(
    rf"({'|'.join(_DEFAULT_KEYS)})\b.{{0,200}}?(config_[\w.-]{{1,60}}?\.py).{{0,200}}?"
    r"(?:默认为|default (?:is|of))\W{0,3}(\d{1,18})(?!\d)",
    re.ASCII,
)
"""Text that says what a configuration sets: the value's name, the configuration and the value."""

_STEPS_KEYS: Final = ["train_steps", "max_steps"]
_STEPS: Final = re.compile(
    r"训练\s*(\d{1,9})\s*(?:steps?\b|步)|\btrain(?:s|ed|ing)? (?:for )?(\d{1,9}) steps", re.ASCII
)
"""Text that says for how many steps a run trains."""

_SAMPLES_KEYS: Final = ["max_samples_termination"]
_MAX_SAMPLES_SHARE: Final = 0.1
"""A limit of samples is far above what convergence takes, unless it is this share of the base's."""

_READS_ANY_KEY: Final = "parse_dict"
"""Method of a library that takes whatever keys its own classes have."""

_REDUCED: Final = tuple(name for name, means in PRECISIONS.items() if means.autocast_type)
"""Precisions that a configuration must request. TF32 is not one of them, because it is a switch of the stack."""

_SWITCH_AFFIXES: Final = re.compile(r"^(?:use|enable)_|_enabled?$")
_ANY_REDUCED_KEY: Final = "fp16"
"""FlagPerf's switch for fp16. Some vendors' configurations also set it for bf16."""

_MIN_LIKENESS: Final = 0.86
"""Likeness to a key that is read of a key that is that one misspelled, and not another one of the same family."""

_LEAST: Final = {
    **dict.fromkeys(("flops", "theoryflops", "theory_flops"), 1e12),
    **dict.fromkeys(("target_ppl", "target_perplexity"), 1),
}
"""What a setting must at least be: accelerators have had teraFLOPS for a decade, and perplexity is e to a loss."""

_FRAMEWORK_KEYS: Final = frozenset(
    {
        *("vendor", "dist_backend", "ddp_type", "local_rank", "device", "gradient_accumulation_steps"),
        *_REDUCED,
        *("do_train", "log_freq", "cudnn_benchmark", "cudnn_deterministic", "data_dir", "name", "num_workers", "seed"),
        *("train_batch_size", "eval_batch_size", "lr", "weight_decay", "momentum", "max_epoch", "max_steps", "epochs"),
        *("lr_steps", "lr_step_size", "lr_gamma", "lr_backbone", "lr_drop", "clip_max_norm", "print_freq", "warmup"),
        *("target_acc", "target_acc1", "target_accuracy", "target_mAP", "target_map", "eval_interval_samples"),
        *("training_event", "optimizer", "sync_bn", "workers", "config_path", "save_checkpoint", "eval_steps"),
    }
)
"""Keys that FlagPerf's trainers read, for configurations without those trainers."""


@rule(
    "L07",
    "fix-hp",
    why="a reader who repeats the row with the stated hyperparameters measures something else",
    fix="write the configuration's values into fix_hp, or render the report from its records",
    evidence="configurations or records",
)
def fix_hp_is_what_ran(subject: LintedDocument) -> Iterator[Problem]:
    """``fix_hp`` agrees with the configuration or the record of the row's topology."""
    if subject.records:
        yield from _against_records(subject)
        return
    subject.need_configs()
    base = subject.base
    compared = []
    for row in subject.rows:
        stated, candidates = _stated(row), subject.configs_of(row)
        if stated is not None and candidates:
            differences = [_differences(stated, config, base) for config in candidates]
            compared.append((row, differences[0] if all(differences) else [], candidates[0].path.name))
    for row, different, name in _unlike_all_rows(compared, subject):
        message = f"{row.shape} {row.precision}: fix_hp {row.text('fix_hp')!r}, but {name} has {', '.join(different)}"
        yield Problem(row.cells["fix_hp"].place, message)
    for row in subject.rows:
        yield from _misspelled(row, subject.configs_of(row), base)
        yield from _beside_fix_hp(row, subject.configs_of(row))
        yield from _global_batch(row, subject.configs_of(row))
    yield from _parallel(subject)
    yield from _defaults_in_text(subject)
    keys = [key for names in _SETTINGS.values() for key in names]
    _need_read(config.unread_line(keys) for row in subject.rows for config in subject.configs_of(row))
    subject.need_base()


_Compared: TypeAlias = "tuple[DocumentRow, list[str], str]"
"""A row, what the configuration with this name has instead, and the name."""


def _unlike_all_rows(compared: list[_Compared], subject: LintedDocument) -> list[_Compared]:
    """Return the rows that differ from their configuration.

    Without base values, rows state what they change of the configuration: if one row is as the configuration of its
    card and topology, the others are not held to it.
    """
    alike = {(row.card, row.shape) for row, different, _ in compared if not different}
    held = [each for each in compared if subject.base or (each[0].card, each[0].shape) not in alike]
    return [each for each in held if each[1]]


def _stated(row: DocumentRow) -> dict[str, Any] | None:
    """Return the settings of a row; ``None`` if ``fix_hp`` does not say that all others are the base's."""
    stated = row.hyperparameters
    if stated is None or (not stated and row.text("fix_hp") == "-"):
        return None
    return {_ALIASES.get(key.casefold(), key): value for key, value in stated.items()}


def _beside_fix_hp(row: DocumentRow, configs: list[Config]) -> Iterator[Problem]:
    """Yield the cells besides ``fix_hp`` whose settings, or whose configuration's name, no configuration has."""
    for column, cell in (*row.cells.items(), *row.unknown):
        stated = cells.assignments(cell.text)[0] if column != "fix_hp" else {}
        differences = [list(_other_values(stated, config)) for config in configs]
        if configs and all(differences):
            yield Problem(cell.place, f"{cell.text!r}, but {configs[0].path.name} has {', '.join(differences[0])}")
    for config in configs if row.config_name else ():
        name = dict(_IN_NAME.findall(config.path.stem))
        stated = {keys[0]: int(name[kind]) for kind, keys in _PARALLEL_KEYS.items() if kind in name}
        stated |= {"sharding": f"stage{name['SH']}"} if "SH" in name else {}
        if different := list(_other_values(stated, config)):
            yield Problem(
                row.cells["config_file"].place, f"{config.path.name} has {', '.join(different)}, unlike its name"
            )


def _misspelled(row: DocumentRow, configs: list[Config], base: BaseValues | None) -> Iterator[Problem]:
    """Yield the names of settings that neither the configurations nor the base have, but nearly."""
    known = {key for config in configs for key in config.values}.union(base.values if base else ())
    for cell in (*row.cells.values(), *(cell for _, cell in row.unknown)):
        for key in cells.assignments(cell.text)[0] if known else ():
            is_known = key.casefold() in (*_SETTINGS, *_ALIASES) or not known.isdisjoint((key, f"use_{key}"))
            if not is_known and (hint := did_you_mean(key, known, _MIN_LIKENESS)):
                yield Problem(cell.place, f"{key!r} is no setting{hint}", severity="warning")


def _other_values(stated: Mapping[str, Any], config: Config) -> Iterator[str]:
    for key, said in stated.items():
        name = _ALIASES.get(key.casefold(), key)
        same = next((keys for keys in _PARALLEL_KEYS.values() if name in keys), [name, f"use_{name}"])
        configured = config.value(_SETTINGS.get(name, same))
        written = str(said).strip("\"'").casefold()
        if isinstance(configured, bool | int) and written in ("true", "false"):
            differs = configured != (written == "true")
        elif isinstance(configured, str):
            differs = configured.casefold() != written
        else:
            differs = is_number(configured) and is_number(said) and not _equal(configured, said)
        if differs:
            yield f"{next(each for each in _SETTINGS.get(name, same) if each in config.values)}={configured}"


def _global_batch(row: DocumentRow, configs: list[Config]) -> Iterator[Problem]:
    """Yield a global batch that is not the product of what it is made of, as far as all of that is known."""
    stated, text = _stated(row), row.known("fix_hp")
    match, tokens = _GLOBAL_BATCH.search(text), _BATCH_IN_TOKENS.search(text)
    if not stated or not (match or tokens):
        return
    degrees = cells.degrees(row.known("parallel"))
    products = []
    lengths = {stated.get("MPE", config.value(_DEFAULT_KEYS["seqlength"])) for config in configs}
    for config in configs:
        lbs, gas, tp, pp = (
            stated.get(key, degrees.get(key, config.value((_SETTINGS | _PARALLEL_KEYS)[key])))
            for key in ("bs", "gradient_accumulation_steps", "TP", "PP")
        )
        if not all(isinstance(value, int) and value > 0 for value in (lbs, gas, tp, pp)):
            return
        dp = degrees.get("DP", row.card_count // (tp * pp))
        products.append((lbs * gas * dp, f"{lbs} x {gas} x {dp}"))
    if not products:
        return
    product, factors = products[0]
    if match and int(match[1]) not in (product for product, _ in products):
        message = f"{match[0]!r}, but LBS x GAS x DP is {factors} = {product}"
        yield Problem(row.cells["fix_hp"].place, message)
    elif tokens and all(is_number(length) for length in lengths):
        counts = [product * length for product, _ in products for length in lengths]
        if not any(_is_count(count, tokens[1], tokens[2]) for count in counts):
            message = f"{tokens[0]!r}, but LBS x GAS x DP x MPE is {factors} x {min(lengths)} = {min(counts):g}"
            yield Problem(row.cells["fix_hp"].place, message)


def _is_count(count: float, written: str, unit: str) -> bool:
    """Return whether a rounded number such as ``4M`` is a count, in thousands or in multiples of 1024."""
    power = " KMG".index(unit.upper())
    half = 0.5 * 10.0 ** -len(written.partition(".")[2])
    return any(abs(count / base**power - float(written)) <= half for base in (1000, 1024))


def _parallel(subject: LintedDocument) -> Iterator[Problem]:
    """Yield rows that are parallel in another way than their configuration."""
    compared, places = [], {}
    for row in subject.rows:
        texts = (*row.cells.values(), *(cell for _, cell in row.unknown))
        cell = next((cell for cell in texts if _PARALLEL.fullmatch(cell.text)), None)
        configs = subject.configs_of(row)
        if cell is None or not configs:
            continue
        stated = {kind: int(count) for kind, count in re.findall(r"([A-Z]P)(\d+)", cell.text)}
        differences = [
            [
                f"{kind}={configured}"
                for kind, keys in _PARALLEL_KEYS.items()
                if is_number(configured := config.value(keys)) and configured != stated.get(kind, configured)
            ]
            for config in configs
        ]
        compared.append((row, differences[0] if all(differences) else [], configs[0].path.name))
        places[row.label.place] = cell
    for row, different, name in _unlike_all_rows(compared, subject):
        cell = places[row.label.place]
        yield Problem(cell.place, f"{cell.text!r}, but {name} has {', '.join(different)}")


def _defaults_in_text(subject: LintedDocument) -> Iterator[Problem]:
    configs = {config.path.name: config for config in subject.need_configs().configs}
    for number, line in enumerate(subject.document.markdown.lines, start=1):
        for match in _DEFAULT.finditer(line):
            name, file, said = match.groups()
            value = configs[file].value(_DEFAULT_KEYS[name]) if file in configs else None
            if is_number(value) and value != int(said):
                place = Place(number, match.start(3) + 1)
                yield Problem(place, f"{name} {said}, but {file} has {value:g}")
        for match in () if "|" in line else _STEPS.finditer(line):
            stated = int(match[1] or match[2])
            steps = {name: value for name, each in configs.items() if is_number(value := each.value(_STEPS_KEYS))}
            if steps and stated not in steps.values():
                file, value = next(iter(steps.items()))
                place = Place(number, match.start() + 1)
                yield Problem(place, f"{match[0]!r}, but {file} has {value:g} steps")


def _differences(stated: Mapping[str, Any], config: Config, base: BaseValues | None) -> list[str]:
    found = []
    for key in dict.fromkeys((*_SETTINGS, *stated)):
        names = _SETTINGS.get(key, [key])
        default = base.value(names) if base else None
        configured = config.value(base.read_keys(names) or names if base else names)
        in_force, said = (default if configured is None else configured), stated.get(key, default)
        # A base of zero is to be set by every vendor.
        if is_number(in_force) and is_number(said) and said and not _equal(in_force, said):
            tells = is_number(default) and default and default != in_force
            origin = f" of {base.origin}" if base and configured is None else f" (base {default:g})" if tells else ""
            found.append(f"{key}={in_force:g}{origin}")
    return found


def _against_records(subject: LintedDocument) -> Iterator[Problem]:
    for row in subject.rows:
        stated = row.hyperparameters
        matching = [
            record
            for record in subject.records
            if (record.topology.label, record.precision.requested.casefold()) == (row.shape, row.precision)
        ]
        if stated is None or not matching:
            continue
        recorded = [_recorded(record, subject.case) for record in matching]
        if not any(
            stated.keys() == each.keys() and all(_equal(stated[key], each[key]) for key in each) for each in recorded
        ):
            text = ",".join(f"{key}={value}" for key, value in recorded[0].items()) or "/"
            yield Problem(
                row.cells["fix_hp"].place, f"fix_hp {row.text('fix_hp')!r}, but run {matching[0].run_id} had {text!r}"
            )


def _recorded(record: Record, case: Case | None) -> dict[str, Any]:
    changes = record.hyperparameters.changes
    if isinstance(changes, Missing):
        return {}
    keys = case.base.keys() if case else ()
    free = {key for key in keys if case and case.base.role(key) is Role.FREE}
    shown = {change.key: change.value for change in changes if change.key not in free}
    return {("bs" if key == "batch_size" else key): value for key, value in shown.items()}


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, int | float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=1e-5)
    return str(one).casefold() == str(other).casefold()


@rule(
    "L08",
    "no-config",
    why="a row without a configuration cannot be repeated",
    fix="commit the configuration that ran, or remove the row",
    evidence="configurations",
)
def every_row_has_a_configuration(subject: LintedDocument) -> Iterator[Problem]:
    """There is a configuration for every row's card, topology and precision, and each can be loaded."""
    configs = subject.need_configs()
    for path, reason in configs.unreadable.items():
        yield Problem(subject.start, f"{path.name} cannot be loaded: {reason}")
    lacking: dict[str, list[str]] = defaultdict(list)
    for config in configs.configs:
        for module in missing_modules(config.path) if config.path.suffix == ".py" else ():
            lacking[module].append(config.path.name)
    for module, files in lacking.items():
        message = f"{_first_of(files)} cannot be loaded: it imports {module}, which is not in the tree"
        yield Problem(subject.start, message, severity="warning")
    if not configs.configs:
        raise NotChecked(f"no configuration in {configs.path}")
    unknown, unread, base = "", None, subject.base
    for row in subject.rows:
        if row.topology is None or not subject.is_of_case(row):
            continue
        # Another rule reports a card of another vendor.
        if any(name.vendor != subject.vendor for name in subject.names.find(row.card)):
            continue
        found = subject.configs_of(row)
        names = ", ".join(config.path.name for config in found or configs.configs)
        if not found:
            of_row = f"for {row.card} {row.shape}" if configs.of_topology(row.shape) else f"for {row.shape}"
            wanted = row.config_name or of_row
            yield Problem(row.label.place, f"there is no configuration {wanted}; there are {names}")
            continue
        switched = [_switch(config, subject, row.precision) for config in found]
        keys = [key for config in found for key in config.values if _SWITCH_AFFIXES.sub("", key) in _REDUCED]
        if line := next(filter(None, (config.unread_line(keys) for config in found)), None):
            unread = line
            continue
        place = row.cells["precision"].place if "precision" in row.cells else row.label.place
        if row.precision in _REDUCED and not any(state is not False for state in switched):
            yield Problem(place, f"no configuration for {row.shape} sets {row.precision}: {names}")
        elif row.precision == "fp32" and all(switched):
            sets = f"the configuration for {row.shape} sets {switched[0]}"
            if base and found[0].value([str(switched[0])]) is None:
                sets = f"{base.origin} sets {switched[0]}, and the configuration for {row.shape} does not unset it"
            yield Problem(place, f"fp32, but {sets}: {names}")
        elif None in switched and row.precision in _REDUCED:
            unknown = row.precision
    _need_read([unread])
    if unknown:
        raise NotChecked(f"neither the configurations nor a base configuration have a switch for {unknown}")


def _switch(config: Config, subject: LintedDocument, precision: str) -> str | bool | None:
    """Return the switch that turns on a precision, for fp32 a reduced one, ``False``, or ``None`` if none is known."""
    if config.path.suffix == ".toml":
        return None
    wanted = {_ANY_REDUCED_KEY, *_REDUCED}
    if precision in _REDUCED:
        if precision in config.path.stem.casefold():
            return precision
        if (named := str(config.value(["precision"])).casefold()) in PRECISIONS:
            return precision if named == precision else False
        arithmetic = PRECISIONS[precision_of(precision)].arithmetic
        wanted = {_ANY_REDUCED_KEY, *(name for name in _REDUCED if PRECISIONS[name].arithmetic == arithmetic)}
    base = subject.base
    values = dict(base.values if base else {})
    values |= {key: each.value for key, each in config.values.items() if each.value is not None}
    switches = {key: name for key in values if (name := _SWITCH_AFFIXES.sub("", key)) in _REDUCED}
    for key, name in switches.items():
        if values[key] is True and name in wanted and _may_be_read(subject, key):
            return key
    # An installed case runs in fp32 unless it is told otherwise.
    tells = base and not base.uses_own_keys
    return False if tells or precision not in _REDUCED or any(_may_be_read(subject, key) for key in switches) else None


def _may_be_read(subject: LintedDocument, key: str) -> bool:
    return not subject.names_read or key in subject.names_read


@rule(
    "L09",
    "shortened-run",
    why="a result after 6 of 100 epochs is not a result, and its time is not a time to train",
    fix="run the full schedule, or declare the shortening under the additional changes",
    evidence="configurations or records",
)
def shortened_runs_are_declared(subject: LintedDocument) -> Iterator[Problem]:
    """A shortened run is declared as such."""
    changes = subject.document.general.get("changes")
    place = changes.value.place if changes else subject.start
    if subject.records:
        shortened = [record for record in subject.records if record.limits.shortened or record.case.preset != "full"]
        if shortened and not subject.declares_schedule():
            yield Problem(place, f"run {shortened[0].run_id} was shortened, and the report says no such thing")
        return
    subject.need_configs()
    base = subject.need_base()
    configs = {config.path: config for row in subject.rows for config in subject.configs_of(row)}
    for config in configs.values():
        for unit, keys, share in (("epochs", EPOCHS_KEYS, 1), ("samples", _SAMPLES_KEYS, _MAX_SAMPLES_SHARE)):
            full, limit = base.value(keys), config.value(base.read_keys(keys))
            if not (is_number(full) and is_number(limit) and 0 < limit < full * share):
                continue
            if not subject.declares_schedule(limit):
                message = f"{config.path.name} stops after {limit} of {full} {unit}, and no change is declared"
                yield Problem(place, message)
            break
    read = base.read_keys([*EPOCHS_KEYS, *_SAMPLES_KEYS])
    _need_read(config.unread_line(read) for config in configs.values())


@rule(
    "L10",
    "lowered-target",
    why="a run counts as converged at a quality that the case does not accept",
    fix="remove the target from the vendor's configuration",
    evidence="configurations",
)
def targets_are_not_lowered(subject: LintedDocument) -> Iterator[Problem]:
    """No row and no configuration of the vendor has a target that is easier to meet than the case's."""
    asked = subject.asked_target()
    for row in subject.rows if asked else ():
        goal, stated = subject.goal_of(row), row.target
        if asked and goal is not None and stated is not None and _is_lower(stated, goal, lower_is_better(asked.metric)):
            origin = subject.need_base().origin
            message = f"the target {row.text('target')!r} beside the result, {origin} asks for {asked.value:g}"
            yield Problem(row.cells["target"].place, message)
    configs, base = subject.need_configs(), subject.need_base()
    if not base.targets:
        raise NotChecked(f"{base.origin} has no target")
    for config in configs.configs:
        for target in targets_in({key: each.value for key, each in config.values.items()}):
            keys = {target.key} if base.uses_own_keys else {base.targets[0].key}
            asked = next((each for each in base.targets if each.key in keys), None)
            if asked and _is_lower(target.value, asked.value, lower_is_better(target.metric)):
                yield Problem(
                    subject.start,
                    f"{config.path.name} sets {target.key} to {target.value:g}, {base.origin} asks for {asked.value:g}",
                )
    _need_read(config.unread_line((), "target_") for config in configs.configs)


def _need_read(lines: Iterable[str | None]) -> None:
    """Raise :class:`NotChecked` if a line of a configuration may set what a rule needs."""
    if line := next(filter(None, lines), None):
        raise NotChecked(f"{line} cannot be read")


def _is_lower(value: float, asked: float, lower_is_better: bool) -> bool:
    """Return whether a target asks for less, with percentages compared to fractions where only one is a percentage."""
    if lower_is_better:
        return value > asked * (1 + 1e-9)
    if value > 1 >= asked > 0:
        value /= 100
    elif asked > 1 >= value > 0:
        asked /= 100
    return value < asked * (1 - 1e-9)


@rule(
    "L27",
    "unversioned-target",
    why="targets have changed within days, and a result that equals the target was perhaps written to meet it",
    fix="name the case's version beside the target, and write the result as measured",
    evidence="a target beside the result, configurations or records",
)
def targets_carry_a_version(subject: LintedDocument) -> Iterator[Problem]:
    """Targets and base values carry a version, and no result equals its target to the last digit."""
    with_target = [row for row in subject.rows if row.known("target") and row.known("quality")]
    if not with_target and subject.configs is None and not subject.records:
        raise NotChecked("no target beside a result, no configurations and no records")
    for row in with_target:
        if row.text("target") == row.text("quality"):
            cell = row.cells["quality"]
            yield Problem(cell.place, f"the result {cell.text!r} is the target to the last digit")
    # A tree names no versions of its own targets.
    of_tree = {} if subject.case or not subject.base else {each.key: each.value for each in subject.base.targets}
    pinned: dict[str, list[str]] = defaultdict(list)
    for config in subject.configs.configs if subject.configs else ():
        if any("version" in name for name in config.values):
            continue
        for target in targets_in({key: each.value for key, each in config.values.items()}):
            if of_tree.get(target.key) == target.value:
                continue
            assigned = config.values[target.key]
            known = f"; {subject.need_base().origin} has {of_tree[target.key]:g}" if target.key in of_tree else ""
            pinned[f"sets {target.key} to {target.value:g} without a version{known}"].append(
                f"{assigned.path.name}:{assigned.line}"
            )
    for setting, places in pinned.items():
        yield Problem(subject.start, f"{_first_of(places)} {setting}")
    for record in subject.records:
        if subject.case and record.case.name == subject.case.name and record.case.version != subject.case.version:
            yield Problem(
                subject.start,
                f"run {record.run_id} is of {record.case.name} {record.case.version}, the case is "
                f"{subject.case.version} now",
            )


@rule(
    "L29",
    "unknown-key",
    why="the trainer ignores the key, so the stated value had no effect",
    fix="correct the key",
    evidence="configurations",
)
def configurations_have_no_unknown_keys(subject: LintedDocument) -> Iterator[Problem]:
    """The case reads every key of a configuration."""
    configs = subject.need_configs()
    places: dict[str, list[str]] = defaultdict(list)
    hints: dict[str, str] = {}
    for config in configs.configs:
        if config.path.suffix == ".toml":
            read: frozenset[str] = frozenset(subject.need_case().base.keys())
        elif subject.base and subject.base.uses_own_keys and config.values.keys() <= subject.base.values.keys():
            continue
        else:
            read = _keys_read(subject) | names_used({assigned.path for assigned in config.values.values()})
        for key, assigned in config.values.items():
            where = f"{assigned.path.name}:{assigned.line}"
            if key not in read and not key.startswith("_") and where not in places[key]:
                places[key].append(where)
                hints[key] = (
                    " (did you mean 'lr'?)" if key == "learning_rate" else did_you_mean(key, read, _MIN_LIKENESS)
                )
    for key, hint in hints.items():
        yield Problem(subject.start, f"{_first_of(places[key])} sets {key!r}, which nothing reads{hint}")


@rule(
    "L32",
    "impossible-setting",
    why="every utilization computed from a peak of -1 is wrong, and no run reaches a perplexity below 1",
    fix="write the card's peak in FLOPS, or a target that a run can reach",
    evidence="configurations",
)
def settings_are_possible(subject: LintedDocument) -> Iterator[Problem]:
    """Peak FLOPS are plausible for an accelerator, and every target is within its metric's range."""
    places: dict[str, list[str]] = defaultdict(list)
    for config in subject.need_configs().configs:
        for key, least in _LEAST.items():
            assigned = config.values.get(key)
            if assigned and is_number(assigned.value) and assigned.value < least:
                places[f"{key} to {assigned.value:g}; it is at least {least:g}"].append(
                    f"{assigned.path.name}:{assigned.line}"
                )
    for setting, where in places.items():
        yield Problem(subject.start, f"{_first_of(where)} sets {setting}")


def _keys_read(subject: LintedDocument) -> frozenset[str]:
    """Return the keys that the case's trainers read, with everything that the sources of the tree may read."""
    keys = frozenset(subject.base.values if subject.base else ()) | subject.names_read
    if not subject.names_read:
        subject.need_base()
        keys |= _FRAMEWORK_KEYS
    if _READS_ANY_KEY in keys:
        raise NotChecked(f"{subject.benchmark} hands its configuration to a library")
    return keys


def _first_of(places: list[str]) -> str:
    return places[0] if len(places) == 1 else f"{places[0]} (and {len(places) - 1} more)"
