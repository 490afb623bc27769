"""Rules on memory: the card's total, and the used memory of the runs."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

from chipperf.lint.linted_document import Problem
from chipperf.lint.rule import rule
from chipperf.records.schema import Missing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chipperf.documents.case_document import DocumentRow
    from chipperf.lint.linted_document import LintedDocument

_GIB: Final = 2**30
_FULL: Final = 0.985
_DATA_SHEET_TOLERANCE: Final = 0.05
_TOPOLOGY_TOLERANCE: Final = 1.1


@rule(
    "L15",
    "memory",
    why="a total that is not the card's, or that is used up to the last byte, was not read from the card",
    fix="write used/total in GiB, both read from the device",
)
def memory_fits_the_card(subject: LintedDocument) -> Iterator[Problem]:
    """Used memory is less than the total, and the total is the card's in every row and in one spelling."""
    totals: dict[str, dict[str, DocumentRow]] = defaultdict(dict)
    for row in subject.rows:
        value = row.memory
        if value is None:
            continue
        cell = row.cells["mem"]
        _, separator, total = cell.text.partition("/")
        if separator and len(cell.text.split()) > 1:
            yield Problem(cell.place, f"mem {cell.text!r} has spaces in it")
        if isinstance(value.total_bytes, Missing):
            continue
        if value.used_bytes > value.total_bytes:
            yield Problem(cell.place, f"mem {cell.text!r} uses more than there is")
        elif value.used_bytes >= value.total_bytes * _FULL:
            yield Problem(
                cell.place, f"mem {cell.text!r} is full to the last percent; the total is perhaps not the device's"
            )
        totals[row.card][total.strip()] = row
        sizes = _data_sheet_sizes(subject, row.card)
        if sizes and not any(abs(value.total_bytes - size) <= size * _DATA_SHEET_TOLERANCE for size in sizes):
            known = " or ".join(f"{size / _GIB:g}" for size in sorted(sizes))
            yield Problem(
                cell.place,
                f"total {value.total_bytes / _GIB:g} GiB; {row.card} has {known} GiB by its data sheet",
            )
    for card, spellings in totals.items():
        if len(spellings) > 1:
            last = list(spellings.values())[-1]
            yield Problem(last.cells["mem"].place, f"totals of {card or 'the card'} differ: {', '.join(spellings)}")
    yield from subject.implausible("memory")


def _data_sheet_sizes(subject: LintedDocument, card: str) -> set[int]:
    return {
        size
        for mention in subject.names.find(card)
        if mention.vendor == subject.vendor and mention.card
        for size in subject.names.memory_bytes(mention.vendor, mention.card)
    }


@rule(
    "L16",
    "memory-topology",
    severity="warning",
    why="a card needs the same memory beside seven others: rows that differ have different batch sizes",
    fix="state the batch size of each row in fix_hp",
)
def memory_does_not_depend_on_topology(subject: LintedDocument) -> Iterator[Problem]:
    """Rows that state the same hyperparameters and precision use about the same memory per card."""
    groups: dict[tuple[str, str, str], list[tuple[int, DocumentRow]]] = defaultdict(list)
    for row in subject.rows:
        value, stated = row.memory, row.hyperparameters
        if value and stated is not None and row.topology:
            groups[row.card, row.precision, str(stated.get("bs"))].append((value.used_bytes, row))
    for rows in groups.values():
        least, lower = min(rows, key=lambda each: each[0])
        most, higher = max(rows, key=lambda each: each[0])
        if least and most > least * _TOPOLOGY_TOLERANCE:
            yield Problem(
                higher.cells["mem"].place,
                f"{higher.label.text!r} uses {most / _GIB:.1f} GiB, {lower.label.text!r} "
                f"{least / _GIB:.1f} GiB, with the same hyperparameters",
            )
