"""The content of a report, independent of language and layout: the objects that templates use, built from records."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeVar

from chipperf.cases.recorded_settings import check_with_case
from chipperf.cases.registry import find_case
from chipperf.documents.format import gib
from chipperf.durations import format_duration
from chipperf.errors import UnusableRecord, UsageError
from chipperf.languages import phrase
from chipperf.precisions import PRECISIONS
from chipperf.records.columns import columns_of
from chipperf.records.convergence import lower_is_better
from chipperf.records.plausibility import check_scaling
from chipperf.records.schema import CONTAINER_ENGINES, METRICS_VERSION, UNKNOWN, Missing
from chipperf.report.comparability import (
    RunDifference,
    differences,
    has_read_dataset,
    require_comparable,
    require_same,
)
from chipperf.report.curves import MINIMUM_POINTS, CurveRuns, Curves, build_curves, read_points
from chipperf.report.row import (
    Row,
    card_short_name,
    choose_rows,
    column_header,
    curve_names,
    fix_hp,
    is_long,
    is_on_reference_dataset,
    not_blank,
    preference,
    repeats_of,
    short_name,
)
from chipperf.report.tracing import TrackedValue, record_digest, track_each

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

    from chipperf.cases.base import Case, ReportProfile
    from chipperf.data.dataset_identity import ReferenceDataset
    from chipperf.languages import Phrase
    from chipperf.plugin.types import Title
    from chipperf.records.columns import Column
    from chipperf.records.plausibility import Implausibility
    from chipperf.records.schema import (
        Dataset,
        HyperparameterChange,
        KnobRecord,
        Loader,
        MetricsDefinition,
        MissingKind,
        Record,
        Text,
        Vendor,
    )
    from chipperf.report.beside import RunBeside
    from chipperf.report.curve_files import CurveFiles
    from chipperf.report.row import MemorySource

T = TypeVar("T", bound="Hashable")

_REQUIRED_FACTS = (
    *("machine", "card_title", "network"),
    *("os", "kernel", "driver", "container", "framework", "dependencies"),
)
_MORE_FACTS = ("compiler", "cpu", "python", "torch", "sdk", "collectives")
LAYOUT = 3
"""Version of the report's layout. It changes with headings, columns, rows of the general table, and what a cell says. A
page of an earlier version is verified in its own."""

_USUAL_PRECISIONS = tuple(name for name, means in PRECISIONS.items() if means.in_every_legend)


@dataclass(frozen=True, slots=True, kw_only=True)
class PerRows(TrackedValue[T]):
    """A value and the names of its rows. Without names, it is the value of all rows."""

    rows: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortening:
    """The limits that shortened a run; ``None`` is no limit."""

    preset: str | None
    max_epochs: int | None
    max_steps: int | None
    budget: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WithoutCurve:
    """A row, baseline or repeat without a curve: the name that its curve would have or, for a repeat, the run."""

    name: str
    reason: Literal["incomplete", "too_few_evaluations"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Convergence:
    """The convergence curves of a report: one for each row and baseline that was evaluated more than once.

    The other rows and baselines, and repeats that did not complete, are ``without_curve``. There are ``files`` if the
    report is one.
    """

    curves: Curves
    without_curve: tuple[WithoutCurve, ...]
    differences: tuple[RunDifference, ...]
    files: CurveFiles | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportView:
    """The content that a report's template can show.

    Attributes:
        profile: The case's texts and formats for reports.
        lower_is_better: Whether the smaller of two qualities is the better one.
        dataset: The dataset of all rows.
        reference: The dataset that the case is defined on.
        environment: Fact by name (the text fields of :class:`~chipperf.records.schema.Environment`).
        precisions: Precisions in the legend: the usual ones and the rows' precisions.
        superseded: Records that their row does not show, see :func:`build_view`.
        convergence: The convergence curves; ``None`` if no row was evaluated more than once.
        missing_kinds: Kinds of missing values that occur in environment and rows.
        knobs: Settings in force that change numerics or speed.
        changes: Differences from the case's base, with their reasons.
        long_changes: Each ``fix_hp`` that is too long for its cell; a note has it.
        implausible: Contradictions in the runs, see :mod:`chipperf.records.plausibility`.
        disabled_observers: Observers that failed and were switched off.
        remarks: Content of imported documents that has no other field.
        beside: Runs of the rows that are not in the report, see :mod:`chipperf.report.beside`.
        layout: Version of the layout.
    """

    kind: Literal["measured", "simulated", "imported"]
    metrics_definition: MetricsDefinition
    vendor: Vendor
    case: str
    case_version: str
    profile: ReportProfile
    lower_is_better: bool
    dataset: Dataset
    reference: ReferenceDataset
    on_reference_dataset: bool
    environment: Mapping[str, tuple[PerRows[Text], ...]]
    precisions: tuple[str, ...]
    shortened: tuple[PerRows[Shortening], ...]
    rows: tuple[Row, ...]
    superseded: tuple[Record, ...]
    convergence: Convergence | None
    missing_kinds: frozenset[MissingKind]
    memory_sources: tuple[PerRows[MemorySource], ...]
    knobs: tuple[PerRows[KnobRecord], ...]
    changes: tuple[PerRows[HyperparameterChange], ...]
    long_changes: tuple[PerRows[str], ...]
    change_notes: tuple[PerRows[str], ...]
    datasets: tuple[PerRows[Dataset], ...]
    loaders: tuple[PerRows[Loader | Missing], ...]
    implausible: tuple[PerRows[Implausibility], ...]
    warnings: tuple[PerRows[str], ...]
    disabled_observers: tuple[PerRows[str], ...]
    remarks: tuple[PerRows[str], ...]
    beside: tuple[RunBeside, ...] = ()
    layout: int = LAYOUT

    def header(self, column: Column) -> str:
        """Return the header of a column of the performance table."""
        return column_header(column, self.profile)

    def remark(self, column: Column) -> Phrase | Title:
        """Return the general table's remark on a column."""
        if column.remark is None:
            return self.profile.quality_legend
        if self.layout < 3 and column.name == "e2e_time":
            return phrase("total time, initialisation included")
        return replace(column.remark, values=(("samples", self.profile.sample_noun),))


def build_view(records: Sequence[Record], *, baseline: Sequence[Record] = (), layout: int = LAYOUT) -> ReportView:
    """Return the view of one vendor's records of one case.

    A row is a device, topology, precision and set of hyperparameter changes. Rows have the order of the given records.
    If several records belong to one row, completed ones come first, then full schedules, then the newest. The row shows
    the first; the others are listed as superseded.

    Args:
        records: At least one record, all of the same vendor, case and version, dataset and kind. Duplicates count once.
            A run that failed before it read its dataset goes with any.
        baseline: Records of another vendor or device, whose convergence curves are shown for comparison.
        layout: Version of the layout, at most :data:`LAYOUT`.

    Raises:
        UsageError: There are no records, they do not belong in one report, their case is not installed, or a baseline
            cannot be compared with them.
        RecordError: A record follows other metric definitions than this version.
    """
    records = tuple({record_digest(record): record for record in records}.values())
    _require_one_report(records, baseline)
    case = find_case(records[0].case.name, guarded=True)
    chosen, superseded = choose_rows(records, case)
    names = Counter(map(short_name, chosen))
    long_changes = dict.fromkeys(changes for record in chosen if is_long(changes := fix_hp(record, case)))
    numbers = {changes: number for number, changes in enumerate(long_changes, start=1)} if layout > 1 else {}
    rows = tuple(
        Row(
            record=record,
            case=case,
            short_name_is_unique=names[short_name(record)] == 1,
            numbers_of_changes=numbers,
            layout=layout,
        )
        for record in chosen
    )
    first = chosen[0]
    read = next(filter(has_read_dataset, chosen), first)
    environment = _environment(rows, layout)
    return ReportView(
        kind=first.kind,
        metrics_definition=first.metrics_definition,
        vendor=first.vendor,
        case=case.name,
        case_version=first.case.version,
        profile=case.report,
        lower_is_better=lower_is_better(first.case),
        dataset=read.dataset,
        reference=case.data.reference,
        on_reference_dataset=is_on_reference_dataset(read, case),
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
        long_changes=_share(rows, _long_changes) if layout > 1 else (),
        change_notes=_share(rows, lambda row: row.record.hyperparameters.notes),
        datasets=_share(rows, lambda row: [row.record.dataset]),
        loaders=_share(rows, lambda row: [row.record.loader]),
        implausible=_implausible(rows),
        warnings=_share(rows, lambda row: row.record.warnings),
        disabled_observers=_share(rows, lambda row: row.record.disabled_observers),
        remarks=_share(rows, lambda row: row.record.remarks),
        layout=layout,
    )


def _require_one_report(records: Sequence[Record], baseline: Sequence[Record]) -> None:
    for record in (*records, *baseline):
        if record.metrics_version != METRICS_VERSION:
            raise UnusableRecord(
                f"run {record.run_id} has metrics version {record.metrics_version}, "
                f"this chipperf reports version {METRICS_VERSION}",
                hint=f"report it with the chipperf that wrote it ({record.chipperf_version}), or run it again",
            )
    if not records:
        raise UsageError("there are no records to report", hint="name one run directory or more")
    for fact in ("cases", "vendors", "case versions", "datasets", "kinds", "metric definitions"):
        choice = {"cases": "choose one with --case", "vendors": "choose one with --vendor"}.get(fact, "name its runs")
        shown = filter(has_read_dataset, records) if fact == "datasets" else records
        require_same(fact, shown, hint=f"render one report for each: {choice}; --format html shows all on one page")


def build_convergence(
    chosen: Sequence[Record], superseded: Sequence[Record], baseline: Sequence[Record], case: Case
) -> Convergence | None:
    """Return the curves of a report, or ``None`` if no row was evaluated more than once.

    A row's curve shows its chosen run and the superseded runs that repeat it with another seed.

    Raises:
        UsageError: The baseline cannot be compared with the rows, or one of the two has no curve.
    """
    if baseline:
        _require_comparable(chosen, baseline)
    others, superseded_others = choose_rows(baseline, case)
    shown = [*chosen, *others]
    repeats = sorted((*superseded, *superseded_others), key=preference, reverse=True)
    groups, without_curve = [], []
    for index, (record, name) in enumerate(zip(shown, curve_names(shown, case), strict=True)):
        runs = [read_points(run, "quality") for run in repeats_of(record, repeats, case)]
        drawn = tuple(run for run in runs if len(run.points) >= MINIMUM_POINTS)
        if record.status.state != "completed":
            without_curve.append(WithoutCurve(name=name, reason="incomplete"))
        elif not drawn:
            without_curve.append(WithoutCurve(name=name, reason="too_few_evaluations"))
        else:
            groups.append(CurveRuns(name=name, baseline=index >= len(chosen), runs=drawn))
    # List failed repeats, so that a configuration that sometimes fails does not look like one that never fails.
    without_curve += [
        WithoutCurve(name=record.run_id, reason="incomplete")
        for record in repeats
        if record.status.state != "completed"
    ]
    if baseline and {group.baseline for group in groups} != {True, False}:
        raise UsageError(
            "nothing to compare: a convergence curve takes a completed run with two evaluations or more",
            hint="leave out --baseline, or name other runs",
        )
    if not groups:
        return None
    return Convergence(
        curves=build_curves(groups, "quality"),
        without_curve=tuple(without_curve),
        differences=differences([group.runs[0].record for group in groups], case),
    )


def _require_comparable(chosen: Sequence[Record], baseline: Sequence[Record]) -> None:
    both = [*chosen, *baseline]
    require_comparable(both)
    require_same("kinds", both, hint="take a baseline of the same kind")
    shared = {record.run_id for record in chosen} & {record.run_id for record in baseline}
    if shared:
        raise UsageError(
            f"run {min(shared)} is named both as a run of the report and as its baseline",
            hint="name it once, as one of the two",
        )


def _changes(record: Record) -> Sequence[HyperparameterChange]:
    changes = record.hyperparameters.changes
    return () if isinstance(changes, Missing) else changes


def _long_changes(row: Row) -> list[str]:
    changes = row.fix_hp
    return [changes] if is_long(changes) else []


def _shortenings(record: Record) -> list[Shortening]:
    preset = None if record.case.preset == "full" else record.case.preset
    limits = record.limits
    if preset is None and not limits.shortened:
        return []
    budget = None if limits.budget_s is None else format_duration(limits.budget_s)
    return [Shortening(preset=preset, max_epochs=limits.max_epochs, max_steps=limits.max_steps, budget=budget)]


def _environment(rows: Sequence[Row], layout: int) -> dict[str, tuple[PerRows[Text], ...]]:
    def text(name: str) -> tuple[PerRows[Text], ...]:
        def value(row: Row) -> Text:
            fact = not_blank(getattr(row.record.environment, name))
            # The engine, which is all that can be detected, is no image and no version.
            return UNKNOWN if layout > 1 and name == "container" and fact in CONTAINER_ENGINES else fact

        return _share(rows, lambda row: [value(row)])

    def cores(row: Row) -> list[Text]:
        count = row.record.environment.cpu_cores
        return [count if isinstance(count, Missing) else str(count)]

    def memory(row: Row) -> list[Text]:
        size = gib(row.record.environment.memory_bytes)
        return [size if isinstance(size, Missing) else f"{size} GiB"]

    return {
        **{name: text(name) for name in (*_REQUIRED_FACTS, *_MORE_FACTS)},
        "card_short_name": _share(rows, lambda row: [card_short_name(row.record)]),
        "cpu_cores": _share(rows, cores),
        "memory": _share(rows, memory),
    }


def _implausible(rows: Sequence[Row]) -> tuple[PerRows[Implausibility], ...]:
    """Return the contradictions in the rows. Lint checks imported documents instead."""
    measured = [row for row in rows if row.record.kind != "imported"]
    too_fast = {id(record): [finding] for record, finding in check_scaling([row.record for row in measured])}
    return _share(measured, lambda row: (*check_with_case(row.record, row.case), *too_fast.get(id(row.record), ())))


def _missing_kinds(rows: Sequence[Row], environment: Mapping[str, Iterable[PerRows[Text]]]) -> frozenset[MissingKind]:
    cells = [
        cell
        for row in rows
        for cell in (row.card, row.fix_hp, *map(row.value, columns_of("report")), row.memory_total_bytes)
    ]
    facts = [fact.value for name in (*_REQUIRED_FACTS, "card_short_name") for fact in environment[name]]
    return frozenset(value.missing for value in (*cells, *facts) if isinstance(value, Missing))


def _share(rows: Sequence[Row], values: Callable[[Row], Iterable[T]]) -> tuple[PerRows[T], ...]:
    """Return the different values of the rows, each with the names of its rows."""
    found: dict[T, list[tuple[Row, TrackedValue[T]]]] = {}
    for row in rows:
        own = {each.computed: each for each in track_each(partial(values, row))}
        for value, tracked in own.items():
            found.setdefault(value, []).append((row, tracked))
    return tuple(
        PerRows(
            computed=value,
            sources=tuple(source for _, tracked in holders for source in tracked.sources),
            rows=() if len(holders) == len(rows) else tuple(row.name for row, _ in holders),
        )
        for value, holders in found.items()
    )
