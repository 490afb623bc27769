"""Tables of comparable runs: one table for each case, dataset, kind of record and definition of metrics."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from chipperf.cases.recorded_settings import check_with_case, missing_settings
from chipperf.documents.document_identity import installed_cases
from chipperf.documents.format import decimals_of, in_unit, marker, number
from chipperf.languages import Phrase, Stored, phrase
from chipperf.records.columns import Column, columns_of, completed_value
from chipperf.records.convergence import Verdict, lower_is_better, run_verdict
from chipperf.records.rows import aware
from chipperf.records.schema import UNKNOWN_NAME, Missing, MissingKind, Record
from chipperf.report.comparability import FACTS, has_read_dataset
from chipperf.report.curves import MINIMUM_POINTS, read_points
from chipperf.report.row import card_short_name, configuration_name, fix_hp, precision_name, row_label
from chipperf.report.tracing import record_digest
from chipperf.verify.evidence import examine_evidence
from chipperf.web.trend_inputs import RATES, Measured, measure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from chipperf.cases.base import Case
    from chipperf.records.rows import Value
    from chipperf.records.store import StoredRecord

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


CONDITIONS: Mapping[str, Phrase] = {
    "parts of cards": phrase("part of the card"),
    "requested precisions": phrase("requested precision"),
    "effective precisions": phrase("effective precision"),
    "presets": phrase("preset"),
    "lengths": phrase("length"),
    "evaluated samples": phrase("evaluated samples"),
}
"""Facts that runs of one board must share for a rank among them or a ratio, and their names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PageCell:
    """One value on a page: its text or, if it is missing, its marker, kind and reason.

    ``field`` is its path in ``record.json``; ``sort`` is the sort key in the column, if it differs from the text.
    ``decimals`` is how many decimals the number in the text deserves; ``None`` if the text is to stay as it is.
    """

    text: Phrase | str
    field: str
    sort: float | None = None
    decimals: int | None = None
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
        text = marker(written, reason_as=Stored)
        return PageCell(text=text, field=field, missing=written.missing, reason=written.reason)
    number = value if isinstance(value, (int, float)) and not isinstance(value, bool) else None
    return PageCell(text=written if isinstance(written, Phrase) else str(written), field=field, sort=number)


@dataclass(frozen=True, slots=True)
class Heading:
    """A column of a board: its name in the page's code, its title, and the field of most of its cells.

    Columns of numbers are aligned at the right, and not told of runs that did not complete.
    """

    name: str
    title: Phrase | str
    field: str
    is_number: bool = False


_UNITS = {"s": " (s)", "bytes": " (GiB)"}
"""Texts after the names. Throughputs have their unit in the board's heading, and results have no unit."""


def _reported_headings() -> Iterator[Heading]:
    for column in columns_of("leaderboard"):
        title = column.title or f"{column.key}{_UNITS.get(column.unit, '')}"
        yield Heading(column.key, title, f"{column.field}.median" if column.is_windowed else column.field, True)
        if column.is_headline:
            yield Heading(_PER_CARD, phrase("%(rate)s per card", rate=column.key), column.field, True)
        if column.name == "quality":
            yield Heading("verdict", phrase("Verdict"), "metrics.quality")


_PER_CARD = "per_card"

COLUMNS = (
    Heading("vendor", phrase("Vendor"), "vendor.name"),
    Heading("device", phrase("Device"), "environment.row_label"),
    Heading("topology", phrase("Topology"), "topology"),
    Heading("precision", phrase("Precision"), "precision"),
    *_reported_headings(),
    Heading("created", phrase("Date (UTC)"), "created_at"),
    Heading("fix_hp", "fix_hp", "hyperparameters.changes"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardKey:
    """The values that all runs of a board share, so that their numbers are comparable.

    ``fingerprint`` is empty if it is unknown, and ``None`` of a run that failed before it read its dataset.
    """

    case: str
    case_version: str
    metric: str
    dataset: str
    fingerprint: str | None
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
        cells: One cell for each of :data:`COLUMNS` or, in a board, of its columns.
        conditions: The run's texts for :data:`CONDITIONS`.
        part: The part of a card that the run had; empty if it had whole cards.
        shortened: True if the run did not have the case's full schedule.
        implausible: Contradictions in a completed run, or with the files of the run. Its cells are shown, but it has
            no rank and nothing of what follows, and is no baseline.
        lacks_evidence: True for a measured run that completed, if its events are not beside the record. It has no rank.
        withheld: The fields whose values the record withholds; no check sees them.
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
    conditions: tuple[str, ...]
    part: str
    shortened: bool
    implausible: tuple[Phrase, ...]
    lacks_evidence: bool
    withheld: tuple[str, ...]
    curve: tuple[tuple[float, float], ...]
    target: float | None
    throughputs: tuple[float | None, ...]
    measured: Measured | None

    @property
    def order(self) -> tuple[bool, bool, bool, bool, int, float]:
        """Return the sort key of the row in a board: plausible, with evidence, converged full runs, then fastest."""
        fastest = max((rate for rate in self.throughputs if rate is not None), default=0.0)
        place = list(VERDICTS).index(self.verdict)
        doubts = self.verdict == "not_completed", bool(self.implausible), self.lacks_evidence
        return *doubts, self.shortened, place, -fastest


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """A table of comparable runs, the best first, with the case's name and format of its quality.

    Attributes:
        samples: Unit of the throughputs.
        columns: The headings of the cells; those of which no run has a value are ``blank``.
        ranks: For each row its rank by compute throughput and the number of runs that have one, among the plausible
            full runs with evidence that converged on as many cards under the same :data:`CONDITIONS`; ``None`` for all
            others.
        omitted: The number of runs that do not fit on the page.
        unchecked: True if the case is not installed in the runs' version, so that nothing confirms their settings and
            dataset.
    """

    key: BoardKey
    quality_column: str
    quality_as_percent: bool
    samples: Phrase
    columns: tuple[Heading, ...]
    blank: tuple[Heading, ...]
    rows: tuple[RunRow, ...]
    ranks: tuple[tuple[int, int] | None, ...]
    omitted: int
    unchecked: bool

    @property
    def is_ranked(self) -> bool:
        """True if a run has a rank among several."""
        return any(rank is not None and rank[1] > 1 for rank in self.ranks)

    @property
    def targets(self) -> tuple[float, ...]:
        """The distinct targets of the runs."""
        return tuple(dict.fromkeys(row.target for row in self.rows if row.target is not None))


def quality_as_percent(case: Case | None) -> bool:
    """Return whether a case writes its quality in percent."""
    return case is not None and case.report.quality_as_percent


def mark_doubles(rows: Iterable[RunRow]) -> list[RunRow]:
    """Return the rows of different records; of completed runs with the same id, all but one with evidence are marked.

    No run writes two records that differ, so at most one is as it was written. If only one has evidence that does not
    contradict it, that one stays as it is. A copy from which values are withheld differs, and says so; each import of a
    document writes records of its own.
    """
    rows = list(rows)
    by_run: dict[str, dict[str, RunRow]] = {}
    for row in rows:
        if row.verdict != "not_completed" and not row.withheld and row.key.kind != "imported":
            by_run.setdefault(row.run_id, {})[row.digest] = row
    marked = {}
    for doubles in by_run.values():
        credible = [row.digest for row in doubles.values() if not (row.implausible or row.lacks_evidence)]
        for row in doubles.values() if len(doubles) > 1 else ():
            if credible != [row.digest]:
                finding = phrase("another record of run %(run)s has other content", run=row.run_id)
                none: tuple[None, ...] = (None,) * len(row.throughputs)
                marked[row.digest] = replace(
                    row, implausible=(*row.implausible, finding), throughputs=none, curve=(), measured=None
                )
    return [marked.get(row.digest, row) for row in rows]


def make_boards(rows: Iterable[RunRow], *, most_rows: int) -> tuple[Board, ...]:
    """Return the boards of runs, by case; those on the real dataset come first, and the worst rows are omitted."""
    groups: dict[BoardKey, list[RunRow]] = {}
    for row in rows:
        groups.setdefault(row.key, []).append(row)
    for unread in [key for key in groups if key.fingerprint is None]:
        alike = [key for key in groups if key.fingerprint is not None and _may_be_of(unread, key)]
        if len(alike) == 1:
            groups[alike[0]] += groups.pop(unread)
    kinds = ("measured", "simulated", "imported")

    def place(key: BoardKey) -> tuple[Any, ...]:
        is_unread = key.fingerprint is None
        return key.case, is_unread, key.sample, kinds.index(key.kind), key.case_version, key.dataset, key.fingerprint

    order = sorted(groups, key=place)
    taken = _shares([len(groups[key]) for key in order], most_rows)
    return tuple(_board(key, groups[key], count) for key, count in zip(order, taken, strict=True))


def summarize_stored(stored: StoredRecord) -> RunRow:
    """Return the row of a run without a link, compared with the files of the run beside its record."""
    return summarize(stored.record, stored.file.parent, digest=stored.sha256)


def doubts_of(row: RunRow) -> dict[str, Value]:
    """Return what speaks against a run's record, as values of its row in a table of values."""
    return {"implausible": "; ".join(map(str, row.implausible)) or None, "lacks_evidence": row.lacks_evidence}


def summarize(record: Record, directory: Path | None = None, *, digest: str | None = None) -> RunRow:
    """Return the row of a run without a link.

    Args:
        directory: Where the run's events, telemetry and logs are, with which the record is compared; ``None`` for a
            record without such files.
        digest: SHA-256 of the record's file; by default it is computed.
    """
    verdict = run_verdict(record)
    case = installed_cases().get(record.case.name)
    findings = tuple(finding.text for finding in check_with_case(record, case))
    if absent := missing_settings(record, case):
        findings += (absent,)
    examined = examine_evidence(record, directory)
    findings += tuple(phrase("evidence: %(finding)s", finding=text) for text in examined.contradictions)
    # What is not in a row cannot become a rank, a bar, a curve or a step of a trend.
    is_shown = record.status.state == "completed" and not findings
    rates = [column.value(record) if is_shown else None for column in RATES]
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
        # The page's script parts them at line breaks.
        conditions=tuple(" ".join(FACTS[fact](record).split()) for fact in CONDITIONS),
        part=", ".join(sorted({card.part for card in record.environment.cards if card.part})),
        shortened=record.limits.shortened or record.case.preset != "full",
        implausible=findings,
        lacks_evidence=examined.lacks_evidence,
        withheld=tuple(each.field.removeprefix("$.") for each in record.withheld),
        curve=curve_of(record) if is_shown else (),
        target=None if isinstance(target, Missing) else target,
        throughputs=tuple(None if isinstance(rate, Missing) else rate for rate in rates),
        measured=measure(record) if is_shown else None,
    )


def curve_of(record: Record) -> tuple[tuple[float, float], ...]:
    """Return epoch and quality of every evaluation of a run; empty if there are too few for a curve."""
    points = read_points(record, "quality").points
    return tuple((point.epoch or 0.0, point.value) for point in points) if len(points) >= MINIMUM_POINTS else ()


def _may_be_of(unread: BoardKey, key: BoardKey) -> bool:
    """Return whether runs that did not read their dataset may be of a board: they name its dataset or none."""
    names_it = unread.dataset in (UNKNOWN_NAME, key.dataset)
    return names_it and unread == replace(key, dataset=unread.dataset, sample=unread.sample, fingerprint=None)


def _board_key(record: Record) -> BoardKey:
    dataset = record.dataset
    name = dataset.name if isinstance(dataset.version, Missing) else f"{dataset.name} {dataset.version}"
    fingerprint: str | None = "" if isinstance(dataset.fingerprint, Missing) else dataset.fingerprint
    if not has_read_dataset(record):
        # Without a version, the name may be that of a directory.
        name, fingerprint = UNKNOWN_NAME if isinstance(dataset.version, Missing) else name, None
    return BoardKey(
        case=record.case.name,
        case_version=record.case.version,
        metric=record.case.metric,
        dataset=name,
        fingerprint=fingerprint,
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
    rows = sorted(rows, key=lambda row: row.order)
    ranks = _ranks(rows)
    shown = rows[:count]
    columns = [_even([row.cells[place] for row in shown]) for place in range(len(COLUMNS))]
    # Of a run that did not complete, no cell says whether the others have a value.
    told = [row.verdict != "not_completed" for row in shown]
    blank = [
        heading.is_number and all(cell.missing in _SILENT for cell, tells in zip(column, told, strict=True) if tells)
        for heading, column in zip(COLUMNS, columns, strict=True)
    ]
    kept = [column for column, is_blank in zip(columns, blank, strict=True) if not is_blank]
    return Board(
        key=key,
        quality_column=case.report.quality_column if case else key.metric,
        quality_as_percent=quality_as_percent(case),
        samples=phrase("%(samples)s per second", samples=case.report.sample_noun) if case else phrase("samples/s"),
        columns=tuple(heading for heading, is_blank in zip(COLUMNS, blank, strict=True) if not is_blank),
        blank=tuple(heading for heading, is_blank in zip(COLUMNS, blank, strict=True) if is_blank),
        rows=tuple(replace(row, cells=cells) for row, cells in zip(shown, zip(*kept, strict=True), strict=True)),
        ranks=tuple(ranks.get(row.digest) for row in shown),
        omitted=len(rows) - count,
        unchecked=key.kind != "imported" and (case is None or case.version != key.case_version),
    )


_SILENT = ("unknown", "not_run", "not_applicable")
"""Kinds of missing values that say nothing of the run: a column of them is left out."""


def _even(cells: Sequence[PageCell]) -> Sequence[PageCell]:
    """Return the cells of a column with equal decimals: no more than each deserves, but three digits of the least."""
    values = [(abs(cell.sort), cell.decimals) for cell in cells if cell.sort is not None and cell.decimals is not None]
    if not values:
        return cells
    least = min((value for value, _ in values if value), default=1.0)
    decimals = max(min(deserved for _, deserved in values), decimals_of(least) - 2)
    return [cell if cell.decimals is None else replace(cell, text=f"{cell.sort:.{decimals}f}") for cell in cells]


def _ranks(rows: Sequence[RunRow]) -> Mapping[str, tuple[int, int]]:
    """Return the rank of each ranked run, by its digest, with the number of runs that it is one of."""
    headline = next(place for place, each in enumerate(RATES) if each.is_headline)
    column = next(place for place, heading in enumerate(COLUMNS) if heading.name == RATES[headline].key)
    ranked = [
        # Digits that the page withholds, because they are below the spread, decide nothing.
        (
            row.conditions,
            row.topology,
            -(rate if (digits := row.cells[column].decimals) is None else round(rate, digits)),
            row.digest,
        )
        for row in rows
        if row.verdict == "converged"
        and not (row.shortened or row.lacks_evidence)
        and (rate := row.throughputs[headline]) is not None
    ]
    found = {}
    for _, group in groupby(sorted(ranked), key=lambda each: each[:2]):
        rates = [(rate, digest) for _, _, rate, digest in group]
        # Equal rates share the better rank.
        first: dict[float, int] = {}
        for place, (rate, digest) in enumerate(rates, start=1):
            found[digest] = first.setdefault(rate, place), len(rates)
    return found


def _cells(record: Record, verdict: Verdict) -> Iterator[PageCell]:
    case, label = installed_cases().get(record.case.name), row_label(record)
    yield cell(record.vendor.name, "vendor.name")
    if isinstance(label, Missing):
        name = card_short_name(record)
        # The link to the run's page needs a text that says which run it is.
        yield cell(record.run_id, "run_id") if isinstance(name, Missing) else cell(name, "environment.card_short_name")
    else:
        yield cell(label, "environment.row_label")
    yield cell(record.topology.label, "topology")
    yield cell(precision_name(record), "precision")
    for column in columns_of("leaderboard"):
        yield _reported(record, column, verdict, as_percent=quality_as_percent(case))
        if column.is_headline:
            yield _per_card(record, column)
        if column.name == "quality":
            yield PageCell(
                text=_verdict_text(record, verdict),
                field="status" if verdict == "not_completed" else "metrics.quality",
                sort=list(VERDICTS).index(verdict),
            )
    created = aware(record.created_at)
    yield PageCell(text=f"{created:%Y-%m-%d}", field="created_at", sort=created.timestamp())
    not_installed = Missing(missing="unknown", reason=f"case {record.case.name} is not installed here")
    yield cell(fix_hp(record, case) if case else not_installed, "hyperparameters.changes")


def _verdict_text(record: Record, verdict: Verdict) -> Phrase:
    if verdict == "not_completed":
        state, failure = STATES[record.status.state], record.status.failure
        if failure is None or failure.failure_class == record.status.state:
            return state
        return phrase("%(marker)s (%(reason)s)", marker=state, reason=failure.failure_class)
    missed = verdict == "below_target" and lower_is_better(record.case)
    return phrase("above target") if missed else VERDICTS[verdict]


def _reported(record: Record, column: Column, verdict: Verdict, *, as_percent: bool) -> PageCell:
    """Return the cell of a reported value. The peak of used memory is shown with the capacity."""
    path, value = column.find(record)
    lower, exact = lower_is_better(record.case), record.kind == "imported"

    def write(value: float) -> object:
        return in_unit(value, column.unit, as_percent=as_percent, round_up=lower, exact=exact, even=True)

    def of_total(value: float) -> Phrase:
        memory = record.metrics.memory
        capacity = memory if isinstance(memory, Missing) else memory.total_bytes
        used, total = (cell(size, "", write).text for size in (value, capacity))
        return Phrase("%(used)s/%(total)s", (("used", used), ("total", total)))

    shown = cell(value, path, of_total if column.unit == "bytes" else write, result_of=record)
    if shown.sort is not None and column.unit in ("samples/s", "s", "J/sample") and not exact:
        shown = replace(shown, decimals=decimals_of(shown.sort, column.spread(record)))
    if column.name == "time_to_target" and verdict == "below_target":
        # The source of the value shows the reason, which contains result and target.
        return replace(shown, text=phrase("not reached"))
    return shown


def _per_card(record: Record, column: Column) -> PageCell:
    """Return the cell of a throughput per card, or per part of one."""
    value, cards, spread = column.value(record), record.topology.world_size, column.spread(record)
    share = value if isinstance(value, Missing) else value / cards
    shown = cell(share, column.field, number, result_of=record)
    if shown.sort is None:
        return shown
    decimals = decimals_of(shown.sort, spread / cards if spread else None)
    if record.kind == "imported":
        # No more of them than the document has.
        decimals = min(decimals, len(str(number(value, exact=True)).partition(".")[2]))
    return replace(shown, decimals=decimals)
