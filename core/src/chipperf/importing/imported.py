"""The result of an import: records, the source of each value, and text that was not understood."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, ConfigDict, Field

from chipperf.documents.document_identity import slug
from chipperf.errors import UsageError
from chipperf.records.files import write_atomically
from chipperf.run.directory import RunDirectory

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from chipperf.records.schema import Record

SOURCES_FILE: Final = "sources.json"
"""Name of the file, next to an imported record, with the sources of its values."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ImportSource(_Model):
    """The source of a value: field of the record, file, line and column from 1, and text."""

    field: str
    file: str
    line: int = Field(ge=1)
    column: int = Field(ge=1)
    text: str


class NotUnderstood(_Model):
    """A text in one of the layout's places that does not fit the layout."""

    file: str
    line: int = Field(ge=1)
    column: int = Field(ge=1)
    text: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.text!r}: {self.reason}"


class SourceFile(_Model):
    """A file that was read."""

    name: str
    sha256: str


class Sources(_Model):
    """Content of ``sources.json``."""

    files: list[SourceFile]
    values: list[ImportSource]
    not_understood: list[NotUnderstood]


@dataclass(frozen=True, slots=True)
class ImportedRecord:
    """A record and the sources of its values."""

    record: Record
    values: tuple[ImportSource, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """The content that was read from a document or log.

    Attributes:
        files: The files that were read.
        records: One record per row or run.
        not_understood: Texts that did not become a value of a record. They are also in the records' remarks.
        generated_lines: Lines that chipperf itself wrote, which repeat its tables.
    """

    files: tuple[SourceFile, ...]
    records: tuple[ImportedRecord, ...]
    not_understood: tuple[NotUnderstood, ...]
    generated_lines: int = 0


def write_imports(imports: Sequence[Import], out: Path) -> list[Path]:
    """Write each record with its sources into its own directory in ``out``, and return the directories.

    The directories, sorted by name, have the order of the rows in their documents.

    Raises:
        UsageError: One of the directories exists, or ``out`` cannot be written. If a directory exists, no file is
            written.
        RecordError: A file cannot be written.
    """
    records = [(imported, each) for imported in imports for each in imported.records]
    names = _directory_names(imports)
    directories = [out / name for name in names]
    for directory in directories:
        if directory.exists():
            raise UsageError(f"{directory} exists", hint="choose another --out; records are never overwritten")
    for directory, (imported, each) in zip(directories, records, strict=True):
        try:
            directory.mkdir(parents=True)
        except OSError as error:
            raise UsageError(
                f"cannot write to {directory}: {error.strerror}", hint="choose another directory with --out"
            ) from error
        sources = Sources(
            files=list(imported.files), values=list(each.values), not_understood=list(imported.not_understood)
        )
        write_atomically(directory / SOURCES_FILE, sources.model_dump_json(indent=2) + "\n")
        RunDirectory(directory).write_record(each.record)
    return directories


def _directory_names(imports: Sequence[Import]) -> list[str]:
    names: dict[str, None] = {}
    for imported in imports:
        digits = max(2, len(str(len(imported.records))))
        for row, each in enumerate(imported.records, start=1):
            record = each.record
            case = f"{record.vendor.name[:40]}-{record.case.name[:40]}"
            stem = slug(f"{case}-{row:0{digits}}-{record.topology.label}-{record.precision.requested[:40]}")
            name = next(name for name in _numbered(stem) if name not in names)
            names[name] = None
    return list(names)


def _numbered(stem: str) -> Iterator[str]:
    yield stem
    yield from (f"{stem}-{number}" for number in count(2))
