"""Rules on topology: the machines and cards of rows, and the growth of throughput with them."""

from __future__ import annotations

import re
from itertools import combinations
from typing import TYPE_CHECKING, Final

from chipperf.lint.linted_document import hyperparameters, implausible, number, precision_and_batch, quality
from chipperf.lint.problem import Problem
from chipperf.lint.rule import rule
from chipperf.records.columns import THROUGHPUTS
from chipperf.records.scaling import MAX_EFFICIENCY, efficiency

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chipperf.documents.case_document import DocumentRow
    from chipperf.lint.linted_document import LintedDocument

_MAX_ROWS: Final = 100
"""Maximum number of rows to compare with each other. A real report has a dozen."""

_SLACK: Final = 1.05


@rule(
    "L05",
    "row-topology",
    why="it is not clear on how many cards the row was measured",
    fix="let words and brackets say the same",
)
def words_match_the_topology(subject: LintedDocument) -> Iterator[Problem]:
    """A row's words and its topology in brackets say the same."""
    for row in subject.rows:
        topology = row.topology
        if topology is None:
            yield Problem(place=row.label.place, message=f"row {row.label.text!r} has no topology such as 1x8")
        elif topology.words and topology.words != (topology.nnodes, topology.nproc_per_node):
            machines, cards = topology.words
            # Some reports state the number of cards of all machines.
            if topology.nnodes == machines and cards == topology.cards:
                continue
            yield Problem(
                place=row.label.place,
                message=f"{topology.phrase!r} is {machines} machines with {cards} cards, in brackets stands "
                f"{topology.shape}",
            )


@rule(
    "L06",
    "total-cards",
    severity="warning",
    why="two machines with 8 cards are read as 8 cards in all",
    fix="say how many cards there are in all, for example below the table: 2x8 are 16 cards",
)
def several_machines_say_all_cards(subject: LintedDocument) -> Iterator[Problem]:
    """Rows on several machines say how many cards there are in all, in one phrase."""
    for row in subject.rows:
        topology = row.topology
        if topology is None or topology.nnodes == 1 or not topology.phrase:
            continue
        if topology.words == (topology.nnodes, topology.cards) or topology.says_each or _says_total(subject, row):
            continue
        phrases = subject.corpus.tables.phrases.get(topology.shape, set())
        others = sorted(phrases - {topology.phrase})
        also = f"; elsewhere it is {others[0]!r}" if others else ""
        yield Problem(
            place=row.label.place,
            message=f"{topology.phrase!r} for {topology.shape} does not say that these are {topology.cards} "
            f"cards{also}",
        )


def _says_total(subject: LintedDocument, row: DocumentRow) -> bool:
    if row.topology is None:
        return False
    total = re.compile(rf"(?<!\d){row.topology.cards}\s*(?:卡|cards|张)")
    return any(row.topology.shape in line and total.search(line) for line in subject.document.markdown.lines)


@rule(
    "L17",
    "scaling",
    severity="warning",
    why="throughput that falls, or grows faster than the cards, is a mistake in one of the rows",
    fix="check both rows; state the batch size per card where it differs",
)
def throughput_grows_with_cards(subject: LintedDocument) -> Iterator[Problem]:
    """More cards give more throughput at equal batch size per card, and not more than in proportion."""
    for one, other in _pairs(subject):
        fewer, more = sorted((one, other), key=_cards)
        column = next((name for name in THROUGHPUTS if number(fewer, name) and number(more, name)), None)
        names = f"{fewer.label.text!r} and {more.label.text!r}"
        if column:
            small, large = number(fewer, column) or 0, number(more, column) or 0
            reached = efficiency(large, _cards(more), small, _cards(fewer))
            if large <= small:
                yield Problem(
                    place=more.cells[column].place,
                    message=f"{names}: {column} falls from {small:g} to {large:g} with more cards",
                )
            elif reached > MAX_EFFICIENCY:
                yield Problem(
                    place=more.cells[column].place,
                    message=f"{names}: {column} grows to {reached:.0%} of what the cards allow",
                )
        short, long = number(fewer, "e2e_time"), number(more, "e2e_time")
        if short and long and long > short * _SLACK:
            yield Problem(
                place=more.cells["e2e_time"].place,
                message=f"{names}: e2e_time grows from {short:g} s to {long:g} s with more cards",
            )
    yield from implausible(subject, "scaling")


def _pairs(subject: LintedDocument) -> Iterator[tuple[DocumentRow, DocumentRow]]:
    for one, other in combinations([row for row in subject.rows if row.topology][:_MAX_ROWS], 2):
        if one.topology and other.topology and one.topology.cards != other.topology.cards:
            same_card = one.topology.card == other.topology.card
            key = precision_and_batch(one)
            if same_card and key is not None and key == precision_and_batch(other):
                yield one, other


def _cards(row: DocumentRow) -> int:
    return row.topology.cards if row.topology else 1


@rule(
    "L18",
    "throughput-against-time",
    severity="warning",
    why="a tuned row that is faster per second and slower to the result is no gain",
    fix="state time to target beside throughput, or tune differently",
)
def throughput_is_no_loss_of_time(subject: LintedDocument) -> Iterator[Problem]:
    """Of two rows of one topology and precision, the one with more throughput takes no longer and converges too."""
    target = subject.case.base.target if subject.case else None
    for one, other in combinations([row for row in subject.rows if row.topology][:_MAX_ROWS], 2):
        if _key(one) != _key(other) or hyperparameters(one) == hyperparameters(other):
            continue
        column = next((name for name in THROUGHPUTS if number(one, name) and number(other, name)), None)
        if column is None:
            continue
        slow, fast = sorted((one, other), key=lambda row: number(row, column) or 0)
        before, after = number(slow, "e2e_time"), number(fast, "e2e_time")
        gain = (number(fast, column) or 0) / (number(slow, column) or 1)
        if gain <= 1:
            continue
        if before and after and after > before * _SLACK:
            yield Problem(
                place=fast.cells["e2e_time"].place,
                message=f"{column} {gain - 1:+.0%}, but e2e_time grows from {before:g} s to {after:g} s",
            )
        elif target and (good := quality(slow)) and (bad := quality(fast)) and bad < target <= good:
            yield Problem(
                place=fast.cells["quality"].place,
                message=f"{column} {gain - 1:+.0%}, but the result falls from {good:g} to {bad:g}, below {target:g}",
            )


def _key(row: DocumentRow) -> tuple[str, str, str]:
    return (row.topology.card, row.topology.shape, row.precision) if row.topology else ("", "", "")
