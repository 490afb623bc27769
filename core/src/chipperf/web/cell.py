"""A value on a page, with the field of the record that it is from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from chipperf.documents.format import marker
from chipperf.records.schema import Missing, MissingKind
from chipperf.report.row import completed_value
from chipperf.web.text import Bilingual, same

if TYPE_CHECKING:
    from collections.abc import Callable

    from chipperf.records.schema import Record

T = TypeVar("T")
NumberT = TypeVar("NumberT", int, float)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One value.

    Attributes:
        text: What is shown; of a missing value, its marker.
        field: Path of the field in ``record.json``: names and indices joined by dots.
        sort: What the column is sorted by, if that is not the text.
        missing: Why there is no value; ``None`` if there is one.
        reason: What the record says on why it is missing.
    """

    text: Bilingual
    field: str
    sort: float | None = None
    missing: MissingKind | None = None
    reason: str = ""


def cell(value: T | Missing, field: str, write: Callable[[T], object] = str) -> Cell:
    """Return a value as a cell.

    Args:
        value: The value, or why there is none.
        field: Where the record has it.
        write: Makes the text of a value; what it returns is missing is shown as such.
    """
    written = value if isinstance(value, Missing) else write(value)
    if isinstance(written, Missing):
        text = Bilingual(marker(written, "zh"), marker(written, "en"))
        return Cell(text=text, field=field, missing=written.missing, reason=written.reason)
    number = value if isinstance(value, (int, float)) and not isinstance(value, bool) else None
    return Cell(text=written if isinstance(written, Bilingual) else same(str(written)), field=field, sort=number)


def result_cell(record: Record, value: NumberT | Missing, field: str, write: Callable[[NumberT], object] = str) -> Cell:
    """Return a result of a run as a cell: that of a run that did not complete is failed, whatever it had measured."""
    shown = completed_value(record, value)
    return cell(shown, field if shown is value else "status", write)
