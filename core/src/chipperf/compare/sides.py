"""The sides of a comparison: runs, repeats that count as one, and rows of documents."""

from __future__ import annotations

import math
import shlex
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from chipperf.errors import DocumentError, RecordError, UsageError
from chipperf.records.columns import columns_of
from chipperf.records.repeats import REPEATS_FILE, aggregate, read_repeats
from chipperf.records.schema import Missing
from chipperf.records.store import read_record

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from chipperf.records.repeats import Repeats
    from chipperf.records.schema import Record

_DOCUMENTS: Final = (".md", ".markdown")
_EDITED: Final = "the file was edited; name the runs themselves; each is then a column"


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One side of a comparison.

    Attributes:
        records: A run, its repeats with other seeds, or a row of a document. If any run completed, only completed runs.
        source: The path that the user named.
        not_understood: Number of texts in the document that did not become a value of a record.
        files: The record's file, or the record's directory, of each of the runs; empty for a row of a document.
    """

    records: tuple[Record, ...]
    planned: int = 1
    source: str = ""
    not_understood: int = 0
    files: tuple[Path, ...] = ()

    @property
    def first(self) -> Record:
        """The record with the facts that all records share."""
        return self.records[0]


def read_columns(paths: Iterable[Path]) -> list[Side]:
    """Read runs, directories of repeats, and case documents in Markdown. Each row of a document is a column."""
    columns: list[Side] = []
    for path in paths:
        columns += _document(path) if path.suffix.casefold() in _DOCUMENTS else [_runs(path)]
    return columns


def _runs(path: Path) -> Side:
    repeats = read_repeats(path)
    if repeats is None:
        return Side(records=(read_record(path),), source=str(path), files=(path,))
    runs = []
    for run in repeats.runs:
        # A run without a record never started, or its record was removed. It counts as planned.
        with suppress(RecordError):
            record = read_record(path / run.directory)
            if record.seed != run.seed and not isinstance(record.seed, Missing):
                raise UsageError(
                    f"the run in {path / run.directory} has the seed {record.seed}, and {REPEATS_FILE} says {run.seed}",
                    hint=_EDITED,
                )
            runs.append((record, path / run.directory))
    completed = [run for run in runs if run[0].status.state == "completed"]
    if not runs:
        raise RecordError(f"none of the repeats in {path} left a record", hint="name other runs")
    _require_values_of_runs(path, repeats, [record for record, _ in completed])
    records, files = zip(*(completed or runs[:1]), strict=True)
    return Side(records=records, planned=repeats.planned, source=str(path), files=files)


def _require_values_of_runs(path: Path, repeats: Repeats, completed: Sequence[Record]) -> None:
    """Refuse a file whose results are not those of its runs: others may read them there."""
    for column in columns_of("repeats"):
        told = repeats.metrics.get(column.name)
        if told is None or len(told.values) != len(completed):
            continue
        found = aggregate([column.value(each) for each in completed], column.unit)
        for field in ("value", "lowest", "highest"):
            said, given = getattr(told, field), getattr(found, field)
            if not isinstance(said, Missing) and not isinstance(given, Missing) and not math.isclose(said, given):
                raise UsageError(
                    f"{path / REPEATS_FILE} says {said} for {column.name}.{field}, and its runs give {given}",
                    hint=_EDITED,
                )


def _document(path: Path) -> list[Side]:
    # Imported here, because parsing Markdown needs modules that a comparison of runs does not.
    from chipperf.documents.card_names import read_card_names
    from chipperf.documents.markdown import read_text
    from chipperf.importing.document_import import import_document

    try:
        imported = import_document(read_text(path), str(path), names=read_card_names(), path=path)
    except DocumentError as error:
        if error.hint and error.hint.startswith("give it with"):
            command = shlex.join(["perf", "report", "import", str(path)])
            error.hint = f"import it first: {command} --vendor NAME --case NAME, and name the records"
        raise
    unknown = len(imported.not_understood)
    return [Side(records=(each.record,), source=str(path), not_understood=unknown) for each in imported.records]
