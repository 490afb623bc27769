"""Rules on hyperparameters, compared with the configurations and records of the runs."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Final

from chipperf.cases.base import Case, Role
from chipperf.errors import did_you_mean
from chipperf.lint.rule import LintedDocument, NotChecked, Problem, rule
from chipperf.precisions import PRECISIONS, precision_of
from chipperf.records.schema import Missing, Record

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from chipperf.lint.configs import Assigned, Config, ConfigDirectory

_BATCH_KEYS: Final = ("train_batch_size", "batch_size", "per_device_train_batch_size")
_EPOCH_KEYS: Final = ("max_epoch", "max_epochs", "epochs", "num_train_epochs")
_REDUCED: Final = tuple(name for name, means in PRECISIONS.items() if means.autocast_type)
"""Precisions that a configuration must request. TF32 is not one of them, because it is a switch of the stack."""

_ANY_REDUCED_KEY: Final = "fp16"
"""FlagPerf's switch for fp16. Some vendors' configurations also set it for bf16."""

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


@rule(
    "L07",
    "fix-hp",
    why="a reader who repeats the row with the stated hyperparameters measures something else",
    fix="write into fix_hp what the configuration sets, or render the report from its records",
    evidence="configurations or records",
)
def fix_hp_is_what_ran(subject: LintedDocument) -> Iterator[Problem]:
    """``fix_hp`` is what the configuration or the record of the row's topology sets."""
    if subject.records:
        yield from _against_records(subject)
        return
    configs, case = subject.need_configs(), subject.need_case()
    for row in subject.rows:
        stated = row.hyperparameters
        candidates = configs.of_topology(row.shape) if row.topology else []
        if stated is None or not candidates:
            continue
        differences = [_differences(stated, config, configs, case) for config in candidates]
        if all(differences):
            yield Problem(
                row.cells["fix_hp"].place,
                f"{row.shape} {row.precision}: fix_hp {row.text('fix_hp')!r}, but {candidates[0].path.name} has "
                f"{', '.join(differences[0])}",
            )


def _differences(stated: Mapping[str, Any], config: Config, configs: ConfigDirectory, case: Case) -> list[str]:
    found = []
    for key, keys, base in (("bs", _BATCH_KEYS, case.base.batch_size), ("lr", ("lr",), case.base.lr)):
        configured = configs.value(config, *keys)
        in_force = base if configured is None else configured
        said = stated.get(key, base)
        if isinstance(in_force, int | float) and isinstance(said, int | float) and not _equal(in_force, said):
            origin = ", the case's base" if configured is None else ""
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
    if not configs.configs:
        raise NotChecked(f"no configuration in {configs.path}")
    for row in subject.rows:
        if row.topology is None:
            continue
        found = configs.of_topology(row.shape)
        names = ", ".join(config.path.name for config in found or configs.configs)
        if not found:
            yield Problem(row.label.place, f"there is no configuration for {row.shape}; there are {names}")
        elif row.precision in _REDUCED and not any(_sets_precision(config, configs, row.precision) for config in found):
            place = row.cells["precision"].place
            yield Problem(place, f"no configuration for {row.shape} sets {row.precision}: {names}")


def _sets_precision(config: Config, configs: ConfigDirectory, precision: str) -> bool:
    if config.path.suffix == ".toml" or precision in config.path.stem.casefold():
        return True
    arithmetic = PRECISIONS[precision_of(precision)].arithmetic
    keys = {_ANY_REDUCED_KEY, *(name for name in _REDUCED if PRECISIONS[name].arithmetic == arithmetic)}
    return (
        any(configs.value(config, key) is True for key in keys)
        or str(configs.value(config, "precision") or "").casefold() == precision
    )


@rule(
    "L09",
    "shortened-run",
    why="a result after 6 of 100 epochs is none, and its time is no time to train",
    fix="run the full schedule, or declare the shortening under the additional changes",
    evidence="configurations or records",
)
def shortened_runs_are_declared(subject: LintedDocument) -> Iterator[Problem]:
    """A run that was shortened is declared as such."""
    changes = subject.document.general.get("changes")
    place = changes.value.place if changes else subject.start
    if subject.records:
        shortened = [record for record in subject.records if record.limits.shortened or record.case.preset != "full"]
        if shortened and not subject.declares_changes():
            yield Problem(place, f"run {shortened[0].run_id} was shortened, and the report says no such thing")
        return
    configs, case = subject.need_configs(), subject.need_case()
    if subject.declares_changes():
        return
    shapes = {row.shape for row in subject.rows if row.topology}
    for config in configs.configs:
        epochs = configs.value(config, *_EPOCH_KEYS)
        if config.topology and config.topology.label in shapes and _is_number(epochs) and epochs < case.base.epochs:
            yield Problem(
                place,
                f"{config.path.name} stops after {epochs} of {case.base.epochs} epochs, and no change is declared",
            )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@rule(
    "L10",
    "lowered-target",
    why="a run counts as converged at a quality that the case does not accept",
    fix="remove the target from the vendor's configuration",
    evidence="configurations",
)
def targets_are_not_lowered(subject: LintedDocument) -> Iterator[Problem]:
    """No configuration of the vendor sets a lower target than the case's."""
    configs, case = subject.need_configs(), subject.case
    base = {key: target for key, target, _ in _targets(configs.base)}
    if not base:
        case = subject.need_case()
    for config in configs.configs:
        for key, target, _ in _targets(config.values):
            asked = case.base.target if case else base.get(key, 0.0)
            who = f"case {case.name} {case.version}" if case else "the base configuration"
            if target < asked * (1 - 1e-9):
                yield Problem(subject.start, f"{config.path.name} sets {key} to {target:g}, {who} asks for {asked:g}")


def _targets(values: Mapping[str, Assigned]) -> Iterator[tuple[str, float, int]]:
    """Yield key, value as a fraction, and line of each target."""
    for key, assigned in values.items():
        if key.startswith("target") and _is_number(assigned.value):
            yield key, assigned.value / 100 if assigned.value > 1 else float(assigned.value), assigned.line


@rule(
    "L27",
    "unversioned-target",
    why="targets have changed within days, and a result that equals one was perhaps written to meet it",
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
    for config in subject.configs.configs if subject.configs else ():
        if any("version" in name for name in config.values):
            continue
        for key, target, line in _targets(config.values):
            yield Problem(subject.start, f"{config.path.name}:{line} sets {key} to {target:g} without a version")
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
    why="the trainer ignores the key, so that another value than the stated one was in force",
    fix="correct the key",
    evidence="configurations",
)
def configurations_have_no_unknown_keys(subject: LintedDocument) -> Iterator[Problem]:
    """Every key of a configuration is one that the case reads."""
    configs = subject.need_configs()
    own = frozenset(subject.case.base.keys() if subject.case else ())
    for config in configs.configs:
        known = own if config.path.suffix == ".toml" else _FRAMEWORK_KEYS | (configs.base.keys() or own)
        for key, assigned in config.values.items():
            if known and key not in known and not re.fullmatch(r"_\w+", key):
                hint = " (did you mean 'lr'?)" if key == "learning_rate" else did_you_mean(key, known)
                message = f"{config.path.name}:{assigned.line} sets {key!r}, which nothing reads{hint}"
                yield Problem(subject.start, message)
