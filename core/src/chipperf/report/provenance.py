"""Provenance of a report: a file next to it with the record and fields of every cell and stated fact."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from itertools import accumulate, groupby
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import Field, ValidationError

import chipperf
from chipperf.documents.markdown import split_row
from chipperf.errors import UnusableRecord, first_fault
from chipperf.records.files import parse_model, read_bounded
from chipperf.records.schema import METRICS_VERSION, SCHEMA_VERSION, Sha256, StrictModel
from chipperf.records.upgrade import upgrade_field
from chipperf.report.beside import RunBeside
from chipperf.report.curve_files import CurveFiles, KnownLanguage, PlainName
from chipperf.report.tracing import simplify, source_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from chipperf.languages import Language
    from chipperf.records.schema import Record
    from chipperf.report.render import Page

    _Place = tuple[int, int | None, str]

SUFFIX: Final = ".provenance.json"


class ReportedRecord(StrictModel):
    """A record that the report was made from. ``sha256`` is the digest of its file's bytes."""

    run_id: str
    sha256: Sha256
    role: Literal["report", "baseline"]


class CellSource(StrictModel):
    """Fields of a record as JSONPath. ``record`` counts the provenance's records from 0."""

    record: Annotated[int, Field(ge=0)]
    fields: list[str]


class ReportCell(StrictModel):
    """A cell of a table, or a line that states a fact.

    Attributes:
        line: Line in the report, from 1.
        column: Column of its text in characters, from 1.
        cell: Number of the cell in its row, from 1; ``None`` outside tables.
        text: The text in the report, in Markdown.
        sources: The fields it was made from; the shown ones come first.
    """

    line: Annotated[int, Field(ge=1)]
    column: Annotated[int, Field(ge=1)]
    cell: Annotated[int, Field(ge=1)] | None
    text: str
    sources: list[CellSource]


class LinkedFile(StrictModel):
    """A file that the report links: picture or points of the convergence curves."""

    name: PlainName
    sha256: Sha256


class Provenance(StrictModel):
    """Content of the provenance file of a report.

    Attributes:
        template: Name of the template, with its place.
        records: The records in the given order.
        beside: Runs of the same rows that are not in the report.
        cells: Every cell and fact that comes from a record. The other text is the template's own.
    """

    provenance_version: Literal[1] = 1
    chipperf_version: str = chipperf.__version__
    schema_version: Annotated[int, Field(ge=1)] = SCHEMA_VERSION
    metrics_version: int = METRICS_VERSION
    language: KnownLanguage
    template: str
    records: list[ReportedRecord]
    curve: CurveFiles | None
    files: list[LinkedFile]
    beside: list[RunBeside] = []
    cells: list[ReportCell]


def provenance_file(report: Path) -> Path:
    """Return the path of a report's provenance."""
    return report.with_name(report.name + SUFFIX)


def describe_page(
    page: Page,
    *,
    language: Language,
    records: Sequence[Record],
    baseline: Sequence[Record],
    curve: CurveFiles | None,
    files: Mapping[str, bytes],
    beside: Sequence[RunBeside] = (),
) -> Provenance:
    """Return the provenance of a page of traced records; ``files`` is the content of the linked files, by name."""
    roles: list[tuple[Literal["report", "baseline"], Sequence[Record]]] = [("report", records), ("baseline", baseline)]
    reported = {
        source.sha256: ReportedRecord(run_id=record.run_id, sha256=source.sha256, role=role)
        for role, some in roles
        for record in some
        if (source := source_of(record))
    }
    return Provenance(
        language=language,
        template=page.template,
        records=list(reported.values()),
        curve=curve,
        files=[
            LinkedFile(name=name, sha256=hashlib.sha256(content).hexdigest()) for name, content in sorted(files.items())
        ],
        beside=list(beside),
        cells=list(_cells(page, {sha256: number for number, sha256 in enumerate(reported)})),
    )


def read_provenance(file: Path) -> Provenance:
    """Read a provenance, with current names of fields; an :class:`.UnusableRecord` says where a file is wrong."""
    try:
        content = read_bounded(file)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UnusableRecord(f"cannot read {file}: {error.strerror}") from error
    try:
        return _upgraded(parse_model(Provenance, content))
    except ValidationError as error:
        raise UnusableRecord(f"{file}: {first_fault(error)}", hint="render the report again") from error


def _upgraded(provenance: Provenance) -> Provenance:
    """Return a provenance with the current names of the records' fields."""
    version = provenance.schema_version
    if version >= SCHEMA_VERSION:
        return provenance

    def upgraded(source: CellSource) -> CellSource:
        return CellSource(record=source.record, fields=[upgrade_field(field, version) for field in source.fields])

    cells = [cell.model_copy(update={"sources": list(map(upgraded, cell.sources))}) for cell in provenance.cells]
    return provenance.model_copy(update={"schema_version": SCHEMA_VERSION, "cells": cells})


def _cells(page: Page, numbers: Mapping[str, int]) -> Iterator[ReportCell]:
    """Yield the cells of a page. ``numbers`` has the number of each record by its digest."""
    lines = page.text.split("\n")
    starts = [0, *accumulate(len(line) + 1 for line in lines)]
    # Parts have the order of the page, so the parts of a cell are adjacent.
    for index, parts in groupby(page.parts, key=lambda part: bisect_right(starts, part.offset) - 1):
        places = _places(lines[index], index)
        for place, of_cell in groupby(parts, key=lambda part: _place_of(places, part.offset - starts[index])):
            column, cell, text = place
            fields: dict[int, list[str]] = {}
            for source in simplify(source for part in of_cell for source in part.sources):
                fields.setdefault(numbers[source.sha256], []).append(source.json_path)
            sources = [CellSource(record=number, fields=fields[number]) for number in sorted(fields)]
            yield ReportCell(line=index + 1, column=column, cell=cell, text=text, sources=sources)


def _places(line: str, index: int) -> list[_Place]:
    """Return column, number in the row and text of every cell of a row, or of a whole line."""
    if line.lstrip().startswith("|") and (cells := split_row(line, index)):
        return [(place.column, number, text) for number, (text, place) in enumerate(cells, start=1)]
    return [(len(line) - len(line.lstrip()) + 1, None, line.strip())]


def _place_of(places: Sequence[_Place], offset: int) -> _Place:
    """Return the last place that begins at or before an offset in the line."""
    return places[max(0, bisect_right(places, offset + 1, key=lambda place: place[0]) - 1)]
