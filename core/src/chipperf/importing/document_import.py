"""Importing a vendor's case document: one record for each row of its performance table."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from chipperf.documents import cells, wording
from chipperf.documents.case_document import read_document
from chipperf.documents.document_identity import find_case_by_model, identify_case, identify_vendor, installed_cases
from chipperf.documents.format import MARKERS, setting
from chipperf.errors import DocumentError
from chipperf.importing.blank import blank_record
from chipperf.importing.imported import Import, ImportedRecord, ImportSource, NotUnderstood, SourceFile
from chipperf.languages import ENGLISH, in_all_languages
from chipperf.records.columns import columns_of
from chipperf.records.schema import (
    UNKNOWN,
    UNKNOWN_NAME,
    HyperparameterChange,
    HyperparametersRecord,
    Memory,
    Missing,
    Titles,
    Topology,
)
from chipperf.report.row import SHORT_KEYS, hyperparameter_order

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping
    from pathlib import Path

    from chipperf.documents.card_names import CardNames
    from chipperf.documents.case_document import CaseDocument, DocumentRow
    from chipperf.documents.markdown import Located
    from chipperf.records.columns import Column
    from chipperf.records.schema import Record, Setting, Text

_MEMORY_SOURCE = "imported document"
_LONG_KEYS = {short: key for key, short in SHORT_KEYS.items()}
_TEXT_COLUMNS = ("config_file", "target", "steps", "epochs")
_UNKNOWN_VERSIONS = tuple(f" {text}" for text in in_all_languages(MARKERS["unknown"]))


def import_document(
    text: str,
    name: str,
    *,
    names: CardNames,
    vendor: str | None = None,
    case: str | None = None,
    path: Path | None = None,
) -> Import:
    """Return the records of a case document.

    Content that has no field in a record becomes a remark. Text in the layout's places that does not fit the layout is
    also listed as not understood.

    Args:
        text: The document.
        name: Name of the document in messages and sources.
        names: Names of vendors and cards.
        vendor: The document's vendor; by default detected.
        case: The document's case; by default detected.
        path: Path of the document. Its directories may name vendor and case.

    Raises:
        DocumentError: The document has no row that can be read, or its vendor or case is unknown.
    """
    document = read_document(text, name)
    vendor = vendor or identify_vendor(document, names, path)
    case = case or identify_case(document, path)
    if not any(row.topology for row in document.rows):
        raise DocumentError(
            f"{name} has no performance table with a row whose topology can be read",
            hint="rows start like 'R300单机8卡（1x8）', below a header with 配置 or Configuration",
        )
    if vendor is None:
        raise DocumentError(f"{name} does not name its vendor", hint="give it with --vendor NAME")
    if case is None:
        raise DocumentError(f"{name} does not name its model", hint="give the case with --case NAME")
    return _Importer(document, text, vendor=vendor, case=case, names=names).run()


class _Importer:
    """Builds the records, and collects the source of each value."""

    def __init__(self, document: CaseDocument, text: str, *, vendor: str, case: str, names: CardNames) -> None:
        self._document = document
        self._names = names
        self._vendor = vendor
        self._case_name = case
        self._case = installed_cases().get(case)
        self._sha256 = hashlib.sha256(text.encode()).hexdigest()
        self._shared: list[ImportSource] = []
        self._remarks: dict[str, Located] = {}
        self._not_understood: list[NotUnderstood] = []

    def run(self) -> Import:
        document = self._document
        for located in document.not_understood:
            self._list(located, "a row or cell that the general table does not have")
        environment = self._environment()
        dataset = self._dataset()
        report_title = self._report_title()
        rows = self._rows()
        self._general_remarks()
        for located in document.remarks:
            self._remark(located.text, located)
        remarks = list(self._remarks)
        shared = (*self._shared, *self._remark_sources())
        records = []
        for index, (row, changes, sources) in enumerate(rows, start=1):
            record = self._blank(index, row)
            label = changes.pop("row_label")
            update: dict[str, Any] = {
                **changes,
                "vendor": record.vendor.model_copy(update={"report_title": report_title(record.vendor.report_title)}),
                "environment": record.environment.model_copy(update={**environment, "row_label": label}),
                "dataset": record.dataset.model_copy(update={"name": dataset}),
                "metrics": record.metrics.model_copy(update=changes["metrics"]),
                "precision": record.precision.model_copy(update={"requested": changes["precision"]}),
                "remarks": remarks,
            }
            records.append(ImportedRecord(_checked(record, update), (*sources, *shared)))
        return Import(
            files=(SourceFile(name=document.name, sha256=self._sha256),),
            records=tuple(records),
            not_understood=tuple(sorted(self._not_understood, key=lambda each: (each.line, each.column))),
            generated_lines=document.generated_lines,
        )

    def _blank(self, index: int, row: DocumentRow) -> Record:
        topology = row.topology
        nnodes, nproc = (topology.nnodes, topology.nproc_per_node) if topology else (1, 1)
        return blank_record(
            run_id=f"imported-{self._sha256[:8]}-{index}",
            vendor=self._vendor,
            case=self._case_name,
            topology=Topology(nnodes=nnodes, nproc_per_node=nproc),
            names=self._names,
            metrics_definition=self._document.metrics_definition,
        )

    def _environment(self) -> dict[str, Text]:
        facts: dict[str, Text] = {}
        for key, located in self._document.facts.items():
            facts[key] = self._text(f"environment.{key}", located)
        short = self._document.general.get("card_short_name")
        if short:
            facts["card_short_name"] = self._text("environment.card_short_name", short.value)
        return facts

    def _text(self, field: str, located: Located) -> Text:
        self._shared.append(self._source(field, located))
        missing = cells.marker(located.text)
        return located.text if missing is None else missing

    def _dataset(self) -> str:
        row = self._document.general.get("dataset")
        text = row.value.text if row else ""
        for mark in _UNKNOWN_VERSIONS:
            text = text.removesuffix(mark)
        if row is None or cells.marker(text) is not None:
            return UNKNOWN_NAME
        self._shared.append(self._source("dataset.name", row.value))
        if self._case:
            reference = self._case.data.reference
            if wording.normal(text) in (wording.normal(reference.name), wording.normal(reference.title)):
                return reference.name
        return text

    def _report_title(self) -> Callable[[Titles], Titles]:
        title = self._document.title
        if title is None or not title.text:
            return lambda titles: titles
        self._shared.append(self._source("vendor.report_title", title))
        changed = dict.fromkeys(Titles.model_fields, title.text)
        # Without a plugin the title in the other languages is unknown.
        if self._names.info(self._vendor) is not None:
            language = self._document.language
            changed = {language if language in changed else ENGLISH: title.text}
        return lambda titles: titles.model_copy(update=changed)

    def _general_remarks(self) -> None:
        for key, row in self._document.general.items():
            if not self._says_the_usual(key, row.value.text):
                self._remark(f"{row.label.text}: {row.value.text}", row.value)
            if not wording.is_standard_remark(row.remark.text):
                self._remark(f"{row.label.text}: {row.remark.text}", row.remark)

    def _says_the_usual(self, key: str, text: str) -> bool:
        if key in ("card_short_name", "dataset") or cells.marker(text) is not None:
            return True
        if key == "model":
            found = find_case_by_model(text)
            return found is not None and found.name == self._case_name
        if key == "task" and self._case:
            return text in in_all_languages(self._case.report.task)
        if key == "changes":
            return wording.says_nothing(text)
        return key != "task" and wording.refers_to_column(text) is not None

    def _rows(self) -> list[tuple[DocumentRow, dict[str, Any], list[ImportSource]]]:
        rows = []
        seen: dict[Hashable, DocumentRow] = {}
        for row in self._document.rows:
            if row.topology is None:
                self._list(row.label, "no topology such as 1x8 can be read from it")
                self._remark(" | ".join(cell.text for cell in row.cells.values() if cell.text), row.label)
                continue
            remarks_before = dict(self._remarks)
            changes, sources = self._row(row)
            key = _row_key(row, changes)
            if key in seen:
                self._remarks = remarks_before
                self._list(row.label, f"line {seen[key].line} has the same card, topology, precision and fix_hp")
                self._remark(" | ".join(cell.text for cell in row.cells.values() if cell.text), row.label)
                continue
            seen[key] = row
            rows.append((row, changes, sources))
        return rows

    def _row(self, row: DocumentRow) -> tuple[dict[str, Any], list[ImportSource]]:
        label = row.topology.card if row.topology else ""
        label_marker = cells.marker(label)
        sources = [self._source("topology", row.label)]
        metrics: dict[str, Any] = {}
        for column in columns_of("report"):
            if cell := row.cells.get(column.key):
                # Memory is a value of several parts. A cell has two of them.
                field = column.field.split(".")[1]
                sources.append(self._source(f"metrics.{field}", cell))
                metrics[field] = self._reported(row, column, cell)
        precision = UNKNOWN_NAME
        if cell := row.cells.get("precision"):
            sources.append(self._source("precision.requested", cell))
            precision = cell.text if cells.marker(cell.text) is None else UNKNOWN_NAME
        hyperparameters = HyperparametersRecord(values={}, changes=UNKNOWN, global_batch_size=UNKNOWN)
        if cell := row.cells.get("fix_hp"):
            sources.append(self._source("hyperparameters.changes", cell))
            hyperparameters = self._hyperparameters(row, cell)
        for name in _TEXT_COLUMNS:
            cell = row.cells.get(name)
            if cell and cells.marker(cell.text) is None:
                self._remark(f"{row.label.text}: {self._document.headers[name].text} {cell.text}", cell)
        for header, cell in row.unknown:
            self._list(cell, f"the column {header!r} is unknown" if header else "the table has no such column")
            self._remark(f"{row.label.text}: {header} {cell.text}", cell)
        changes = {
            "row_label": label if label_marker is None else label_marker,
            "metrics": metrics,
            "precision": precision,
            "hyperparameters": hyperparameters,
        }
        return changes, sources

    def _reported(self, row: DocumentRow, column: Column, cell: Located) -> float | Memory | Missing:
        missing = cells.marker(cell.text)
        if missing is not None:
            return missing
        in_bytes = column.unit == "bytes"
        value = cells.memory(cell.text) if in_bytes else cells.in_unit(cell.text, column.unit)
        if value is None:
            self._misread(row, column.key, cell, "not used/total in GiB" if in_bytes else "not a number")
            return UNKNOWN
        return _memory(value) if isinstance(value, cells.MemoryCell) else value

    def _hyperparameters(self, row: DocumentRow, cell: Located) -> HyperparametersRecord:
        missing = cells.marker(cell.text)
        if missing is not None:
            changes: list[HyperparameterChange] | Missing = [] if missing.missing == "not_applicable" else missing
            return HyperparametersRecord(values={}, changes=changes, global_batch_size=UNKNOWN)
        written, rest = cells.assignments(cell.text)
        values: dict[str, Setting] = {}
        for key, value in written.items():
            long_key = _LONG_KEYS.get(key, key)
            if long_key in values:
                rest.append(f"{key}={setting(value, exact=True)}")
            else:
                values[long_key] = value
        if rest:
            self._misread(row, "fix_hp", cell, f"not key=value: {', '.join(rest)}")
        if not values:
            return HyperparametersRecord(values={}, changes=UNKNOWN, global_batch_size=UNKNOWN)
        order = hyperparameter_order(self._case) if self._case else {}
        ordered = dict(sorted(values.items(), key=lambda item: order.get(item[0], len(order))))
        return HyperparametersRecord(
            values=ordered,
            changes=[self._change(key, value) for key, value in ordered.items()],
            global_batch_size=_global_batch_size(row, ordered.get("batch_size")),
        )

    def _change(self, key: str, value: Setting) -> HyperparameterChange:
        known = self._case.base.model_dump() if self._case else {}
        base = known.get(key, UNKNOWN)
        return HyperparameterChange(key=key, base=base, value=value, origin="vendor")

    def _misread(self, row: DocumentRow, column: str, cell: Located, reason: str) -> None:
        self._list(cell, f"{column}: {reason}")
        self._remark(f"{row.label.text}: {column} {cell.text}", cell)

    def _remark(self, text: str, located: Located) -> None:
        if text:
            self._remarks.setdefault(text, located)

    def _remark_sources(self) -> list[ImportSource]:
        return [self._source(f"remarks.{index}", place) for index, place in enumerate(self._remarks.values())]

    def _list(self, located: Located, reason: str) -> None:
        place = located.place
        self._not_understood.append(
            NotUnderstood(
                file=self._document.name, line=place.line, column=place.column, text=located.text, reason=reason
            )
        )

    def _source(self, field: str, located: Located) -> ImportSource:
        place = located.place
        return ImportSource(
            field=field, file=self._document.name, line=place.line, column=place.column, text=located.text
        )


def _memory(cell: cells.MemoryCell) -> Memory:
    return Memory(
        allocated_peak_bytes=UNKNOWN,
        reserved_peak_bytes=UNKNOWN,
        device_peak_bytes=cell.used_bytes,
        total_bytes=cell.total_bytes,
        allocator_source=_MEMORY_SOURCE,
        device_source=_MEMORY_SOURCE,
    )


def _global_batch_size(row: DocumentRow, batch_size: Setting | None) -> int | Missing:
    if row.topology is None or not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1:
        return UNKNOWN
    return batch_size * row.topology.cards


def _row_key(row: DocumentRow, changes: Mapping[str, Any]) -> Hashable:
    changed = changes["hyperparameters"].changes
    written = (
        changed
        if isinstance(changed, Missing)
        else tuple((change.key, setting(change.value, exact=True)) for change in changed)
    )
    shape = row.topology.shape if row.topology else ""
    return (changes["row_label"], shape, changes["precision"], written)


def _checked(record: Record, update: Mapping[str, Any]) -> Record:
    """Return the record with ``update``, and validate it, because :meth:`model_copy` does not."""
    return type(record).model_validate(record.model_copy(update=dict(update)).model_dump())
