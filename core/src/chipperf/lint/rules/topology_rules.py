"""Rules on topology: the machines and cards of rows, and how memory and throughput depend on them."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from itertools import combinations
from typing import TYPE_CHECKING, Final

from chipperf.documents import cells
from chipperf.documents.markdown import Place
from chipperf.documents.topology import bracketed_shapes, cards_said
from chipperf.lint.configs import BATCH_SIZE_KEYS
from chipperf.lint.rule import LintedDocument, NotChecked, Problem, rule
from chipperf.records.columns import THROUGHPUTS
from chipperf.records.scaling import MAX_EFFICIENCY, efficiency
from chipperf.visible import counted

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    from chipperf.documents.case_document import DocumentRow
    from chipperf.documents.topology import RowLabel

_MAX_ROWS: Final = 100
"""Maximum number of rows to compare with each other. A real report has a dozen."""

_SLACK: Final = 1.05
_MEMORY_TOLERANCE: Final = 1.25
"""What buffers for communication and images of several sizes explain between rows of one batch size."""

_DEGREES_OF_CARDS: Final = ("TP", "PP", "DP", "CP")
"""Kinds of parallelism that multiply to the number of cards; others, such as EP, divide one of them."""

_PARALLELISM: Final = re.compile(r"(?<![A-Za-z0-9])(?:[TPDCE]P\d+){3,}")
_FORMAT_OF_DEGREES: Final = re.compile(r"(?:格式为|format:?)\s*((?:[TPDCES]P[a-z]){2,})")
_DEGREE: Final = re.compile(r"[A-Z]P")
_EXAMPLE: Final = re.compile(r"例如|如：|such as|e\.g\.|example", re.IGNORECASE)
_SPLIT: Final = re.compile(
    r"模型并行|张量并行|流水线?并行|(?:model|tensor|pipeline)[- ]parallel|\bZeRO\b|shard(?:ed|ing)|global[_ ]?batch",
    re.IGNORECASE,
)
"""Text on a model that is split over the cards, or a batch that is: both change what one card holds."""

_SCALED: Final = re.compile(r"lr|learning|warm|decay|step|epoch|seed", re.IGNORECASE)
"""Hyperparameters that change with the number of cards and not with the memory that a card needs."""
_GIB: Final = 2**30


@rule(
    "L05",
    "row-topology",
    why="it is not clear on how many cards the row was measured",
    fix="make words and brackets agree",
)
def words_match_the_topology(subject: LintedDocument) -> Iterator[Problem]:
    """A row's words, its topology in brackets and its parallelism agree, in the form that the text defines."""
    for row in subject.rows:
        topology = row.topology
        if topology is None:
            yield Problem(row.label.place, f"row {row.label.text!r} has no topology such as 1x8")
            continue
        shapes = sorted({f"{one}x{other}" for one, other in bracketed_shapes(row.label.text)})
        if len(shapes) > 1:
            yield Problem(row.label.place, f"row {row.label.text!r} has the topologies {' and '.join(shapes)}")
        if topology.words and topology.words_differ:
            machines, cards = topology.words
            meant = f"{counted(machines, 'machine')} with {counted(cards, 'card')}"
            yield Problem(row.label.place, f"{topology.phrase!r} is {meant}, in brackets stands {row.shape}")
        elif topology.phrase[:1].isdigit() and row.label.text.partition(topology.phrase)[0][-1:].isdigit():
            message = f"row {row.label.text!r} runs {topology.card!r} and {topology.phrase!r} together"
            yield Problem(row.label.place, message, severity="warning")
        elif not topology.words and (
            said := [count for count in cards_said(row.label.text) if not _may_be(count, topology)]
        ):
            yield Problem(row.label.place, f"row {row.label.text!r} says {said[0]} cards and {row.shape}")
        degrees = cells.degrees(row.known("parallel"))
        used = math.prod(degrees.get(name, 1) for name in _DEGREES_OF_CARDS)
        if degrees and (used != row.card_count if "DP" in degrees else row.card_count % max(used, 1)):
            cell = row.cells["parallel"]
            yield Problem(cell.place, f"{cell.text!r} is for {used} cards, the row has {row.card_count}")
    yield from _parallelism_in_text(subject)
    yield from _parallelism_unlike_its_format(subject)


def _parallelism_unlike_its_format(subject: LintedDocument) -> Iterator[Problem]:
    """Yield parallelism of other kinds than the general table says that a cell has."""
    said = next(
        (match[1] for line in subject.document.markdown.lines if (match := _FORMAT_OF_DEGREES.search(line))), ""
    )
    wanted = set(_DEGREE.findall(said))
    for row in subject.rows if wanted else ():
        kinds = cells.degrees(row.known("parallel")).keys()
        if kinds and kinds != wanted:
            lacking, more = ", ".join(sorted(wanted - kinds)), ", ".join(sorted(kinds - wanted))
            parts = [f"lacks {lacking}" if lacking else "", f"has {more} beyond it" if more else ""]
            cell = row.cells["parallel"]
            message = f"{cell.text!r} {' and '.join(filter(None, parts))}; the general table says {said!r}"
            yield Problem(cell.place, message, severity="warning")


def _parallelism_in_text(subject: LintedDocument) -> Iterator[Problem]:
    """Yield parallelism that the text states, outside of tables and not as an example, for cards that no row has."""
    counts = sorted({row.card_count for row in subject.rows} - {0})
    for number, line in enumerate(subject.document.markdown.lines, start=1):
        for match in () if "|" in line or _EXAMPLE.search(line) or not counts else _PARALLELISM.finditer(line):
            degrees = cells.degrees(match[0])
            used = math.prod(degrees.get(name, 1) for name in _DEGREES_OF_CARDS)
            if degrees.keys() >= {"TP", "PP", "DP"} and used not in counts:
                rows = " or ".join(map(str, counts))
                yield Problem(
                    Place(number, match.start() + 1), f"{match[0]!r} is for {used} cards, the rows have {rows}"
                )


def _may_be(count: int, topology: RowLabel) -> bool:
    """Return whether a number of cards is that of a machine or of all, perhaps behind a card's name: ``H1008卡``."""
    return any(str(count).endswith(str(each)) for each in (topology.nproc_per_node, topology.world_size))


@rule(
    "L06",
    "total-cards",
    severity="warning",
    why="readers take two machines with 8 cards for 8 cards in total",
    fix="state the total number of cards, for example below the table: 2x8 are 16 cards",
)
def several_machines_say_all_cards(subject: LintedDocument) -> Iterator[Problem]:
    """Rows on several machines state the total number of cards, in one phrase."""
    for row in subject.rows:
        topology = row.topology
        if topology is None or topology.nnodes == 1 or not topology.phrase or topology.says_each:
            continue
        if topology.words == (topology.nnodes, topology.world_size):
            continue
        total = re.compile(rf"(?<!\d){topology.world_size}\s*(?:卡|cards|张)")
        if any(row.shape in line and total.search(line) for line in subject.document.markdown.lines):
            continue
        phrases = subject.corpus.phrases.get(row.shape, set())
        others = sorted(text for text in phrases if str(topology.world_size) in text)
        also = f"; elsewhere it is {others[0]!r}" if others else ""
        yield Problem(
            row.label.place,
            f"{topology.phrase!r} for {row.shape} does not say that these are {topology.world_size} cards{also}",
        )


@rule(
    "L16",
    "memory-topology",
    severity="warning",
    why="a card needs the same memory whether it is alone or one of eight: rows that differ have different batch sizes",
    fix="state the batch size of each row in fix_hp",
)
def memory_does_not_depend_on_topology(subject: LintedDocument) -> Iterator[Problem]:
    """Rows that state the same hyperparameters and precision use about the same memory per card.

    Rows whose configurations set one batch size are not compared, because it does not explain what differs.
    """
    if split := next((match for line in subject.document.markdown.lines if (match := _SPLIT.search(line))), None):
        raise NotChecked(f"memory depends on the number of cards: {split[0]}")
    groups: dict[Hashable, list[tuple[int, DocumentRow]]] = defaultdict(list)
    for row in subject.rows:
        value, key = row.memory, _comparable(row)
        if value and key and row.topology:
            groups[key].append((value.used_bytes, row))
    for rows in groups.values():
        least, lower = min(rows, key=lambda each: each[0])
        most, higher = max(rows, key=lambda each: each[0])
        sizes = [{config.value(BATCH_SIZE_KEYS) for config in subject.configs_of(row)} for row in (lower, higher)]
        if sizes[0] == sizes[1] and sizes[0] not in (set(), {None}):
            continue
        if least and most > least * _MEMORY_TOLERANCE:
            yield Problem(
                higher.cells["mem"].place,
                f"{higher.label.text!r} uses {most / _GIB:.1f} GiB, {lower.label.text!r} "
                f"{least / _GIB:.1f} GiB, with the same hyperparameters",
            )


@rule(
    "L17",
    "scaling",
    severity="warning",
    why="throughput that falls, or grows faster than the number of cards, is a mistake in one of the rows",
    fix="check both rows; state the batch size per card if it differs",
)
def throughput_grows_with_cards(subject: LintedDocument) -> Iterator[Problem]:
    """At equal batch size per card, more cards give more throughput, but not more than in proportion."""
    for one, other in _pairs(subject):
        key = _comparable(one)
        if one.card_count == other.card_count or key is None or key != _comparable(other):
            continue
        fewer, more = sorted((one, other), key=lambda row: row.card_count)
        names = f"{fewer.label.text!r} and {more.label.text!r}"
        if column := _common_throughput(one, other):
            small, large = fewer.number(column) or 0, more.number(column) or 0
            reached = efficiency(large, more.card_count, small, fewer.card_count)
            place = more.cells[column].place
            if large <= small:
                yield Problem(place, f"{names}: {column} falls from {small:g} to {large:g} with more cards")
            elif reached > MAX_EFFICIENCY:
                yield Problem(place, f"{names}: {column} grows to {reached:.0%} of what the cards allow")
        short, long = fewer.number("e2e_time"), more.number("e2e_time")
        if short and long and long > short * _SLACK:
            yield Problem(
                more.cells["e2e_time"].place, f"{names}: e2e_time grows from {short:g} s to {long:g} s with more cards"
            )
    yield from subject.implausible("scaling")


def _pairs(subject: LintedDocument) -> Iterator[tuple[DocumentRow, DocumentRow]]:
    return combinations([row for row in subject.rows if row.topology][:_MAX_ROWS], 2)


def _comparable(row: DocumentRow) -> Hashable:
    """Return what must be equal in rows whose throughputs are compared, or ``None`` if the row does not state it."""
    stated = row.hyperparameters
    if stated is None or row.text("fix_hp") is None:
        return None
    batches = sorted((key, value) for key, value in stated.items() if not _SCALED.search(key))
    return row.identity_besides_hyperparameters, tuple(batches)


def _common_throughput(one: DocumentRow, other: DocumentRow) -> str | None:
    return next((name for name in THROUGHPUTS if one.number(name) and other.number(name)), None)


@rule(
    "L18",
    "throughput-against-time",
    severity="warning",
    why="a tuned row that processes more samples per second but takes longer to the result is no gain",
    fix="state time to target beside throughput, or tune differently",
)
def throughput_is_no_loss_of_time(subject: LintedDocument) -> Iterator[Problem]:
    """Of two rows of one topology and precision, the one with more throughput takes no longer and converges too."""
    for one, other in _pairs(subject):
        if (one.card, one.shape, one.precision) != (other.card, other.shape, other.precision):
            continue
        column = _common_throughput(one, other)
        if column is None or one.hyperparameters == other.hyperparameters:
            continue
        slow, fast = sorted((one, other), key=lambda row: row.number(column) or 0)
        before, after = slow.number("e2e_time"), fast.number("e2e_time")
        gain = (fast.number(column) or 0) / (slow.number(column) or 1)
        if gain <= 1:
            continue
        if before and after and after > before * _SLACK:
            yield Problem(
                fast.cells["e2e_time"].place,
                f"{column} {gain - 1:+.0%}, but e2e_time grows from {before:g} s to {after:g} s",
            )
        elif subject.meets_target(slow) and subject.meets_target(fast) is False:
            yield Problem(
                fast.cells["quality"].place,
                f"{column} {gain - 1:+.0%}, but the result goes from {slow.text('quality')} to "
                f"{fast.text('quality')} and misses the target",
            )
