"""The result of an import: records, the source of each value, and text that was not understood."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timezone
from itertools import count
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, Field

import chipperf
from chipperf.documents.document_identity import installed_cases, slug
from chipperf.errors import UsageError
from chipperf.plugin.types import API_VERSION
from chipperf.records import schema
from chipperf.records.files import write_atomically
from chipperf.records.schema import UNKNOWN, UNKNOWN_NAME, StrictModel
from chipperf.records.store import stored_digest
from chipperf.run.directory import RunDirectory, writing_to
from chipperf.run.planned_record import titles

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from chipperf.documents.card_names import CardNames
    from chipperf.documents.markdown import Located

SOURCES_FILE: Final = "sources.json"
"""Name of the file, next to an imported record, with the sources of its values."""


class ImportSource(StrictModel):
    """The source of a value: field of the record, file, line and column from 1, and text."""

    field: str
    file: str
    line: int = Field(ge=1)
    column: int = Field(ge=1)
    text: str

    @classmethod
    def at(cls, located: Located, file: str, field: str) -> ImportSource:
        """Return the source of a field's value."""
        return cls(field=field, file=file, line=located.place.line, column=located.place.column, text=located.text)


class NotUnderstood(StrictModel):
    """A text in one of the layout's places that does not fit the layout."""

    file: str
    line: int = Field(ge=1)
    column: int = Field(ge=1)
    text: str
    reason: str

    @classmethod
    def at(cls, located: Located, file: str, reason: str) -> NotUnderstood:
        """Return a text that was not understood for a reason."""
        return cls(file=file, line=located.place.line, column=located.place.column, text=located.text, reason=reason)

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.text!r}: {self.reason}"


class SourceFile(StrictModel):
    """A file that was read."""

    name: str
    sha256: str


class Sources(StrictModel):
    """Content of ``sources.json``. ``record_sha256`` is that of the record as it was imported."""

    record_sha256: str | None = None
    files: list[SourceFile]
    values: list[ImportSource]
    not_understood: list[NotUnderstood]


@dataclass(frozen=True, slots=True)
class ImportedRecord:
    """A record and the sources of its values."""

    record: schema.Record
    values: tuple[ImportSource, ...]

    def with_remarks(self, remarks: Sequence[Located], file: str) -> ImportedRecord:
        """Return the record with further remarks, each with its place in a file."""
        own = self.record.remarks
        fields = (f"remarks.{index}" for index in count(len(own)))
        sources = (ImportSource.at(remark, file, field) for field, remark in zip(fields, remarks, strict=False))
        texts = [*own, *(remark.text for remark in remarks)]
        return replace(self, record=self.record.model_copy(update={"remarks": texts}), values=(*self.values, *sources))


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """What was read: a record per row or run, and texts that became no value; these are also among the remarks.

    ``generated`` is true of a document that chipperf rendered.
    """

    files: tuple[SourceFile, ...]
    records: tuple[ImportedRecord, ...]
    not_understood: tuple[NotUnderstood, ...]
    generated: bool = False

    def with_remarks(self, remarks: Sequence[Located]) -> Import:
        """Return the import with further remarks on every record."""
        return replace(self, records=tuple(each.with_remarks(remarks, self.files[0].name) for each in self.records))


def imported_record(
    *,
    run_id: str,
    vendor: str,
    case: str,
    topology: schema.Topology,
    names: CardNames,
    metrics_definition: schema.MetricsDefinition,
    values: Mapping[str, object],
    sources: Sequence[ImportSource],
) -> ImportedRecord:
    """Return an imported record in which all other values are unknown; neither plugin nor case need be installed.

    ``metrics_definition`` is the one that the values follow. ``values`` are by field; a dictionary has those of a part
    of the record.
    """
    info = names.info(vendor)
    title = next(iter(names.titles(vendor)), vendor)
    plain = schema.Titles(zh=title, en=title)
    installed = installed_cases().get(case)
    record = schema.Record(
        metrics_definition=metrics_definition,
        kind="imported",
        run_id=run_id,
        chipperf_version=chipperf.__version__,
        created_at=datetime.now(timezone.utc).replace(microsecond=0),
        status=schema.Status(state="completed"),
        vendor=schema.Vendor(
            name=vendor,
            title=titles(info.title) if info else plain,
            report_title=titles(info.report_title) if info else plain,
            device_type=info.device_type if info else UNKNOWN_NAME,
            api_version=info.api_version if info else API_VERSION,
            # No plugin ran. The importer wrote the record.
            plugin=schema.Distribution(name="chipperf", version=chipperf.__version__),
        ),
        case=schema.CaseRecord(
            name=case,
            version=installed.version if installed else UNKNOWN_NAME,
            preset="full",
            metric=installed.metric if installed else UNKNOWN_NAME,
            target=installed.base.target if installed else UNKNOWN,
        ),
        topology=topology,
        precision=schema.PrecisionRecord(
            requested=UNKNOWN_NAME, effective=UNKNOWN, autocast_dtype=None, grad_scaler=False
        ),
        hyperparameters=schema.HyperparametersRecord(values={}, changes=UNKNOWN, global_batch_size=UNKNOWN),
        limits=schema.Limits(),
        seed=UNKNOWN,
        dataset=schema.Dataset(name=UNKNOWN_NAME, fingerprint_method="", is_sample=False),
        loader=UNKNOWN,
        environment=schema.Environment(),
        knobs=[],
        metrics=schema.Metrics.model_validate(schema.all_missing(schema.Metrics, UNKNOWN)),
    )
    # Validated again, because model_copy does not.
    return ImportedRecord(schema.Record.model_validate(_updated(record, values).model_dump()), tuple(sources))


def _updated(part: BaseModel, values: Mapping[str, object]) -> BaseModel:
    changes = dict(values)
    for name, value in values.items():
        inner = getattr(part, name)
        if isinstance(inner, BaseModel) and isinstance(value, dict):
            changes[name] = _updated(inner, value)
    return part.model_copy(update=changes)


def write_imports(imports: Sequence[Import], out: Path) -> list[Path]:
    """Write each record with its sources into its own directory in ``out``, and return the directories.

    The directories, sorted by name, have the order of the rows in their documents. If one of them exists, no file is
    written, and a :class:`UsageError` says so.
    """
    records = [(imported, each) for imported in imports for each in imported.records]
    directories = [out / name for name in _directory_names(imports)]
    for directory in directories:
        if directory.exists():
            raise UsageError(f"{directory} exists", hint="choose another --out; records are never overwritten")
    for directory, (imported, each) in zip(directories, records, strict=True):
        with writing_to(directory):
            directory.mkdir(parents=True)
        RunDirectory(directory).write_record(each.record)
        sources = Sources(
            record_sha256=stored_digest(directory),
            files=list(imported.files),
            values=list(each.values),
            not_understood=list(imported.not_understood),
        )
        write_atomically(directory / SOURCES_FILE, sources.model_dump_json(indent=2) + "\n")
    return directories


def _directory_names(imports: Sequence[Import]) -> list[str]:
    names: dict[str, None] = {}
    for imported in imports:
        digits = max(2, len(str(len(imported.records))))
        for row, each in enumerate(imported.records, start=1):
            record = each.record
            case = f"{record.vendor.name[:40]}-{record.case.name[:40]}"
            stem = slug(f"{case}-{row:0{digits}}-{record.topology.label}-{record.precision.requested[:40]}")
            candidates = (stem if number == 1 else f"{stem}-{number}" for number in count(1))
            names[next(name for name in candidates if name not in names)] = None
    return list(names)
