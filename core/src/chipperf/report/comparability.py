"""Checks that runs can be compared, and the differences between comparable runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from chipperf.cases.base import Role
from chipperf.documents.format import marker, setting, text_or_marker
from chipperf.errors import UsageError
from chipperf.records.schema import UNKNOWN_NAME, Missing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from chipperf.cases.base import Case
    from chipperf.records.schema import Dataset, Limits, Record, Setting


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDifference:
    """A hyperparameter or a fact of the record that differs between runs, with its value in each of them."""

    name: str
    values: tuple[str, ...]


FACTS: Final[Mapping[str, Callable[[Record], str]]] = {
    "cases": lambda record: record.case.name,
    "case versions": lambda record: f"{record.case.name} {record.case.version}",
    "vendors": lambda record: record.vendor.name,
    "kinds": lambda record: record.kind,
    "datasets": lambda record: _dataset_name(record.dataset),
    "metrics": lambda record: record.case.metric,
    "metrics versions": lambda record: str(record.metrics_version),
    "metric definitions": lambda record: record.metrics_definition,
    "topologies": lambda record: record.topology.label,
    "devices": lambda record: setting_text(record.environment.row_label),
    "parts of cards": lambda record: _parts(record),
    "requested precisions": lambda record: record.precision.requested,
    "effective precisions": lambda record: setting_text(record.precision.effective),
    "presets": lambda record: record.case.preset,
    "lengths": lambda record: length(record.limits),
    "global batches": lambda record: setting_text(record.hyperparameters.global_batch_size),
    "evaluated samples": lambda record: setting_text(
        record.metrics.curve[-1].samples if record.metrics.curve else record.dataset.eval_samples
    ),
}
"""What records of one report, comparison or row may share, by its plural in messages."""

SAME_ROW: Final = (
    *("vendors", "devices", "topologies", "kinds", "parts of cards", "requested precisions", "effective precisions"),
    *("presets", "lengths", "global batches"),
)
"""Facts that runs of one row share, besides case, dataset and changed hyperparameters."""


def require_comparable(records: Sequence[Record]) -> None:
    """Check that the results of at least one run can be compared.

    Raises:
        UsageError: The runs have several cases, case versions, metrics, metrics versions, metric definitions or
            datasets, or were evaluated on different numbers of samples; the message names them.
    """
    hint = "compare runs of one case on one dataset"
    for fact in ("cases", "case versions", "metrics"):
        require_same(fact, records, hint=hint)
    require_same("metrics versions", records, hint="run the older ones again")
    require_same(
        "metric definitions",
        records,
        hint="the same names have different definitions, see docs/metrics.md: compare only reports with reports",
    )
    # An imported document may name no dataset, and a run that failed early has read none.
    read = filter(has_read_dataset, records)
    named = [record for record in read if record.kind != "imported" or record.dataset.name != UNKNOWN_NAME]
    _require_one_dataset([record.dataset for record in named], hint=hint)
    # Only fingerprints of one method can be compared.
    methods: dict[str, list[str]] = {}
    for dataset in (record.dataset for record in records):
        if not isinstance(dataset.fingerprint, Missing):
            methods.setdefault(dataset.fingerprint_method, []).append(dataset.fingerprint)
    for fingerprints in methods.values():
        require_one("contents of the dataset", fingerprints, hint="'perf data check' tells what is in a directory")
    splits = [record.dataset.eval_samples for record in records]
    evaluations = [record.metrics.curve[-1].samples for record in records if record.metrics.curve]
    for counts in (splits, evaluations):
        known = [str(count) for count in counts if not isinstance(count, Missing)]
        require_one("numbers of evaluated samples", known, hint="evaluate on the same split, all of it")


def _parts(record: Record) -> str:
    return ", ".join(sorted({card.part or "whole card" for card in record.environment.cards})) or "not stated"


def length(limits: Limits) -> str:
    """Return how long a run was to train, for example ``at most 2 epochs``."""
    ends = ((limits.max_epochs, "epochs"), (limits.max_steps, "steps"), (limits.budget_s, "s"))
    texts = [f"{value:g} {unit}" for value, unit in ends if value]
    return f"at most {' and '.join(texts)}" if texts else "the whole schedule"


def has_read_dataset(record: Record) -> bool:
    """Return whether a run came as far as its dataset. If not, it goes with any, whatever name its record has."""
    fingerprint = record.dataset.fingerprint
    is_unread = isinstance(fingerprint, Missing) and fingerprint.missing == "not_run"
    return record.status.state == "completed" or not is_unread


def _dataset_name(dataset: Dataset) -> str:
    return f"{dataset.name} {text_or_marker(dataset.version, 'en')}"


def _require_one_dataset(datasets: Sequence[Dataset], *, hint: str) -> None:
    """Check that all datasets have one name and version. An unstated version matches any, or is part of the name."""
    versioned = [dataset for dataset in datasets if not isinstance(dataset.version, Missing)]
    stated = {_dataset_name(dataset) for dataset in versioned}
    bare = {dataset.name for dataset in datasets if isinstance(dataset.version, Missing)}
    known = stated | {dataset.name for dataset in versioned}
    if len(stated) > 1 or (bare - known if known else len(bare) > 1):
        require_one("datasets", [_dataset_name(dataset) for dataset in datasets], hint=hint)


def require_same(facts: str, records: Iterable[Record], *, hint: str) -> None:
    """Check that a fact, by its plural in :data:`FACTS`, is the same in all records, or raise :class:`UsageError`."""
    require_one(facts, map(FACTS[facts], records), hint=hint)


def require_one(plural: str, values: Iterable[str], *, hint: str) -> None:
    """Check that all values are the same, or raise :class:`UsageError` that calls them by ``plural``."""
    different = sorted(set(values))
    if len(different) > 1:
        raise UsageError(f"the records are of several {plural}: {', '.join(different)}", hint=hint)


def differences(records: Sequence[Record], case: Case) -> tuple[RunDifference, ...]:
    """Return the differences between comparable runs, without *free* hyperparameters, that may explain results."""
    rows = [_facts(record, case) for record in records]
    names = [name for name in rows[0] if all(name in row for row in rows)]
    return tuple(
        RunDifference(name=name, values=values)
        for name in names
        if len(set(values := tuple(row[name] for row in rows))) > 1
    )


def _facts(record: Record, case: Case) -> dict[str, str]:
    keys = case.base.keys()
    values: dict[str, Setting | Missing | None] = {
        "kind": record.kind,
        "preset": record.case.preset,
        "max_epochs": record.limits.max_epochs,
        "max_steps": record.limits.max_steps,
        "budget_s": record.limits.budget_s,
        "effective precision": record.precision.effective,
        "global_batch_size": record.hyperparameters.global_batch_size,
    }
    for key, value in record.hyperparameters.values.items():
        if key not in keys or case.base.role(key) is not Role.FREE:
            values[key] = value
    return {name: setting_text(value) for name, value in values.items()}


def setting_text(value: Setting | Missing | None) -> str:
    """Return a setting as text; ``None`` becomes ``none``."""
    if isinstance(value, Missing):
        return str(marker(value))
    return "none" if value is None else setting(value)
