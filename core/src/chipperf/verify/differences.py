"""Comparing a page, cell by cell, with the page that is rendered from its records."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import partial
from itertools import zip_longest
from os.path import commonprefix
from typing import TYPE_CHECKING, Final, Literal

from chipperf.documents.markdown import split_row
from chipperf.visible import shown_apart

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chipperf.report.provenance import Provenance, ReportCell

_MAX_ALIGNED_LINES: Final = 2_000
"""Longer parts are compared line by line from their start, because aligning lines takes quadratic time."""

Kind = Literal["cell", "line", "added", "removed", "moved", "record", "provenance", "file", "page"]


@dataclass(frozen=True, slots=True)
class RecordField:
    """A field of a record, as JSONPath."""

    run_id: str
    field: str

    def __str__(self) -> str:
        return f"{self.field} of {self.run_id}"


@dataclass(frozen=True, slots=True)
class ReportDifference:
    """A difference between a report and its records.

    Attributes:
        kind: A ``cell`` or ``line`` differs; a line was ``added``, ``removed`` or ``moved``; a ``record`` is missing,
            edited or of another metrics version; the ``provenance`` or a linked ``file`` was changed; the ``page``
            cannot be rendered again.
        file: The file that differs.
        line: Line in the file, from 1; 0 if the difference concerns the whole file.
        column: Column in characters, from 1; 0 if the difference concerns the whole file.
        found: The text on the page.
        expected: The text from the records.
        fields: Fields that the expected text depends on. The field that it shows is the first.
    """

    kind: Kind
    file: str
    message: str
    line: int = 0
    column: int = 0
    found: str | None = None
    expected: str | None = None
    fields: tuple[RecordField, ...] = ()

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{place}: {self.message}"


def compare_pages(found: str, expected: str, provenance: Provenance, name: str) -> list[ReportDifference]:
    """Return the differences between a page and the ``expected`` page rendered from its records.

    ``provenance`` is that of ``expected``. ``name`` is the file of the page.
    """
    return list(_Comparison(found.split("\n"), expected.split("\n"), provenance, name).differences())


class _Comparison:
    def __init__(self, found: list[str], expected: list[str], provenance: Provenance, name: str) -> None:
        self._found = found
        self._expected = expected
        self._name = name
        self._runs = [record.run_id for record in provenance.records]
        self._cells: dict[int, list[ReportCell]] = {}
        for cell in provenance.cells:
            self._cells.setdefault(cell.line, []).append(cell)

    def differences(self) -> Iterator[ReportDifference]:
        removed: list[int] = []
        added: list[int] = []
        for found, expected in _differing_ranges(self._found, self._expected):
            lines = [*self._found[found.start : found.stop], *self._expected[expected.start : expected.stop]]
            is_blank = not any(map(str.strip, lines))
            for here, there in zip_longest(found, expected):
                if here is not None and there is not None:
                    yield from self._line(here, there)
                elif here is not None and (is_blank or self._found[here].strip()):
                    added.append(here)
                elif here is None and (is_blank or self._expected[there].strip()):
                    removed.append(there)
        yield from self._moved_or_not(added, removed)

    def _moved_or_not(self, added: list[int], removed: list[int]) -> Iterator[ReportDifference]:
        places: dict[str, list[int]] = {}
        for there in removed:
            places.setdefault(self._expected[there], []).append(there)
        for here in added:
            text = self._found[here]
            if not text.strip():
                yield self._difference("added", here, 0, "the records give no blank line here", text)
            elif places.get(text):
                there = places[text].pop(0)
                message = f"this line belongs in line {there + 1}: {_short(text)}"
                yield self._difference("moved", here, 0, message, text, text, self._fields(there))
            else:
                yield self._difference("added", here, 0, f"this line is not from the records: {_short(text)}", text)
        for there in sorted(there for remaining in places.values() for there in remaining):
            text, fields = self._expected[there], self._fields(there)
            line = min(there, len(self._found) - 1)
            message = (
                f"the page lacks: {_short(text)}{_from(fields)}" if text.strip() else "the page lacks a blank line"
            )
            yield self._difference("removed", line, 0, message, None, text, fields)

    def _line(self, here: int, there: int) -> Iterator[ReportDifference]:
        found, expected = self._found[here], self._expected[there]
        if found == expected:
            return
        offset = len(commonprefix((found, expected)))
        if found.split() == expected.split():
            message = f"the spaces differ from the report: {_short(found)}"
            yield self._difference("line", here, offset, message, found, expected, self._fields(there))
            return
        is_found = False
        if found.lstrip().startswith("|") and expected.lstrip().startswith("|"):
            cells = zip_longest(split_row(found, here), split_row(expected, there))
            for number, (cell, wanted) in enumerate(cells, start=1):
                text, column = (cell[0], cell[1].column - 1) if cell else ("", len(found))
                if cell is None or wanted is None or text != wanted[0]:
                    is_found = True
                    yield self._text("cell", here, there, column, text, wanted[0] if wanted else "", number)
        if not is_found:
            # No row, or its cells are equal but written differently, for example without a bar at the end.
            yield self._text("line", here, there, offset, found.strip(), expected.strip())

    def _text(
        self, kind: Kind, here: int, there: int, offset: int, found: str, expected: str, cell: int | None = None
    ) -> ReportDifference:
        fields = self._fields(there, cell)
        who = "the record says" if fields else "the report's template says"
        here_shown, there_shown = shown_apart(found, expected)
        message = f"the page says {here_shown or 'nothing'}, {who} {there_shown or 'nothing'}{_from(fields)}"
        return self._difference(kind, here, offset, message, found, expected, fields)

    def _difference(
        self,
        kind: Kind,
        line: int,
        offset: int,
        message: str,
        found: str | None,
        expected: str | None = None,
        fields: tuple[RecordField, ...] = (),
    ) -> ReportDifference:
        return ReportDifference(kind, self._name, message, line + 1, offset + 1, found, expected, fields)

    def _fields(self, line: int, cell: int | None = None) -> tuple[RecordField, ...]:
        return tuple(
            RecordField(self._runs[source.record], field)
            for each in self._cells.get(line + 1, ())
            if cell is None or each.cell in (None, cell)
            for source in each.sources
            for field in source.fields
        )


def _differing_ranges(found: list[str], expected: list[str]) -> Iterator[tuple[range, range]]:
    """Yield the differing parts of two pages, as ranges of line indices."""
    first = len(commonprefix((found, expected)))
    last = len(commonprefix((found[first:][::-1], expected[first:][::-1])))
    here, there = range(first, len(found) - last), range(first, len(expected) - last)
    if max(len(here), len(there)) > _MAX_ALIGNED_LINES:
        yield here, there
        return
    matcher = SequenceMatcher(None, found[here.start : here.stop], expected[there.start : there.stop], autojunk=False)
    for tag, i1, i2, j1, j2 in matcher.get_opcodes():
        if tag != "equal":
            yield here[i1:i2], there[j1:j2]


def _short(text: str) -> str:
    stripped = text.strip()
    shown = stripped if len(stripped) <= 120 else f"{stripped[:117]}..."
    return shown or "nothing"


def _from(fields: tuple[RecordField, ...]) -> str:
    return f" ({fields[0]})" if fields else ""


def compare_provenances(found: Provenance, expected: Provenance, name: str) -> Iterator[ReportDifference]:
    """Yield the differences between a provenance and the provenance made from its records.

    Ignores the version of chipperf, the template and the content of pictures, which do not depend on the records.
    """
    difference = partial(ReportDifference, kind="provenance", file=name)
    for key in ("schema_version", "metrics_version", "language", "records", "curve"):
        if getattr(found, key) != getattr(expected, key):
            yield difference(message=f"$.{key} differs from the records")
    listed = [file.name for file in found.files]
    for linked in found.curve.names if found.curve else ():
        if listed.count(linked) != 1:
            yield difference(message=f"$.files must list {linked} once, because the page links it")
    for file in expected.files:
        if file.name in listed and file not in found.files:
            yield difference(message=f"$.files: the SHA-256 of {file.name} differs from the records")
    for index, (cell, wanted) in enumerate(zip_longest(found.cells, expected.cells)):
        if cell != wanted and not _lists_fewer_sources(cell, wanted):
            texts = shown_apart(cell.text if cell else "", wanted.text if wanted else "")
            said = f"{texts[0]} in line {cell.line}" if cell else "nothing"
            right = f"{texts[1]} in line {wanted.line}" if wanted else "nothing"
            what = f"says {said}, the records give {right}" if said != right else "has other sources than the records"
            yield difference(message=f"$.cells[{index}] {what}")


def _lists_fewer_sources(cell: ReportCell | None, wanted: ReportCell | None) -> bool:
    """Return whether a fact only lacks sources, as those of an earlier version do that checked less."""
    if cell is None or wanted is None or wanted.cell is not None:
        return False
    found, expected = ({(of.record, name) for of in each.sources for name in of.fields} for each in (cell, wanted))
    return set() < found <= expected and cell.model_copy(update={"sources": wanted.sources}) == wanted
