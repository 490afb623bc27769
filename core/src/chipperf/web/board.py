"""Tables of comparable runs: one table for each case, dataset, kind of record and definition of metrics."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeVar

from chipperf.documents.document_identity import installed_cases
from chipperf.documents.format import in_unit, marker
from chipperf.languages import Phrase, phrase
from chipperf.records.columns import Column, columns_of, completed_value
from chipperf.records.convergence import Verdict, lower_is_better, run_verdict
from chipperf.records.schema import Missing, MissingKind, Record
from chipperf.report.curves import MINIMUM_POINTS, read_points
from chipperf.report.row import card_short_name, configuration_name, fix_hp, precision_name, row_label
from chipperf.report.tracing import record_digest
from chipperf.web.trend_inputs import RATES, Measured, measure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from chipperf.cases.base import Case

T = TypeVar("T")

VERDICTS: Mapping[Verdict, Phrase] = {
    "converged": phrase("converged"),
    "no_target": phrase("no target"),
    "below_target": phrase("below target"),
    "unknown": phrase("result not known"),
    "not_completed": phrase("not completed"),
}

STATES: Mapping[str, Phrase] = {
    "running": phrase("running"),
    "completed": phrase("completed"),
    "failed": phrase("failed", context="state"),
    "interrupted": phrase("interrupted"),
    "killed": phrase("killed"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PageCell:
    """One value on a page: its text or, if it is missing, its marker, kind and reason.

    ``field`` is its path in ``record.json``; ``sort`` is the sort key in the column, if it differs from the text.
    """

    text: Phrase | str
    field: str
    sort: float | None = None
    missing: MissingKind | None = None
    reason: str = ""


def cell(
    value: T | Missing, field: str, write: Callable[[T], object] = str, *, result_of: Record | None = None
) -> PageCell:
    """Return a value of the record's ``field`` as a cell. ``write`` returns its text, or a missing value to show.

    A result of a run that did not complete is shown as failed.
    """
    shown = completed_value(result_of, value) if result_of else value
    if shown is not value:
        value, field = shown, "status"
    written = value if isinstance(value, Missing) else write(value)
    if isinstance(written, Missing):
        return PageCell(text=marker(written), field=field, missing=written.missing, reason=written.reason)
    number = value if isinstance(value, (int, float)) and not isinstance(value, bool) else None
    return PageCell(text=written if isinstance(written, Phrase) else str(written), field=field, sort=number)


@dataclass(frozen=True, slots=True)
class Heading:
    """A column of a board: its name in the page's code, its title, and the field of most of its cells."""

    name: str
    title: Phrase | str
    field: str


_UNITS = {"s": " (s)", "bytes": " (GiB)"}
"""Texts after the names. Throughputs have their unit in the board's heading, and results have no unit."""


def _reported_headings() -> Iterator[Heading]:
    for column in columns_of("leaderboard"):
        title = column.title or f"{column.key}{_UNITS.get(column.unit, '')}"
        yield Heading(column.key, title, f"{column.field}.median" if column.is_windowed else column.field)
        if column.name == "quality":
            yield Heading("verdict", phrase("Verdict"), "metrics.quality")


COLUMNS = (
    Heading("vendor", phrase("Vendor"), "vendor.name"),
    Heading("device", phrase("Device"), "environment.row_label"),
    Heading("topology", phrase("Topology"), "topology"),
    Heading("precision", phrase("Precision"), "precision"),
    *_reported_headings(),
    Heading("fix_hp", "fix_hp", "hyperparameters.changes"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardKey:
    """The values that all runs of a board share, so that their numbers are comparable."""

    case: str
    case_version: str
    metric: str
    dataset: str
    fingerprint: str
    sample: bool
    kind: Literal["measured", "simulated", "imported"]
    metrics_definition: str
    metrics_version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """A row of a board. It is smaller than a record, because a site may have thousands of runs.

    Attributes:
        digest: SHA-256 of the record.
        page: Link to the run's page; ``None`` on that page itself.
        label: Device, topology and precision on one line; vendor, topology, precision and verdict are for filters.
        cells: One cell for each of :data:`COLUMNS`.
        shortened: True if the run did not have the case's full schedule.
        curve: Epoch and quality of every evaluation; empty if the run did not complete or has too few evaluations.
        throughputs: The throughputs of :data:`RATES`; ``None`` if a throughput cannot be shown.
        measured: What a trend needs of the run; ``None`` if it can be in none.
    """

    key: BoardKey
    run_id: str
    digest: str
    page: str | None
    label: str
    vendor: str
    topology: str
    precision: str
    verdict: Verdict
    cells: tuple[PageCell, ...]
    shortened: bool
    curve: tuple[tuple[float, float], ...]
    target: float | None
    throughputs: tuple[float | None, ...]
    measured: Measured | None

    @property
    def order(self) -> tuple[bool, bool, int, float]:
        """Return the sort key of the row in a board: converged full runs first, then the fastest."""
        fastest = max((rate for rate in self.throughputs if rate is not None), default=0.0)
        return self.verdict == "not_completed", self.shortened, list(VERDICTS).index(self.verdict), -fastest


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """A table of comparable runs, the best first, with the case's name and format of its quality.

    ``samples`` is the unit of the throughputs, ``omitted`` the number of runs that do not fit on the page.
    """

    key: BoardKey
    quality_column: str
    quality_as_percent: bool
    samples: Phrase
    rows: tuple[RunRow, ...]
    omitted: int

    @property
    def targets(self) -> tuple[float, ...]:
        """The distinct targets of the runs."""
        return tuple(dict.fromkeys(row.target for row in self.rows if row.target is not None))


def quality_as_percent(case: Case | None) -> bool:
    """Return whether a case writes its quality in percent."""
    return case is not None and case.report.quality_as_percent


def make_boards(rows: Iterable[RunRow], *, most_rows: int) -> tuple[Board, ...]:
    """Return the boards of runs, by case; those on the real dataset come first, and the worst rows are omitted."""
    groups: dict[BoardKey, list[RunRow]] = {}
    for row in rows:
        groups.setdefault(row.key, []).append(row)
    kinds = ("measured", "simulated", "imported")
    order = sorted(
        groups,
        key=lambda key: (key.case, key.sample, kinds.index(key.kind), key.case_version, key.dataset, key.fingerprint),
    )
    taken = _shares([len(groups[key]) for key in order], most_rows)
    return tuple(_board(key, groups[key], count) for key, count in zip(order, taken, strict=True))


def summarize(record: Record, *, digest: str | None = None) -> RunRow:
    """Return the row of a run without a link. ``digest`` is the SHA-256 of its file; by default it is computed."""
    completed, verdict = record.status.state == "completed", run_verdict(record)
    rates = [column.value(record) if completed else None for column in RATES]
    points = read_points(record, "quality").points if completed else ()
    target = record.case.target
    return RunRow(
        key=_board_key(record),
        run_id=record.run_id,
        digest=digest or record_digest(record),
        page=None,
        label=configuration_name(record),
        vendor=record.vendor.name,
        topology=record.topology.label,
        precision=record.precision.requested,
        verdict=verdict,
        cells=tuple(_cells(record, verdict)),
        shortened=record.limits.shortened or record.case.preset != "full",
        curve=tuple((point.epoch or 0.0, point.value) for point in points) if len(points) >= MINIMUM_POINTS else (),
        target=None if isinstance(target, Missing) else target,
        throughputs=tuple(None if isinstance(rate, Missing) else rate for rate in rates),
        measured=measure(record),
    )


def _board_key(record: Record) -> BoardKey:
    dataset = record.dataset
    return BoardKey(
        case=record.case.name,
        case_version=record.case.version,
        metric=record.case.metric,
        dataset=dataset.name if isinstance(dataset.version, Missing) else f"{dataset.name} {dataset.version}",
        fingerprint="" if isinstance(dataset.fingerprint, Missing) else dataset.fingerprint,
        sample=dataset.is_sample,
        kind=record.kind,
        metrics_definition=record.metrics_definition,
        metrics_version=record.metrics_version,
    )


def _shares(counts: Sequence[int], most: int) -> list[int]:
    """Return how many rows each board shows. Small boards show all rows, and large boards share the rest."""
    shares = [0] * len(counts)
    left = most
    for place, index in enumerate(sorted(range(len(counts)), key=counts.__getitem__)):
        shares[index] = min(counts[index], left // (len(counts) - place))
        left -= shares[index]
    return shares


def _board(key: BoardKey, rows: Sequence[RunRow], count: int) -> Board:
    case = installed_cases().get(key.case)
    return Board(
        key=key,
        quality_column=case.report.quality_column if case else key.metric,
        quality_as_percent=quality_as_percent(case),
        samples=phrase("%(samples)s per second", samples=case.report.sample_noun) if case else phrase("samples/s"),
        rows=tuple(sorted(rows, key=lambda row: row.order)[:count]),
        omitted=len(rows) - count,
    )


def _cells(record: Record, verdict: Verdict) -> Iterator[PageCell]:
    case, label = installed_cases().get(record.case.name), row_label(record)
    yield cell(record.vendor.name, "vendor.name")
    if isinstance(label, Missing):
        yield cell(card_short_name(record), "environment.card_short_name")
    else:
        yield cell(label, "environment.row_label")
    yield cell(record.topology.label, "topology")
    yield cell(precision_name(record), "precision")
    for column in columns_of("leaderboard"):
        yield _reported(record, column, verdict, as_percent=quality_as_percent(case))
        if column.name == "quality":
            yield PageCell(
                text=_verdict_text(record, verdict),
                field="status" if verdict == "not_completed" else "metrics.quality",
                sort=list(VERDICTS).index(verdict),
            )
    not_installed = Missing(missing="unknown", reason=f"case {record.case.name} is not installed here")
    yield cell(fix_hp(record, case) if case else not_installed, "hyperparameters.changes")


def _verdict_text(record: Record, verdict: Verdict) -> Phrase:
    if verdict == "not_completed":
        return STATES[record.status.state]
    missed = verdict == "below_target" and lower_is_better(record.case)
    return phrase("above target") if missed else VERDICTS[verdict]


def _reported(record: Record, column: Column, verdict: Verdict, *, as_percent: bool) -> PageCell:
    """Return the cell of a reported value. The peak of used memory is shown with the capacity."""
    path, value = column.find(record)
    lower = lower_is_better(record.case)

    def write(value: float) -> object:
        return in_unit(value, column.unit, as_percent=as_percent, round_up=lower, exact=record.kind == "imported")

    def of_total(value: float) -> Phrase:
        memory = record.metrics.memory
        capacity = memory if isinstance(memory, Missing) else memory.total_bytes
        used, total = (cell(size, "", write).text for size in (value, capacity))
        return Phrase("%(used)s/%(total)s", (("used", used), ("total", total)))

    shown = cell(value, path, of_total if column.unit == "bytes" else write, result_of=record)
    if column.name == "time_to_target" and verdict == "below_target":
        # The source of the value shows the reason, which contains result and target.
        return replace(shown, text=phrase("not reached"))
    return shown
