"""What an import yields: records, where each value came from, and what was not understood."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from chipperf.documents.identity import slug
from chipperf.errors import RecordError, UsageError
from chipperf.records.schema import Record
from chipperf.records.store import RunDirectory, write_atomically

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SOURCES_FILE: Final = "sources.json"
"""Name of the file beside an imported record that says where its values come from."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(_Model):
    """Where a value of a record stands: field, file, line and column from 1, and the text there."""

    field: str
    file: str
    line: int = Field(ge=1)
    column: int = Field(ge=1)
    text: str


class NotUnderstood(_Model):
    """A text that has a place in the layout and does not fit it."""

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
    values: list[Source]
    not_understood: list[NotUnderstood]


@dataclass(frozen=True, slots=True)
class ImportedRecord:
    """A record and the sources of its values."""

    record: Record
    values: tuple[Source, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """Everything that was read from a document or log.

    Attributes:
        files: What was read.
        records: One record per row or run.
        not_understood: What none of the records has as a value; the text itself is among their remarks.
        generated_lines: Lines that chipperf wrote itself and that repeat what its tables say.
    """

    files: tuple[SourceFile, ...]
    records: tuple[ImportedRecord, ...]
    not_understood: tuple[NotUnderstood, ...]
    generated_lines: int = 0


def write_import(imported: Import, out: Path) -> list[Path]:
    """Write each record into a directory of its own below ``out``, with its sources, and return the directories.

    Raises:
        UsageError: One of the directories exists, or ``out`` cannot be written; nothing has been written then.
        RecordError: A file cannot be written.
    """
    names = _directory_names([each.record for each in imported.records])
    directories = [out / name for name in names]
    for directory in directories:
        if directory.exists():
            raise UsageError(f"{directory} exists", hint="choose another --out; records are never overwritten")
    for directory, each in zip(directories, imported.records, strict=True):
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


def read_sources(directory: Path) -> Sources:
    """Return the sources beside an imported record.

    Raises:
        RecordError: There are none, or the file is not of this form.
    """
    file = directory / SOURCES_FILE
    try:
        return Sources.model_validate(json.loads(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise RecordError(f"cannot read {file}: {error.strerror}") from error
    except (ValidationError, ValueError, RecursionError) as error:
        raise RecordError(f"{file} does not say where values come from: {error}") from error


def _directory_names(records: Sequence[Record]) -> list[str]:
    names: list[str] = []
    for record in records:
        parts = (record.vendor.name, record.case.name, record.topology.label, record.precision.requested)
        name = stem = slug("-".join(slug(part)[:40] for part in parts))
        count = 1
        while name in names:
            count += 1
            name = f"{stem}-{count}"
        names.append(name)
    return names
