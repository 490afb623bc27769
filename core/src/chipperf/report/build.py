"""Building a report's view from records: choosing the rows and collecting the facts."""

from __future__ import annotations

import hashlib
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from chipperf.cases.registry import find_case
from chipperf.documents.format import gib
from chipperf.durations import format_duration
from chipperf.errors import RecordError, UsageError
from chipperf.precisions import PRECISIONS
from chipperf.records.columns import columns_of
from chipperf.records.plausibility import check_record, check_scaling
from chipperf.records.schema import METRICS_VERSION, Missing
from chipperf.records.store import record_text
from chipperf.report.comparability import dataset_name, require_one
from chipperf.report.convergence_curves import build_convergence
from chipperf.report.row import Row, is_on_reference_dataset, short_name
from chipperf.report.row_identity import card_short_name, choose_rows, not_blank
from chipperf.report.tracing import TrackedValue, source_of, track_each
from chipperf.report.view import PerRows, ReportView, Shortening

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

    from chipperf.cases.base import Case
    from chipperf.records.plausibility import Implausibility
    from chipperf.records.schema import Environment, HyperparameterChange, MissingKind, Record, Text

    T = TypeVar("T", bound=Hashable)

_REQUIRED_FACTS = (
    "machine",
    "card_title",
    "network",
    "os",
    "kernel",
    "driver",
    "container",
    "framework",
    "dependencies",
)
_MORE_FACTS = ("compiler", "cpu", "python", "torch", "sdk", "collectives")
_USUAL_PRECISIONS = tuple(name for name, means in PRECISIONS.items() if means.in_every_legend)


def build_view(records: Sequence[Record], *, baseline: Sequence[Record] = ()) -> ReportView:
    """Return the view of one vendor's records of one case.

    A row is a device, topology, precision and set of hyperparameter changes. Rows have the order of the given records.
    If several records belong to one row, completed ones come first, then full schedules, then the newest. The row shows
    the first; the others are listed as superseded.

    Args:
        records: At least one record, all of the same vendor, case and version, dataset and kind. Duplicates count
            once.
        baseline: Records of another vendor or device, whose convergence curves are shown for comparison.

    Raises:
        UsageError: There are no records, they do not belong in one report, their case is not installed, or a baseline
            cannot be compared with them.
        RecordError: A record follows other metric definitions than this version.
    """
    records = tuple({record_digest(record): record for record in records}.values())
    _check_metrics_version([*records, *baseline])
    _check_same(records)
    case = find_case(records[0].case.name)
    chosen, superseded = choose_rows(records, case)
    rows = _rows(chosen, case)
    first = chosen[0]
    environment = _environment(rows)
    return ReportView(
        kind=first.kind,
        metrics_definition=first.metrics_definition,
        vendor=first.vendor,
        case=case.name,
        case_version=first.case.version,
        profile=case.report,
        dataset=first.dataset,
        reference=case.data.reference,
        on_reference_dataset=is_on_reference_dataset(first, case),
        environment=environment,
        precisions=tuple(dict.fromkeys((*_USUAL_PRECISIONS, *(record.precision.requested for record in chosen)))),
        shortened=_share(rows, lambda row: _shortenings(row.record)),
        rows=rows,
        superseded=superseded,
        convergence=build_convergence(chosen, superseded, baseline, case),
        missing_kinds=_missing_kinds(rows, environment),
        memory_sources=_share(rows, lambda row: [row.memory_source] if row.memory_source else []),
        knobs=_share(rows, lambda row: row.record.knobs),
        changes=_share(rows, lambda row: _changes(row.record)),
        change_notes=_share(rows, lambda row: row.record.hyperparameters.notes),
        datasets=_share(rows, lambda row: [row.record.dataset]),
        loaders=_share(rows, lambda row: [row.record.loader]),
        implausible=_implausible(rows),
        warnings=_share(rows, lambda row: row.record.warnings),
        disabled_observers=_share(rows, lambda row: row.record.disabled_observers),
        remarks=_share(rows, lambda row: row.record.remarks),
    )


def record_digest(record: Record) -> str:
    """Return the SHA-256, in hexadecimal, of a record's file: ``sha256sum record.json``.

    For a record that was not read from a file, this is the digest of the file that would be written.
    """
    source = source_of(record)
    return source.file.sha256 if source else hashlib.sha256(record_text(record).encode()).hexdigest()


def _check_metrics_version(records: Iterable[Record]) -> None:
    for record in records:
        if record.metrics_version != METRICS_VERSION:
            raise RecordError(
                f"run {record.run_id} has metrics version {record.metrics_version}, "
                f"this chipperf reports version {METRICS_VERSION}",
                hint=f"report it with the chipperf that wrote it ({record.chipperf_version}), or run it again",
            )


def _check_same(records: Sequence[Record]) -> None:
    if not records:
        raise UsageError("there are no records to report", hint="name one run directory or more")
    hint = "render one report for each, naming only its runs"
    require_one("cases", [record.case.name for record in records], hint=hint)
    require_one("vendors", [record.vendor.name for record in records], hint=hint)
    require_one("case versions", [f"{record.case.name} {record.case.version}" for record in records], hint=hint)
    require_one("datasets", [dataset_name(record.dataset) for record in records], hint=hint)
    require_one("kinds", [record.kind for record in records], hint=hint)
    require_one("metric definitions", [record.metrics_definition for record in records], hint=hint)


def _rows(records: Sequence[Record], case: Case) -> tuple[Row, ...]:
    count = Counter(map(short_name, records))
    return tuple(
        Row(
            record=record,
            case=case,
            sha256=record_digest(record),
            short_name_is_unique=count[short_name(record)] == 1,
        )
        for record in records
    )


def _changes(record: Record) -> Sequence[HyperparameterChange]:
    changes = record.hyperparameters.changes
    return () if isinstance(changes, Missing) else changes


def _shortenings(record: Record) -> list[Shortening]:
    preset = None if record.case.preset == "full" else record.case.preset
    limits = record.limits
    if preset is None and not limits.shortened:
        return []
    budget = None if limits.budget_s is None else format_duration(limits.budget_s)
    return [Shortening(preset=preset, max_epochs=limits.max_epochs, max_steps=limits.max_steps, budget=budget)]


def _environment(rows: Sequence[Row]) -> dict[str, tuple[PerRows[Text], ...]]:
    def text(name: str) -> tuple[PerRows[Text], ...]:
        return _share(rows, lambda row: [not_blank(getattr(row.record.environment, name))])

    facts = {name: text(name) for name in (*_REQUIRED_FACTS, *_MORE_FACTS)}
    facts["card_short_name"] = _share(rows, lambda row: [card_short_name(row.record)])
    facts["cpu_cores"] = _share(rows, lambda row: [_cpu_cores(row.record.environment)])
    facts["memory"] = _share(rows, lambda row: [_host_memory(row.record.environment)])
    return facts


def _cpu_cores(environment: Environment) -> Text:
    cores = environment.cpu_cores
    return cores if isinstance(cores, Missing) else str(cores)


def _host_memory(environment: Environment) -> Text:
    size = gib(environment.memory_bytes)
    return size if isinstance(size, Missing) else f"{size} GiB"


def _implausible(rows: Sequence[Row]) -> tuple[PerRows[Implausibility], ...]:
    """Return the contradictions in the rows. Lint checks imported documents instead."""
    measured = [row for row in rows if row.record.kind != "imported"]
    too_fast = {id(record): finding for record, finding in check_scaling([row.record for row in measured])}

    def findings(row: Row) -> Iterable[Implausibility]:
        scaling = too_fast.get(id(row.record))
        return (*check_record(row.record), *([scaling] if scaling else []))

    return _share(measured, findings)


def _missing_kinds(rows: Iterable[Row], environment: Mapping[str, Iterable[PerRows[Text]]]) -> frozenset[MissingKind]:
    cells = (
        cell
        for row in rows
        for cell in (
            row.card,
            row.fix_hp,
            *map(row.value, columns_of("report")),
            row.memory_total_bytes,
        )
    )
    facts = (fact.value for name in (*_REQUIRED_FACTS, "card_short_name") for fact in environment[name])
    return frozenset(value.missing for value in (*cells, *facts) if isinstance(value, Missing))


def _share(rows: Sequence[Row], values: Callable[[Row], Iterable[T]]) -> tuple[PerRows[T], ...]:
    """Return the different values of the rows, each with the names of its rows."""
    found: dict[T, list[tuple[Row, TrackedValue[T]]]] = {}
    for row in rows:
        own = {each.computed: each for each in track_each(partial(values, row))}
        for value, remembered in own.items():
            found.setdefault(value, []).append((row, remembered))
    return tuple(
        PerRows(
            computed=value,
            sources=tuple(source for _, remembered in holders for source in remembered.sources),
            rows=() if len(holders) == len(rows) else tuple(row.name for row, _ in holders),
        )
        for value, holders in found.items()
    )
