"""Rules on memory: the card's total, and the used memory of the runs."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

from chipperf.documents import cells
from chipperf.lint.linted_document import hyperparameters, implausible, memory
from chipperf.lint.problem import Problem
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
        cell, value = row.cells.get("mem"), memory(row)
        if cell is None or cells.marker(cell.text) is not None:
            continue
        if cell.text != "".join(cell.text.split()) and "/" in cell.text and value:
            yield Problem(place=cell.place, message=f"mem {cell.text!r} has spaces in it")
        if value is None or isinstance(value.total_bytes, Missing):
            continue
        if value.used_bytes > value.total_bytes:
            yield Problem(place=cell.place, message=f"mem {cell.text!r} uses more than there is")
        elif value.used_bytes >= value.total_bytes * _FULL:
            yield Problem(
                place=cell.place,
                message=f"mem {cell.text!r} is full to the last percent; the total is perhaps not the device's",
            )
        card = row.topology.card if row.topology else ""
        totals[card][cell.text.partition("/")[2].strip()] = row
        yield from _against_data_sheet(subject, row, value.total_bytes)
    for card, spellings in totals.items():
        if len(spellings) > 1:
            last = list(spellings.values())[-1]
            yield Problem(
                place=last.cells["mem"].place,
                message=f"totals of {card or 'the card'} differ: {', '.join(spellings)}",
            )
    yield from implausible(subject, "memory")


def _against_data_sheet(subject: LintedDocument, row: DocumentRow, total_bytes: int) -> Iterator[Problem]:
    if subject.vendor is None or row.topology is None:
        return
    named = {
        mention.card
        for mention in subject.names.find(row.topology.card)
        if mention.vendor == subject.vendor and mention.card
    }
    sizes = {size for card in named for size in subject.names.memory_bytes(subject.vendor, card)}
    if sizes and not any(abs(total_bytes - size) <= size * _DATA_SHEET_TOLERANCE for size in sizes):
        known = " or ".join(f"{size / _GIB:g}" for size in sorted(sizes))
        yield Problem(
            place=row.cells["mem"].place,
            message=f"total {total_bytes / _GIB:g} GiB; {row.topology.card} has {known} GiB by its data sheet",
        )


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
        value, stated = memory(row), hyperparameters(row)
        if value and stated is not None and row.topology:
            groups[row.topology.card, row.precision, str(stated.get("bs"))].append((value.used_bytes, row))
    for rows in groups.values():
        least, most = min(rows, key=lambda each: each[0]), max(rows, key=lambda each: each[0])
        if least[0] and most[0] > least[0] * _TOPOLOGY_TOLERANCE:
            yield Problem(
                place=most[1].cells["mem"].place,
                message=f"{most[1].label.text!r} uses {most[0] / _GIB:.1f} GiB, {least[1].label.text!r} "
                f"{least[0] / _GIB:.1f} GiB, with the same hyperparameters",
            )
