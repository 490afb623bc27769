"""Rules on times, throughputs and results, and their consistency."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from chipperf.documents import cells
from chipperf.documents.format import number as written
from chipperf.documents.markdown import Block, Table
from chipperf.lint.linted_document import implausible, number, quality
from chipperf.lint.problem import NotChecked, Problem
from chipperf.lint.rule import rule
from chipperf.records.columns import WINDOWED
from chipperf.records.plausibility import Rate, in_order, rate

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from chipperf.documents.case_document import DocumentRow
    from chipperf.documents.markdown import Place
    from chipperf.lint.linted_document import LintedDocument

_SPREAD_COLUMNS: Final = 6
"""Columns of a rendered report's table of throughputs: row, metric, median, IQR, windows, totals."""

_LOST_SHARE: Final = 0.25
_LOST_FACTOR: Final = 4
_EPOCH_TOLERANCE: Final = 0.05
_BELOW: Final = re.compile(
    r"低于目标|未达到|未达标|未收敛|没有收敛|没有达到|below (?:the )?target|not converged|did not converge|not reach",
    re.IGNORECASE,
)
_CURVE: Final = re.compile(r"收敛|曲线|curve|convergence", re.IGNORECASE)
_STEPS: Final = re.compile(r"(?<![a-z])steps?(?![a-z])|步", re.IGNORECASE)
_EPOCHS: Final = re.compile(r"(?<![a-z])epochs?(?![a-z])|轮", re.IGNORECASE)
_REPEATS: Final = re.compile(r"seed|种子|\d\s*次|repeats?|\d\s+runs", re.IGNORECASE)
_DATA_SUFFIXES: Final = (".csv", ".json", ".jsonl", ".tsv")


@rule(
    "L02",
    "throughput-order",
    why="what leaves out evaluation cannot be slower than what includes it: one of the numbers is wrong",
    fix="read the numbers from the run's log again",
)
def throughputs_are_ordered(subject: LintedDocument) -> Iterator[Problem]:
    """``p_core`` is at least ``p_train``, that at least ``p_whole``, and training is part of the end-to-end time."""
    spreads = _spreads(subject)
    for row in subject.rows:
        for fast, slow in (("p_core", "p_train"), ("p_train", "p_whole")):
            upper, lower = _rate(row, fast, spreads), _rate(row, slow, spreads)
            if upper and lower and not in_order(upper, lower):
                yield Problem(
                    place=row.cells[fast].place,
                    message=f"{fast} {upper.value:g} is less than {slow} {lower.value:g}",
                )
    yield from _lost_time(subject)
    yield from implausible(subject, "times", "throughputs")


def _rate(row: DocumentRow, column: str, spreads: Mapping[tuple[str, str], Rate]) -> Rate | None:
    value = number(row, column)
    return None if value is None else spreads.get((column, row.text(column) or ""), Rate(value=value))


def _spreads(subject: LintedDocument) -> Mapping[tuple[str, str], Rate]:
    """Return throughputs with the spread of their windows, by column and text, from the records and the evidence."""
    spreads = {}
    for record in subject.records:
        for column in WINDOWED:
            measured = rate(getattr(record.metrics, column))
            if measured:
                spreads[column, str(written(measured.value))] = measured
    tables = subject.document.markdown.blocks if subject.document.generated else ()
    for table in tables:
        if isinstance(table, Table) and len(table.header) == _SPREAD_COLUMNS and table.header[3].text == "IQR":
            for row in table.rows:
                texts = [cell.text for cell in row]
                values = [cells.number(text) for text in texts[2:]]
                if len(values) == _SPREAD_COLUMNS - 2 and None not in values:
                    median, iqr, _, totals = (value or 0.0 for value in values)
                    spreads[texts[1], texts[2]] = Rate(value=median, iqr=max(iqr, abs(totals - median)))
    return spreads


def _lost_time(subject: LintedDocument) -> Iterator[Problem]:
    shares = []
    for row in subject.rows:
        whole, train = number(row, "p_whole"), number(row, "p_train")
        if whole and train and whole <= train:
            shares.append((1 - whole / train, row))
    least = min((share for share, _ in shares), default=0)
    for share, row in shares:
        if share > _LOST_SHARE and share > _LOST_FACTOR * max(least, 0.01):
            yield Problem(
                place=row.cells["p_whole"].place,
                message=f"evaluation takes {share:.0%} of the time here and {least:.0%} in another row",
                severity="warning",
            )


@rule(
    "L11",
    "implied-epochs",
    why="time and throughput tell how many samples were trained on, whatever the report says",
    fix="state the epochs that ran and why they are fewer, or correct time or throughput",
    evidence="the case and its reference dataset",
)
def implied_epochs_are_those_of_the_case(subject: LintedDocument) -> Iterator[Problem]:
    """End-to-end time times overall throughput is no more than the case's epochs, and no less unless it converged."""
    case = subject.need_reference_dataset()
    samples = case.data.reference.train_samples
    implied = []
    for row in subject.rows:
        seconds, rate = number(row, "e2e_time"), number(row, "p_whole")
        if seconds and rate and not row.old_layout:
            implied.append((seconds * rate / samples, row))
    most = max((epochs for epochs, _ in implied), default=0.0)
    for epochs, row in implied:
        place = row.cells["e2e_time"].place
        if epochs > case.base.epochs * (1 + _EPOCH_TOLERANCE):
            yield Problem(
                place=place,
                message=f"e2e_time and p_whole imply {epochs:.1f} epochs, {case.name} has {case.base.epochs}",
            )
        elif epochs < case.base.epochs * (1 - _EPOCH_TOLERANCE):
            result = quality(row)
            if subject.declares_changes() or (result is not None and result >= case.base.target):
                continue
            other = f", another row {most:.1f}" if most > epochs * (1 + _EPOCH_TOLERANCE) else ""
            yield Problem(
                place=place,
                message=f"e2e_time and p_whole imply {epochs:.1f} of {case.base.epochs} epochs{other}, and neither "
                "convergence nor a change is stated",
            )
    yield from implausible(subject, "epochs", "samples")


@rule(
    "L12",
    "below-target",
    why="a reader takes a result for a converged run",
    fix="say below the table that the result is below the target, and the target",
    evidence="the case and its reference dataset",
)
def results_below_target_say_so(subject: LintedDocument) -> Iterator[Problem]:
    """A result below the case's target is declared as such."""
    case = subject.need_reference_dataset()
    results = [(row, value) for row in subject.rows if (value := quality(row)) is not None]
    lines = [line for line in subject.document.markdown.lines if _BELOW.search(line)]
    for row, value in results:
        if value >= case.base.target:
            continue
        shape = row.topology.shape if row.topology else ""
        if any(len(results) == 1 or shape in line for line in lines):
            continue
        text = row.text("quality")
        yield Problem(
            place=row.cells["quality"].place,
            message=f"{text} is below the target {case.base.target:g} of {case.name} {case.version}, without a word",
        )
    yield from implausible(subject, "result")


@rule(
    "L21",
    "curve-unit",
    severity="warning",
    why="15 steps and 15 epochs are not the same training",
    fix="write the unit of the figure's axis in the text",
    evidence="a figure of a curve",
)
def curve_and_text_have_one_unit(subject: LintedDocument) -> Iterator[Problem]:
    """The text counts a curve's progress in the unit in which its results are measured."""
    for figure in _figures(subject):
        axis = _axis_of_data(subject.path.parent / figure.address)
        steps, epochs = _STEPS.search(figure.section), _EPOCHS.search(figure.section)
        unit = "step" if steps and not epochs else "epoch" if epochs and not steps else None
        if axis and unit and axis != unit:
            yield Problem(place=figure.place, message=f"the text counts {unit}s, the data of {figure.address} {axis}s")
        elif axis is None and unit == "step" and subject.case:
            every = subject.case.base.evaluate_every_epochs
            yield Problem(
                place=figure.place,
                message=f"the text counts steps; {subject.case.name} measures {subject.case.report.quality_column} "
                + ("after every epoch" if every == 1 else f"every {every} epochs"),
            )


def _axis_of_data(figure: Path) -> str | None:
    """Return the unit of the first column of the CSV file next to a figure."""
    try:
        with figure.with_suffix(".csv").open(encoding="utf-8") as file:
            header = file.readline(1000).casefold()
    except (OSError, ValueError):
        return None
    first = header.partition(",")[0]
    return "epoch" if "epoch" in first else "step" if "step" in first else None


@dataclass(frozen=True, slots=True)
class _Figure:
    """An image of a curve: its address, its place, and the text of its section."""

    address: str
    place: Place
    section: str


def _figures(subject: LintedDocument) -> list[_Figure]:
    """Return each image in a text or section on convergence.

    Raises:
        NotChecked: There is no image, or chipperf drew the curves from their records.
    """
    if subject.document.generated:
        raise NotChecked("chipperf drew the curves from their records")
    sections: list[list[Block]] = [[]]
    for block in subject.document.markdown.blocks:
        if isinstance(block, Block):
            if block.kind == "heading":
                sections.append([])
            sections[-1].append(block)
    figures = []
    for blocks in sections:
        text = " ".join(block.text for block in blocks)
        for block in blocks if _CURVE.search(text) else ():
            for link in block.links:
                if link.is_image and "://" not in link.target:
                    figures.append(_Figure(link.target, block.place, text))
    if not figures:
        raise NotChecked("there is no figure of a curve")
    return figures


@rule(
    "L22",
    "curve-evidence",
    severity="warning",
    why="a picture of one run shows neither its numbers nor how much runs differ",
    fix="put the points beside the picture as CSV, and say how many seeds it shows",
    evidence="a figure of a curve",
)
def curves_come_with_data(subject: LintedDocument) -> Iterator[Problem]:
    """A figure of convergence comes with its points and says how many runs it shows."""
    for figure in _figures(subject):
        picture = subject.path.parent / figure.address
        linked = any(each.target.endswith(_DATA_SUFFIXES) for each in subject.document.markdown.links)
        beside = any(_exists(picture, suffix) for suffix in _DATA_SUFFIXES)
        lacking = [] if linked or beside else ["its points"]
        if not _REPEATS.search(figure.section):
            lacking.append("the number of seeds")
        if lacking:
            yield Problem(
                place=figure.place, message=f"figure {figure.address!r} comes without {' and '.join(lacking)}"
            )


def _exists(picture: Path, suffix: str) -> bool:
    try:
        return picture.with_suffix(suffix).is_file()
    except (OSError, ValueError):
        return False
