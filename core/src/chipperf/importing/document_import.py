"""Importing a vendor's case document: one record for each row of its performance table."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any

from chipperf.documents import cells, wording
from chipperf.documents.case_document import CaseDocument, DocumentRow, read_document
from chipperf.documents.document_identity import find_case_by_model, identify_case, identify_vendor, installed_cases
from chipperf.documents.format import MARKERS, setting
from chipperf.documents.markdown import Located
from chipperf.documents.stated_units import stated_factor
from chipperf.documents.topology import bracketed_shapes
from chipperf.errors import DocumentError
from chipperf.importing.imported import Import, ImportSource, NotUnderstood, SourceFile, imported_record
from chipperf.languages import ENGLISH, in_all_languages, pattern, phrase
from chipperf.records.columns import Column, columns_of
from chipperf.records.schema import UNKNOWN, UNKNOWN_NAME, HyperparameterChange, Memory, Missing, Titles, Topology
from chipperf.report.row import SHORT_KEYS, hyperparameter_order

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping
    from pathlib import Path

    from chipperf.cases.base import Case
    from chipperf.documents.card_names import CardNames
    from chipperf.documents.topology import RowLabel
    from chipperf.records.schema import Setting, Text

_MEMORY_SOURCE = "imported document"
_LONG_KEYS = {short: key for key, short in SHORT_KEYS.items()}
_TEXT_COLUMNS = ("config_file", "steps", "epochs", "tokens", "mfu", "aligned")
# Brackets after "=" hold a value.
_NOTE = re.compile(r"(?<![=\s])\s*[（(][^（）()]*[）)]|^[（(][^（）()]*[）)]")
_PRECISION = re.compile(r"[\w+. -]+(?:\s*[,，]\s*\w+\s*=\s*[\w.\"'“”]+)*")
"""One precision, which its level may follow: ``fp16, level="O2"``; not ``fp32/amp`` or ``fp32*``."""

_BOXES = "bbox"
"""In the header of two results: that of the boxes is the first, and the one of the case."""

_MEMORY_UNIT = re.compile("[KMGT]i?B", re.IGNORECASE)
_MEMORY_LEGEND = re.compile(r"(?:\bin\s+|单位[为是：:]?\s*)([KMGT]i?B)", re.IGNORECASE)
_LEAST_MEMORY_BYTES = 2**30
_SAMPLE = re.compile(pattern(phrase("sample dataset, not %(dataset)s")))
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
    also listed as not understood. Vendor and case are by default detected, also from the directories of ``path``.
    ``name`` is the document's name in messages and sources. A :class:`DocumentError` says that no row can be read, or
    that vendor or case is unknown.
    """
    document = read_document(text, name)
    vendor = vendor or identify_vendor(document, names, path)
    case = case or identify_case(document, path)
    if not any(row.topology and not _topology_fault(row) for row in document.rows):
        raise DocumentError(
            f"{name} has no performance table with a row whose topology can be read",
            hint="rows start like 'R300单机8卡（1x8）', below a header with 配置 or Configuration",
        )
    if vendor is None:
        hint = "give it with --vendor NAME of 'perf report import'; 'perf compare' takes the imported records"
        raise DocumentError(f"{name} does not name its vendor", hint=hint)
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
        general = document.general.get("dataset")
        self._is_sample = bool(general and _SAMPLE.fullmatch(general.remark.text))
        self._shared: list[ImportSource] = []
        self._remarks: dict[str, Located] = {}
        self._not_understood: list[NotUnderstood] = []

    def run(self) -> Import:
        document = self._document
        for located in document.not_understood:
            self._refuse(located, "a row or cell that the general table does not have")
        environment = self._environment()
        dataset = self._dataset()
        report_title = self._report_title()
        rows = self._rows()
        listed = {each.line for each in self._not_understood}
        for fault in document.faults:
            if fault.place.line not in listed:
                self._refuse(fault, fault.hint)
        for key, general in document.general.items():
            if not _says_the_usual(key, general.value.text, self._case_name, self._case):
                self._remark(f"{general.label.text}: {general.value.text}", general.value)
            if not wording.is_standard_remark(general.remark.text):
                self._remark(f"{general.label.text}: {general.remark.text}", general.remark)
        for located in document.remarks:
            self._remark(located.text, located)
        places = enumerate(self._remarks.values())
        shared = (*self._shared, *(self._source(f"remarks.{index}", place) for index, place in places))
        records = []
        for index, (topology, changes, sources) in enumerate(rows, start=1):
            records.append(
                imported_record(
                    run_id=f"imported-{self._sha256[:8]}-{index}",
                    vendor=self._vendor,
                    case=self._case_name,
                    topology=Topology(nnodes=topology.nnodes, nproc_per_node=topology.nproc_per_node),
                    names=self._names,
                    metrics_definition=document.metrics_definition,
                    values={
                        **changes,
                        "vendor": {"report_title": report_title},
                        "environment": {**environment, **changes["environment"]},
                        "dataset": dataset,
                        "remarks": list(self._remarks),
                    },
                    sources=(*sources, *shared),
                )
            )
        return Import(
            files=(SourceFile(name=document.name, sha256=self._sha256),),
            records=tuple(records),
            not_understood=tuple(sorted(self._not_understood, key=lambda each: (each.line, each.column))),
            generated=document.generated,
        )

    def _environment(self) -> dict[str, Text]:
        facts = dict(self._document.facts)
        if short := self._document.general.get("card_short_name"):
            facts["card_short_name"] = short.value
        self._shared += [self._source(f"environment.{key}", located) for key, located in facts.items()]
        return {key: cells.marker(located.text) or located.text for key, located in facts.items()}

    def _dataset(self) -> dict[str, Any]:
        row = self._document.general.get("dataset")
        text = row.value.text if row else ""
        for mark in _UNKNOWN_VERSIONS:
            text = text.removesuffix(mark)
        if row is None or cells.marker(text) is not None:
            return {"name": UNKNOWN_NAME, "is_sample": self._is_sample}
        self._shared.append(self._source("dataset.name", row.value))
        return _dataset_of(text, self._case, is_sample=self._is_sample)

    def _report_title(self) -> dict[str, str]:
        title = self._document.title
        if title is None or not title.text:
            return {}
        self._shared.append(self._source("vendor.report_title", title))
        if self._names.info(self._vendor) is None:
            # Without a plugin the title in the other languages is unknown.
            return dict.fromkeys(Titles.model_fields, title.text)
        language = self._document.language
        return {language if language in Titles.model_fields else ENGLISH: title.text}

    def _rows(self) -> list[tuple[RowLabel, dict[str, Any], list[ImportSource]]]:
        rows = []
        seen: dict[Hashable, DocumentRow] = {}
        for row in self._document.rows:
            whole_row = " | ".join(cell.text for cell in row.cells.values() if cell.text)
            fault = _topology_fault(row)
            if row.topology is None or fault:
                self._refuse(row.label, fault, whole_row)
                continue
            remarks_before = dict(self._remarks)
            values, sources = self._row(row, row.topology)
            key = _row_key(row, values)
            if key in seen and seen[key].identity != row.identity:
                others = [row.text("config_file") or "", *(cell.text for _, cell in row.unknown)]
                values["environment"]["row_label"] = _row_label(row, row.topology, *others)
                key = _row_key(row, values)
            if key in seen:
                self._remarks = remarks_before
                line = seen[key].label.place.line
                self._refuse(row.label, f"line {line} has the same card, topology and settings", whole_row)
                continue
            seen[key] = row
            rows.append((row.topology, values, sources))
        return rows

    def _row(self, row: DocumentRow, topology: RowLabel) -> tuple[dict[str, Any], list[ImportSource]]:
        sources = [self._source("topology", row.label)]
        metrics: dict[str, Any] = {}
        for column in columns_of("report"):
            if (cell := row.cells.get(column.key)) and not column.compute:
                # Memory is a value of several parts. A cell has two of them.
                field = column.field.split(".")[1]
                sources.append(self._source(f"metrics.{field}", cell))
                metrics[field] = self._reported(row, column, cell)
        precision = row.known("precision")
        if cell := row.cells.get("precision"):
            sources.append(self._source("precision.requested", cell))
            if precision and not _PRECISION.fullmatch(precision):
                self._misread(row, "precision", cell, "not one precision")
                precision = ""
        for name in ("fix_hp", "parallel"):
            if cell := row.cells.get(name):
                sources.append(self._source("hyperparameters.changes", cell))
        # The case's target is one for its own dataset.
        case: dict[str, Any] = {"target": UNKNOWN} if self._is_sample else {}
        if metrics.get("quality", UNKNOWN) != UNKNOWN and self._case is None:
            case["metric"] = wording.metric_name(row.headers["quality"]) or UNKNOWN_NAME
            if row.target is not None:
                sources.append(self._source("case.target", row.cells["target"]))
                case["target"] = row.target
        # The record has no field for a computed value.
        computed = (column.key for column in columns_of("report") if column.compute)
        has_target = case.get("target", UNKNOWN) != UNKNOWN
        texts = (*_TEXT_COLUMNS, *computed) if has_target else (*_TEXT_COLUMNS, "target", *computed)
        for name in texts:
            if text := row.known(name):
                self._remark(f"{row.label.text}: {self._document.headers[name].text} {text}", row.cells[name])
        for header, cell in row.unknown:
            remark = f"{row.label.text}: {header} {cell.text}"
            if wording.quality_kind(header) or cells.marker(cell.text):
                # A record has one result, and a marker says nothing in a column without a field.
                self._remark(remark, cell)
            else:
                self._refuse(
                    cell, f"the column {header!r} is unknown" if header else "the table has no such column", remark
                )
        values = {
            "environment": {"row_label": _row_label(row, topology)},
            "case": case,
            "metrics": metrics,
            "precision": {"requested": precision or UNKNOWN_NAME},
            "hyperparameters": self._hyperparameters(row),
        }
        return values, sources

    def _reported(self, row: DocumentRow, column: Column, cell: Located) -> float | Memory | Missing:
        if missing := cells.marker(cell.text):
            return missing
        in_bytes = column.unit == "bytes"
        value: float | cells.MemoryCell | None
        fault = "not used/total in GiB" if in_bytes else "not a number"
        if in_bytes:
            value = _memory(self._document, row)
        elif column.key == "quality":
            problem = _result_fault(self._document, row, cell)
            value, fault = (None, problem) if problem else (row.quality, fault)
        else:
            value = row.number(column.key)
            factor = stated_factor(column, row.headers[column.key], _legend(self._document, column.key))
            if factor is None or (factor != 1 and cell.text[-1:].isalpha()):
                value, fault = None, f"not clearly in {column.unit} by its header, legend and cell"
            elif value is not None:
                # In binary, 7 x 0.001 is not 0.007.
                value = value if factor == 1 else float(f"{value * factor:.12g}")
        if value is None:
            self._misread(row, column.key, cell, fault)
            return UNKNOWN
        if column.key == "quality" and self._case and not wording.is_fraction(row.metric):
            self._misread(row, column.key, cell, f"{row.metric} is not the metric of {self._case_name}")
            return UNKNOWN
        if not isinstance(value, cells.MemoryCell):
            if cell.text.count("&"):
                self._remark(f"{row.label.text}: {row.headers[column.key]} {cell.text}", cell)
            return value
        return _memory_of(value)

    def _hyperparameters(self, row: DocumentRow) -> dict[str, Any]:
        cell, parallel = row.cells.get("fix_hp"), row.known("parallel")
        if cell is None and not parallel:
            return {}
        cell = cell or Located("/", row.label.place)
        if (missing := cells.marker(cell.text)) and not parallel:
            return {"changes": [] if missing.missing == "not_applicable" else missing}
        written, rest = ({}, []) if missing else cells.assignments(_NOTE.sub("", cell.text))
        if not missing and (notes := "".join(_NOTE.findall(cell.text))):
            self._remark(f"{row.label.text}: fix_hp {notes.strip()}", cell)
        if parallel:
            written["parallel"] = parallel
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
            return {}
        order = hyperparameter_order(self._case) if self._case else {}
        base = self._case.base.model_dump() if self._case else {}
        ordered = dict(sorted(values.items(), key=lambda item: order.get(item[0], len(order))))
        found: dict[str, Any] = {
            "values": ordered,
            "changes": [
                HyperparameterChange(key=key, base=base.get(key, UNKNOWN), value=value, origin="vendor")
                for key, value in ordered.items()
            ],
        }
        batch_size = values.get("batch_size")
        if isinstance(batch_size, int) and not isinstance(batch_size, bool) and batch_size >= 1:
            found["global_batch_size"] = batch_size * row.card_count
        return found

    def _misread(self, row: DocumentRow, column: str, cell: Located, reason: str) -> None:
        self._refuse(cell, f"{column}: {reason}", f"{row.label.text}: {column} {cell.text}")

    def _refuse(self, located: Located, reason: str, remark: str = "") -> None:
        self._not_understood.append(NotUnderstood.at(located, self._document.name, reason))
        self._remark(remark, located)

    def _remark(self, text: str, located: Located) -> None:
        if text:
            self._remarks.setdefault(text, located)

    def _source(self, field: str, located: Located) -> ImportSource:
        return ImportSource.at(located, self._document.name, field)


def _dataset_of(text: str, case: Case | None, *, is_sample: bool) -> dict[str, Any]:
    """Return the fields of a dataset that a document names."""
    if is_sample:
        # chipperf generated it, and wrote its name and version.
        name, *version = text.split(" ", maxsplit=1)
        return {"name": name, "is_sample": True} | ({"version": version[0]} if version else {})
    reference = case.data.reference if case else None
    if reference and wording.normal(text) in (wording.normal(reference.name), wording.normal(reference.title)):
        return {"name": reference.name}
    return {"name": text}


def _memory_of(cell: cells.MemoryCell) -> Memory:
    return Memory(
        allocated_peak_bytes=UNKNOWN,
        reserved_peak_bytes=UNKNOWN,
        device_peak_bytes=cell.used_bytes,
        total_bytes=cell.total_bytes,
        allocator_source=_MEMORY_SOURCE,
        device_source=_MEMORY_SOURCE,
    )


def _memory(document: CaseDocument, row: DocumentRow) -> cells.MemoryCell | None:
    """Return used and total memory. A cell without a unit has that of the legend, if memory can be so small."""
    said = _MEMORY_LEGEND.search(_legend(document, "mem"))
    text, header = row.known("mem"), row.headers["mem"]
    if document.generated or not said or said[1][0] in "Gg" or _MEMORY_UNIT.search(text + header):
        return row.memory
    found = cells.memory(text, f"({said[1]})")
    return found if found and found.used_bytes >= _LEAST_MEMORY_BYTES else None


def _result_fault(document: CaseDocument, row: DocumentRow, cell: Located) -> str:
    """Return why a cell does not tell the result of the case, empty if it does."""
    header, legend = row.headers["quality"], wording.ranks(_legend(document, "quality"))
    name, is_fraction = wording.normal(wording.without_unit(header)), wording.is_fraction(row.metric)
    written = cells.number(cell.text.rstrip("%％ "))
    if document.generated:
        return ""
    if 5 in wording.ranks(header) or (5 in legend and 1 not in legend):
        return "accuracy among five guesses is not the case's result"
    if is_fraction and name.startswith("train"):
        return f"{header} is not the case's result"
    if "&" in cell.text and _BOXES not in header.casefold().partition("&")[0]:
        return "several results"
    if is_fraction and written is not None and written > 100:
        return "above 100 %"
    is_small = written is not None and 0 < written < 1 and cell.text.endswith(("%", "％"))
    if is_fraction and is_small and row.metric != "error rate":
        return "a percentage below 1, or a fraction with a percent sign"
    return ""


def _legend(document: CaseDocument, column: str) -> str:
    row = document.general.get(column)
    return row.remark.text if row else ""


def _says_the_usual(key: str, text: str, case_name: str, case: Case | None) -> bool:
    if key in ("card_short_name", "dataset") or cells.marker(text) is not None:
        return True
    if key == "model":
        found = find_case_by_model(text)
        return found is not None and found.name == case_name
    if key == "task" and case:
        return text in in_all_languages(case.report.task)
    if key == "changes":
        return wording.says_nothing(text)
    return key != "task" and wording.refers_to_column(text) is not None


def _topology_fault(row: DocumentRow) -> str:
    """Return why a row's first cell does not tell its topology, empty if it does."""
    if row.topology is None:
        return "no topology such as 1x8 can be read from it"
    if len(set(bracketed_shapes(row.label.text))) > 1:
        return "there are several topologies in its brackets"
    return f"its words name a different topology than {row.shape}" if row.topology.words_differ else ""


def _row_label(row: DocumentRow, topology: RowLabel, *others: str) -> str | Missing:
    """Return the card, and in brackets what else the first column says, by which rows of one card differ."""
    said = ", ".join(text for text in (topology.note, row.section, *others) if text)
    return f"{row.card} ({said})".strip() if said else cells.marker(row.card) or row.card


def _row_key(row: DocumentRow, values: Mapping[str, Any]) -> Hashable:
    """Return what differs between the rows of a document; of two equal ones the second is not imported."""
    changes = values["hyperparameters"].get("changes", UNKNOWN)
    if not isinstance(changes, Missing):
        changes = tuple((change.key, setting(change.value, exact=True)) for change in changes)
    return values["environment"]["row_label"], row.shape, values["precision"]["requested"], changes
