"""From records to a report's view: which records become rows, and what each cell holds."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING, Literal, TypeVar

from chipperf.cases.registry import find_case
from chipperf.durations import format_duration
from chipperf.errors import RecordError, UsageError
from chipperf.records.measures import headline, used_peak
from chipperf.records.plausibility import check_record, check_scaling, outcome
from chipperf.records.schema import METRICS_VERSION, Missing, TimeToTarget
from chipperf.records.store import record_text
from chipperf.report.comparability import dataset_name, require_one
from chipperf.report.configuration import card_short_name, fix_hp, not_blank, row_label
from chipperf.report.convergence import build_convergence
from chipperf.report.format import REASON_IN_MARKER, gib
from chipperf.report.selection import choose_rows
from chipperf.report.view import Gap, MemorySource, ReportView, Row, Shared, Shortening, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

    from chipperf.cases.base import Case
    from chipperf.records.plausibility import Finding
    from chipperf.records.schema import Environment, HyperparameterChange, Memory, MissingKind, Record, Text

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
_USUAL_PRECISIONS = ("fp32", "amp", "fp16")


def build_view(records: Sequence[Record], *, baseline: Sequence[Record] = ()) -> ReportView:
    """Return the view of one vendor's records of one case.

    A row is a device, topology, precision and set of hyperparameter changes, and rows keep the order in which the
    records are given. Of several records for one row, completed ones come before others, full schedules before
    shortened ones, and then the newest; the rest is listed as superseded.

    Args:
        records: At least one record, all of the same vendor, case and version, dataset and kind.
        baseline: Records of another vendor or device, whose convergence curves are shown beside the vendor's.

    Raises:
        UsageError: There are no records, they do not belong into one report, their case is not installed, or a
            baseline cannot be compared with them.
        RecordError: A record's values follow other metric definitions than this version's.
    """
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
        own_dataset=_is_own_dataset(first, case),
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
    """Return the SHA-256, in hexadecimal, of a record's file as chipperf writes it: ``sha256sum record.json``."""
    return hashlib.sha256(record_text(record).encode()).hexdigest()


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
    short_names = [f"{record.topology.label} {record.precision.requested}" for record in records]
    count = Counter(short_names)
    return tuple(
        _row(record, case, name=name if count[name] == 1 else _long_name(record, case, name))
        for record, name in zip(records, short_names, strict=True)
    )


def _long_name(record: Record, case: Case, short_name: str) -> str:
    label = record.environment.row_label
    card = "" if isinstance(label, Missing) else f"{label} "
    changes = fix_hp(record, case)
    return f"{card}{short_name}" if isinstance(changes, Missing) else f"{card}{short_name} {changes}"


def _row(record: Record, case: Case, *, name: str) -> Row:
    metrics = record.metrics
    used_bytes, total_bytes, source = _memory(metrics.memory)
    cells = {
        "e2e_time": completed_value(record, metrics.e2e_time_s),
        "p_whole": completed_value(record, metrics.p_whole),
        "p_train": completed_value(record, headline(metrics.p_train)),
        "p_core": completed_value(record, headline(metrics.p_core)),
        case.report.quality_column: completed_value(record, metrics.quality),
    }
    used = completed_value(record, used_bytes)
    quality = cells[case.report.quality_column]
    return Row(
        record=record,
        digest=record_digest(record),
        name=name,
        card=row_label(record),
        fix_hp=fix_hp(record, case),
        e2e_time_s=cells["e2e_time"],
        p_whole=cells["p_whole"],
        p_train=cells["p_train"],
        p_core=cells["p_core"],
        quality=quality,
        memory_used_bytes=used,
        memory_total_bytes=total_bytes,
        memory_source=None if isinstance(used, Missing) else source,
        verdict=None if isinstance(quality, Missing) else _verdict(record, case, quality),
        gaps=tuple(
            Gap(column=column, missing=value)
            for column, value in {**cells, "mem": used}.items()
            if isinstance(value, Missing) and value.reason and value.missing not in REASON_IN_MARKER
        ),
    )


NumberT = TypeVar("NumberT", int, float)


def completed_value(record: Record, value: NumberT | Missing) -> NumberT | Missing:
    """Return a value of a run as it may be shown: that of a run that did not complete is missing as failed."""
    state = record.status.state
    if state == "completed" or (isinstance(value, Missing) and value.missing == "not_applicable"):
        return value
    failure = record.status.failure
    return Missing(missing="failed", reason=failure.failure_class if failure else state)


def _memory(memory: Memory | Missing) -> tuple[int | Missing, int | Missing, MemorySource | None]:
    if isinstance(memory, Missing):
        return memory, memory, None
    if isinstance(memory.device_peak_bytes, Missing):
        source = MemorySource(peak="allocator", source=memory.allocator_source)
    else:
        source = MemorySource(peak="device", source=memory.device_source)
    return used_peak(memory), memory.total_bytes, source


def _verdict(record: Record, case: Case, quality: float) -> Verdict:
    target = record.case.target
    source = f"{record.case.name} {record.case.version}" if _is_own_dataset(record, case) else record.dataset.name
    projection = record.metrics.projected_train_seconds
    projected = None if isinstance(projection, Missing) else format_duration(projection)
    if isinstance(target, Missing):
        return Verdict(
            kind="no_target", quality=quality, target=target, source=source, reached=None, projected=projected
        )
    time_to_target = record.metrics.time_to_target
    reached = time_to_target if isinstance(time_to_target, TimeToTarget) else None
    kind: Literal["converged", "below_target"] = "converged" if outcome(record) == "converged" else "below_target"
    return Verdict(kind=kind, quality=quality, target=target, source=source, reached=reached, projected=projected)


def _is_own_dataset(record: Record, case: Case) -> bool:
    return record.dataset.name == case.base.dataset and not record.dataset.is_sample


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


def _environment(rows: Sequence[Row]) -> dict[str, tuple[Shared[Text], ...]]:
    def text(name: str) -> tuple[Shared[Text], ...]:
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


def _implausible(rows: Sequence[Row]) -> tuple[Shared[Finding], ...]:
    """Return what cannot be true in the rows; what an imported document says is for lint to check."""
    measured = [row for row in rows if row.record.kind != "imported"]
    too_fast = {id(record): finding for record, finding in check_scaling([row.record for row in measured])}

    def findings(row: Row) -> Iterable[Finding]:
        scaling = too_fast.get(id(row.record))
        return (*check_record(row.record), *([scaling] if scaling else []))

    return _share(measured, findings)


def _missing_kinds(rows: Iterable[Row], environment: Mapping[str, Iterable[Shared[Text]]]) -> frozenset[MissingKind]:
    cells = (
        cell
        for row in rows
        for cell in (
            row.card,
            row.fix_hp,
            row.e2e_time_s,
            row.p_whole,
            row.p_train,
            row.p_core,
            row.quality,
            row.memory_used_bytes,
            row.memory_total_bytes,
        )
    )
    facts = (fact.value for name in (*_REQUIRED_FACTS, "card_short_name") for fact in environment[name])
    return frozenset(value.missing for value in (*cells, *facts) if isinstance(value, Missing))


def _share(rows: Sequence[Row], values: Callable[[Row], Iterable[T]]) -> tuple[Shared[T], ...]:
    """Collect values over rows, each value once with the names of its rows."""
    found: dict[T, list[str]] = {}
    for row in rows:
        for value in dict.fromkeys(values(row)):
            found.setdefault(value, []).append(row.name)
    return tuple(
        Shared(value=value, rows=() if len(names) == len(rows) else tuple(names)) for value, names in found.items()
    )
