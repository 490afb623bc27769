"""A value on a page, with its field in the record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from chipperf.documents.format import marker
from chipperf.languages import Phrase
from chipperf.records.schema import Missing, MissingKind
from chipperf.report.row import completed_value

if TYPE_CHECKING:
    from collections.abc import Callable

from chipperf.records.schema import Record

T = TypeVar("T")
NumberT = TypeVar("NumberT", int, float)


@dataclass(frozen=True, slots=True, kw_only=True)
class PageCell:
    """One value.

    Attributes:
        text: The shown text. For a missing value, its marker.
        field: Path of the field in ``record.json``: names and indices joined by dots.
        sort: Sort key in the column, if it differs from the text.
        missing: Kind of missing value; ``None`` if there is a value.
        reason: The record's reason for a missing value.
    """

    text: Phrase | str
    field: str
    sort: float | None = None
    missing: MissingKind | None = None
    reason: str = ""


def cell(value: T | Missing, field: str, write: Callable[[T], object] = str) -> PageCell:
    """Return a value as a cell.

    Args:
        value: The value, or a missing value.
        field: Path of the field in the record.
        write: Returns the text of a value. If it returns a missing value, the cell shows a missing value.
    """
    written = value if isinstance(value, Missing) else write(value)
    if isinstance(written, Missing):
        return PageCell(text=marker(written), field=field, missing=written.missing, reason=written.reason)
    number = value if isinstance(value, (int, float)) and not isinstance(value, bool) else None
    return PageCell(text=written if isinstance(written, Phrase) else str(written), field=field, sort=number)


def result_cell(
    record: Record, value: NumberT | Missing, field: str, write: Callable[[NumberT], object] = str
) -> PageCell:
    """Return a result of a run as a cell. If the run did not complete, the result is shown as failed."""
    shown = completed_value(record, value)
    return cell(shown, field if shown is value else "status", write)
