"""Rules on times, throughputs, results and their curves, and their consistency."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from chipperf.documents import cells, wording
from chipperf.documents.document_identity import installed_cases
from chipperf.documents.format import number as written
from chipperf.documents.markdown import Block, Place, Table
from chipperf.lint.configs import EPOCHS_KEYS, is_number
from chipperf.lint.declarations import says_below, sentences
from chipperf.lint.rule import LintedDocument, NotChecked, Problem, rule
from chipperf.records.columns import WINDOWED
from chipperf.records.files import open_regular
from chipperf.records.plausibility import Rate, in_order, rate

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping

    from chipperf.documents.case_document import DocumentRow

_SPREAD_COLUMNS: Final = 6
"""Columns of a rendered report's table of throughputs: row, metric, median, IQR, windows, totals."""

_LOST_SHARE: Final = 0.25
_LOST_FACTOR: Final = 4
_EPOCH_TOLERANCE: Final = 0.05
_CURVE: Final = re.compile(r"收敛|曲线|curve|convergence", re.IGNORECASE)
_STEPS: Final = re.compile(r"(?<![a-z])steps?(?![a-z])|步", re.IGNORECASE)
_EPOCHS: Final = re.compile(r"(?<![a-z])epochs?(?![a-z])|轮", re.IGNORECASE)
_REPEATS: Final = re.compile(r"seed|种子|\d\s*次|repeats?|\d\s+runs", re.IGNORECASE)
_CHANGES_UTILIZATION: Final = re.compile("flops|mpe|seq", re.IGNORECASE)
"""Settings that change how much is computed for each token, or the peak that it is compared with."""

_DATA_SUFFIXES: Final = (".csv", ".json", ".jsonl", ".tsv")


@rule(
    "L02",
    "throughput-order",
    why="a rate without evaluation cannot be lower than one with it: one of the numbers is wrong",
    fix="read the numbers from the log of the run again",
)
def throughputs_are_ordered(subject: LintedDocument) -> Iterator[Problem]:
    """``p_core`` is at least ``p_train``, which is at least ``p_whole``; time and utilization agree with them."""
    spreads = _spreads(subject)
    for row in subject.rows:
        for fast, slow in (("p_core", "p_train"), ("p_train", "p_whole")):
            upper, lower = _rate(row, fast, spreads), _rate(row, slow, spreads)
            if upper and lower and not in_order(upper, lower):
                yield Problem(row.cells[fast].place, f"{fast} {upper.value:g} is less than {slow} {lower.value:g}")
    yield from _lost_time(subject)
    yield from _utilization(subject)
    yield from subject.implausible("times", "throughputs", "order")


def _rate(row: DocumentRow, column: str, spreads: Mapping[tuple[str, str], Rate]) -> Rate | None:
    value = row.number(column)
    return None if value is None else spreads.get((column, row.known(column)), Rate(value=value))


def _spreads(subject: LintedDocument) -> Mapping[tuple[str, str], Rate]:
    """Return throughputs with the spread of their windows, by column and text, from the records and the evidence."""
    spreads = {}
    for record in subject.records:
        for column in WINDOWED:
            throughput = getattr(record.metrics, column)
            if measured := rate(throughput):
                # Reports since layout 2 have only the digits that the spread leaves, other documents have all.
                for spread in (None, getattr(throughput, "iqr", None)):
                    spreads[column, str(written(measured.value, spread=spread))] = measured
    for table in subject.document.markdown.blocks if subject.document.generated else ():
        if isinstance(table, Table) and len(table.header) == _SPREAD_COLUMNS and table.header[3].text == "IQR":
            for row in table.rows:
                texts = [cell.text for cell in row]
                values = [value for text in texts[2:] if (value := cells.number(text)) is not None]
                if len(texts) == len(values) + 2 == _SPREAD_COLUMNS:
                    median, iqr, _, totals = values
                    spreads[texts[1], texts[2]] = Rate(value=median, iqr=max(iqr, abs(totals - median)))
    return spreads


def _lost_time(subject: LintedDocument) -> Iterator[Problem]:
    shares = []
    for row in subject.rows:
        whole, train = row.number("p_whole"), row.number("p_train")
        if whole and train and whole <= train:
            shares.append((1 - whole / train, row.card_count, row.cells["p_whole"].place))
    for share, cards, place in shares:
        # More cards shorten training more than evaluation.
        least = min(other for other, count, _ in shares if count >= cards)
        if share > _LOST_SHARE and share > _LOST_FACTOR * max(least, 0.01):
            message = f"evaluation takes {share:.0%} of the time here and {least:.0%} in another row"
            yield Problem(place, message, severity="warning")


def _utilization(subject: LintedDocument) -> Iterator[Problem]:
    """Yield rows whose utilization per throughput is another than that of most rows of the card and the workload."""
    groups: dict[Hashable, list[tuple[float, float, DocumentRow]]] = defaultdict(list)
    for row in subject.rows:
        note = row.topology.note if row.topology else ""
        workload = tuple(part for part in (row.text("fix_hp") or "").split() if _CHANGES_UTILIZATION.search(part))
        tokens, mfu = _written(row, "tokens"), _written(row, "mfu")
        if tokens and mfu and tokens[0] > 0 and mfu[0] > 0:
            least, most = mfu[0] / tokens[1], mfu[1] / tokens[0]
            groups[row.section, row.card, note, row.precision, workload].append((least, most, row))
    for rows in groups.values():
        for index, (least, most, row) in enumerate(rows):
            apart = [other for low, high, other in rows if low > most or high < least]
            # Of two rows that contradict each other, either one may be wrong.
            if len(apart) * 2 > len(rows) or (len(rows) == 2 and apart and index):
                said = f"MFU {row.text('mfu')} at {row.text('tokens')} token/p/s"
                other = f"{apart[0].text('mfu')} at {apart[0].text('tokens')}"
                message = f"{said} is not in proportion to {other} in row {apart[0].label.text!r}"
                yield Problem(row.cells["mfu"].place, message, severity="warning")


def _written(row: DocumentRow, column: str) -> tuple[float, float] | None:
    """Return between which values a written number lies, rounded or cut off after its last digit."""
    text = row.known(column)
    value = cells.number(text.rstrip("%％ "))
    if value is None:
        return None
    unit = 10.0 ** -len(text.rstrip("%％ ").partition(".")[2])
    scale = 0.01 if value > 1 and column == "mfu" else 1
    return (value - unit) * scale, (value + unit) * scale


@rule(
    "L11",
    "implied-epochs",
    why="time and throughput show on how many samples the run trained, whatever the report says",
    fix="state the epochs that ran and why they are fewer, or correct time or throughput",
    evidence="the case's base values and the size of its dataset",
)
def implied_epochs_are_those_of_the_case(subject: LintedDocument) -> Iterator[Problem]:
    """Overall throughput times end-to-end time is at most the case's epochs, and no less unless the run converged."""
    subject.need_reference_dataset()
    base, samples = subject.need_base(), _samples_per_epoch(subject)
    implied = []
    for row in subject.rows:
        seconds, whole = row.number("e2e_time"), row.number("p_whole")
        configured = [config.value(base.read_keys(EPOCHS_KEYS)) for config in subject.configs_of(row)]
        epochs = [value for value in (*configured, base.value(EPOCHS_KEYS)) if is_number(value) and value > 0]
        if seconds and whole and epochs and not row.old_layout:
            implied.append((seconds * whole / samples, epochs, row))
    most = max((found for found, _, _ in implied), default=0.0)
    for found, epochs, row in implied:
        place = row.cells["e2e_time"].place
        said = f"e2e_time and p_whole imply {found:.1f}"
        if found > max(epochs) * (1 + _EPOCH_TOLERANCE):
            yield Problem(place, f"{said} epochs, {base.origin} has {epochs[-1]:g}")
        elif found < min(epochs) * (1 - _EPOCH_TOLERANCE):
            # A result that cannot be compared with the target may have reached it.
            converged = bool(row.known("quality")) and subject.meets_target(row) is not False
            if converged or subject.declares_schedule():
                continue
            other = f", another row {most:.1f}" if most > found * (1 + _EPOCH_TOLERANCE) else ""
            yield Problem(
                place, f"{said} of {min(epochs):g} epochs{other}, and neither convergence nor a change is stated"
            )
    yield from subject.implausible("epochs", "samples")


def _samples_per_epoch(subject: LintedDocument) -> int:
    """Return the size of the document's dataset, which is known if it is that of an installed case."""
    row = subject.document.general.get("dataset")
    named = wording.normal(row.value.text) if row else ""
    for case in [subject.case] if subject.case else installed_cases().values():
        reference = case.data.reference
        if case is subject.case or named in (wording.normal(reference.name), wording.normal(reference.title)):
            return reference.train_samples
    raise NotChecked(f"the number of samples of dataset {named!r} is not known")


@rule(
    "L12",
    "below-target",
    why="a reader mistakes the result for that of a converged run",
    fix="name the row that misses the target below the table, with its result and the target",
    evidence="a target beside the result, or the case's",
)
def results_below_target_say_so(subject: LintedDocument) -> Iterator[Problem]:
    """A result that misses the case's target is declared as such."""
    if all(row.target is None for row in subject.rows):
        subject.need_reference_dataset()
        subject.need_target()
    missing = [row for row in subject.rows if subject.meets_target(row) is False]
    asked = subject.asked_target()
    missed = []
    for row in missing:
        metric, goal, result = row.headers["quality"], subject.goal_of(row), row.quality
        stated = f"{asked.value:g} of {subject.need_base().origin}" if asked else f"{row.text('target')} beside it"
        if goal is not None and result is not None:
            missed.append((row, metric, goal, result, stated))
    missed += _further_results_missed(subject, missing)
    said = list(sentences(subject.document.markdown)) if missed else []
    for row, metric, goal, result, stated in missed:
        only_row = len({id(each[0]) for each in missed}) == 1
        lower = subject.lower_is_better(metric)
        if any(says_below(each, row.shape, metric, goal, result, only_row=only_row, lower=lower) for each in said):
            continue
        cell = row.cells["quality"]
        side = "above" if lower else "below"
        yield Problem(cell.place, f"{cell.text} is {side} the target {stated}, without a word")
    yield from subject.implausible("result")


def _further_results_missed(
    subject: LintedDocument, missing: list[DocumentRow]
) -> Iterator[tuple[DocumentRow, str, float, float, str]]:
    """Yield the rows whose second or later result misses its target, unless the first one misses its own."""
    for row in subject.rows if subject.base and subject.case is None else ():
        names, texts = (text.split("&&")[1:] for text in (row.headers.get("quality", ""), row.known("quality")))
        for name, text in zip(names, texts, strict=True) if len(names) == len(texts) and row not in missing else ():
            found = subject.base.targets_called(name) if subject.base else []
            is_fraction = wording.is_fraction(wording.quality_kind(name))
            result = cells.quality(text.strip(), is_fraction=is_fraction)
            if len(found) == 1 and result is not None:
                target = found[0].value / 100 if is_fraction and found[0].value > 1 else found[0].value
                sign = -1 if wording.lower_is_better(name) else 1
                if result * sign < target * sign:
                    stated = f"{found[0].value:g} of {found[0].key} in the base configuration"
                    yield row, name.strip(), target, result, stated


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
    for address, place, section in _figures(subject):
        axis = _axis_of_data(_data_of(subject, address, ".csv"))
        steps, epochs = _STEPS.search(section), _EPOCHS.search(section)
        unit = "step" if steps and not epochs else "epoch" if epochs and not steps else None
        if axis and unit and axis != unit:
            yield Problem(place, f"the text counts {unit}s, the data of {address} {axis}s")
        elif axis is None and unit == "step" and subject.case:
            every = subject.case.base.evaluate_every_epochs
            measured = "after every epoch" if every == 1 else f"every {every} epochs"
            metric = subject.case.report.quality_column
            yield Problem(place, f"the text counts steps; {subject.case.name} measures {metric} {measured}")


def _axis_of_data(path: str) -> str | None:
    try:
        with open_regular(Path(path)) as file:
            first = file.readline(1000).decode().casefold().partition(",")[0]
    except (OSError, ValueError):
        return None
    return "epoch" if "epoch" in first else "step" if "step" in first else None


def _data_of(subject: LintedDocument, address: str, suffix: str) -> str:
    """Return the path of a figure's data, which may not exist or be no possible path."""
    return os.path.splitext(subject.path.parent / unquote(address.partition("?")[0]))[0] + suffix


def _figures(subject: LintedDocument) -> list[tuple[str, Place, str]]:
    """Return address, place and text of the section of each image in a text or section on convergence."""
    if subject.document.generated:
        raise NotChecked("a rendered report has no figures but those that chipperf draws from records")
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
                    figures.append((link.target, block.place, text))
    if not figures:
        raise NotChecked("there is no figure of a curve")
    return figures


@rule(
    "L22",
    "curve-evidence",
    severity="warning",
    why="a picture of one run does not show its numbers or how much runs differ",
    fix="put the points beside the picture as CSV, and say how many seeds it shows",
    evidence="a figure of a curve",
    off_because="vendors' rules ask for a picture only",
)
def curves_come_with_data(subject: LintedDocument) -> Iterator[Problem]:
    """A figure of convergence comes with its points and says how many runs it shows."""
    linked = any(each.target.endswith(_DATA_SUFFIXES) for each in subject.document.markdown.links)
    for address, place, section in _figures(subject):
        beside = any(os.path.isfile(_data_of(subject, address, suffix)) for suffix in _DATA_SUFFIXES)
        lacking = [] if linked or beside else ["its points"]
        if not _REPEATS.search(section):
            lacking.append("the number of seeds")
        if lacking:
            yield Problem(place, f"figure {address!r} comes without {' and '.join(lacking)}")
