"""A vendor's case document: environment, general table and performance table, each value with its place.

Other content is kept as text. Text in the layout's places that does not fit the layout is listed separately.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import TYPE_CHECKING, Final, get_args

from chipperf.documents import cells, markdown, wording
from chipperf.documents.markdown import Block, Located, Markdown, Place, Table
from chipperf.documents.topology import RowLabel, parse_row_label
from chipperf.languages import ENGLISH, LIST_SEPARATOR, Language, in_language
from chipperf.records.columns import WINDOWED
from chipperf.records.schema import UNKNOWN, MetricsDefinition

if TYPE_CHECKING:
    from chipperf.documents.cells import MemoryCell
    from chipperf.records.schema import Setting

_TEMPLATE_MARK: Final = re.compile(r"chipperf report template (\d+)")
_IMPORTED_MARK: Final = re.compile(r"chipperf imported values; metric definitions: (\w+)")
_DEFINITIONS: Final[Mapping[str, MetricsDefinition]] = {each: each for each in get_args(MetricsDefinition)}
_LABEL_END: Final = re.compile(r"\s*[:：]\s*")
_IDEOGRAPH: Final = re.compile(r"[\u3400-\u9fff]")
_MIN_KNOWN_COLUMNS: Final = 3
_MIN_KNOWN_ROWS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneralRow:
    """A row of the general table."""

    label: Located
    value: Located
    remark: Located


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentRow:
    """A row of the performance table: its cells by column, and those of unknown columns, each after its header.

    A missing cell of the row has an empty text. FlagPerf's ``old_layout`` has no ``p_*`` columns.
    """

    label: Located
    topology: RowLabel | None
    cells: dict[str, Located]
    unknown: list[tuple[str, Located]]
    old_layout: bool

    @property
    def card(self) -> str:
        """Text before the topology; empty without a topology."""
        return self.topology.card if self.topology else ""

    @property
    def shape(self) -> str:
        """Topology, for example ``1x8``; empty without one."""
        return self.topology.label if self.topology else ""

    @property
    def card_count(self) -> int:
        """All cards; 0 without a topology."""
        return self.topology.world_size if self.topology else 0

    @property
    def precision(self) -> str:
        """Precision in lower case; empty if the row has none."""
        return self.known("precision").casefold()

    @property
    def quality(self) -> float | None:
        """Result as a fraction."""
        return cells.quality(self.known("quality"))

    @property
    def memory(self) -> MemoryCell | None:
        """Used and total memory."""
        return cells.memory(self.known("mem"))

    @property
    def hyperparameters(self) -> Mapping[str, Setting] | None:
        """``fix_hp``, with the batch size as ``bs``; ``None`` if the row does not state it."""
        text = self.text("fix_hp")
        missing = UNKNOWN if text is None else cells.marker(text)
        if missing and missing.missing != "not_applicable":
            return None
        values, _ = cells.assignments(self.known("fix_hp"))
        return {("bs" if key == "batch_size" else key): value for key, value in values.items()}

    def text(self, column: str) -> str | None:
        """Return a cell's text, or ``None`` if the table has no such column."""
        cell = self.cells.get(column)
        return cell.text if cell else None

    def known(self, column: str) -> str:
        """Return a cell's text, empty if there is none or if it marks a missing value."""
        text = self.text(column)
        return "" if text is None or cells.marker(text) else text

    def number(self, column: str) -> float | None:
        """Return the number in a cell."""
        return cells.number(self.known(column))


@dataclass(slots=True, kw_only=True)
class CaseDocument:
    """The content of a case document.

    Attributes:
        generated: True if chipperf rendered the document.
        metrics_definition: Definition of the metrics that its numbers follow.
        title: Heading of the vendor's own section.
        facts: Environment by field of the record's environment.
        general: General table by the kind of the row.
        headers: Header of the performance table by column.
        remarks: All other text.
        not_understood: Text in the layout's places that does not fit the layout.
    """

    name: str
    markdown: Markdown
    language: Language
    generated: bool
    metrics_definition: MetricsDefinition
    title: Located | None = None
    facts: dict[str, Located] = field(default_factory=dict)
    general: dict[str, GeneralRow] = field(default_factory=dict)
    headers: dict[str, Located] = field(default_factory=dict)
    rows: list[DocumentRow] = field(default_factory=list)
    remarks: list[Located] = field(default_factory=list)
    not_understood: list[Located] = field(default_factory=list)

    @property
    def is_report(self) -> bool:
        """True if the document has a performance table, a general table or environment facts."""
        return bool(self.rows or self.headers or self.general or len(self.facts) >= _MIN_KNOWN_ROWS)


def read_document(text: str, name: str) -> CaseDocument:
    """Return the content of a document. Any Markdown is one, possibly without content, if no table is too long."""
    parsed = markdown.parse(text, name)
    comments = [comment.text for comment in parsed.comments]
    generated = any(_TEMPLATE_MARK.search(comment) for comment in comments)
    imported = next((match for comment in comments if (match := _IMPORTED_MARK.search(comment))), None)
    stated = imported[1] if imported else "chipperf"
    # A report of chipperf's is in the language of its headings, others are in that of their script.
    language = wording.language_of_headings(heading.text for heading in parsed.headings) if generated else None
    script = "zh" if len(_IDEOGRAPH.findall(text)) * 10 > len(text) else ENGLISH
    document = CaseDocument(
        name=name,
        markdown=parsed,
        language=language or script,
        generated=generated,
        metrics_definition=_DEFINITIONS.get(stated, "flagperf") if generated else "flagperf",
    )
    _Reader(document).read()
    return document


class _Reader:
    """Reads the blocks in order and keeps track of the section."""

    def __init__(self, document: CaseDocument) -> None:
        self._document = document
        self._section = "beginning"
        # A fact whose value follows below its label, and the depth of the label.
        self._open_fact: tuple[str, int] | None = None
        self._in_notes = False
        self._last_heading: Block | None = None

    def read(self) -> None:
        for block in self._document.markdown.blocks:
            if isinstance(block, Table):
                self._table(block)
            elif block.kind == "heading":
                self._heading(block)
            elif self._is_generated_text(block):
                continue
            elif self._open_fact and block.kind == "paragraph" and block.depth:
                self._continue_fact(self._open_fact[0], block)
            elif block.kind == "item":
                self._item(block)
            else:
                self._remark(block)

    def _heading(self, heading: Block) -> None:
        document, kind = self._document, wording.heading_kind(heading.text)
        self._open_fact = None
        self._in_notes = False
        if self._section == "evidence" and kind not in ("remarks", "title"):
            return
        if kind == "evidence" and not document.generated:
            kind = None
        if kind == "environment" and document.title is None and self._section == "other" and self._last_heading:
            # If the title has the vendor's own wording, it is the heading above the environment.
            document.title = self._last_heading
            if document.remarks and document.remarks[-1] == self._last_heading:
                document.remarks.pop()
        if kind == "title" and document.title is None:
            document.title = heading
        elif kind in (None, "title") or (kind == "curve" and not document.generated):
            self._remark(heading)
        self._section = kind or "other"
        self._last_heading = heading

    def _is_generated_text(self, block: Block) -> bool:
        if self._section == "licence":
            # Skip the standard sentence of the layout; another license is a remark.
            return self._document.generated or wording.normal(block.text) in ("apache20license。", "apache20license")
        if not self._document.generated:
            return False
        if block.kind == "item" and block.depth == 1:
            self._in_notes = wording.normal(block.text) in wording.NOTES_LABELS
        return self._in_notes or self._section in ("evidence", "beginning", "dataset", "curve")

    def _item(self, block: Block) -> None:
        if wording.normal(block.text) in wording.TABLE_LABELS:
            return
        if self._section == "remarks":
            self._remark(block)
            return
        if self._open_fact and block.depth > self._open_fact[1]:
            self._continue_fact(self._open_fact[0], block)
            return
        self._open_fact = None
        label, *value = _LABEL_END.split(block.text, maxsplit=1)
        key = wording.FACTS.get(wording.normal(label)) if value else None
        if key is None:
            self._remark(block)
        else:
            self._fact(key, Located(value[0].strip(), block.value or block.place), block)

    def _fact(self, key: str, value: Located, block: Block) -> None:
        facts = self._document.facts
        if key == "machine_and_card":
            key = "card_title"
            separator = in_language(LIST_SEPARATOR, self._document.language)
            if self._document.generated and separator in value.text and "machine" not in facts:
                machine, _, card = value.text.partition(separator)
                facts["machine"] = Located(machine, value.place)
                value = Located(card, value.place)
        if key in facts:
            self._remark(block)
            return
        facts[key] = value
        if not value.text:
            self._open_fact = (key, block.depth)

    def _continue_fact(self, key: str, block: Block) -> None:
        facts, before = self._document.facts, self._document.facts[key]
        facts[key] = Located(f"{before.text}; {block.text}", before.place) if before.text else block

    def _remark(self, text: Located) -> None:
        if text.text:
            self._document.remarks.append(text)

    def _table(self, table: Table) -> None:
        if self._section == "evidence":
            return
        self._open_fact = None
        columns = [self._column(header.text) for header in table.header]
        first = [wording.normal(row[0].text) if row else "" for row in table.rows]
        if "configuration" in columns and sum(map(bool, columns)) >= _MIN_KNOWN_COLUMNS:
            self._performance(table, columns)
        elif sum(label in wording.GENERAL for label in first) >= _MIN_KNOWN_ROWS:
            self._general(table)
        else:
            for row in (table.header, *table.rows):
                for cell in row:
                    self._remark(cell)

    def _column(self, header: str) -> str | None:
        name = wording.without_unit(header)
        if key := wording.COLUMNS.get(wording.normal(name)):
            return key
        general = self._document.general.get("quality")
        named = wording.refers_to_column(general.value.text) if general else None
        is_quality = wording.quality_kind(name) or (named and wording.normal(named) == wording.normal(name))
        return "quality" if is_quality else None

    def _general(self, table: Table) -> None:
        for row in table.rows:
            key = wording.GENERAL.get(wording.normal(row[0].text)) if row else None
            blank = Located("", row[0].place if row else table.place)
            label, value, remark, *rest = (*row, blank, blank, blank)[: max(3, len(row))]
            if key is None or key in self._document.general:
                self._unknown(" ".join(cell.text for cell in row if cell.text), label.place)
                continue
            self._document.general[key] = GeneralRow(label=label, value=value, remark=remark)
            for cell in rest:
                self._unknown(f"{label.text}: {cell.text}" if cell.text else "", cell.place)

    def _unknown(self, text: str, place: Place) -> None:
        if text:
            self._document.not_understood.append(Located(text, place))
            self._document.remarks.append(Located(text, place))

    def _performance(self, table: Table, columns: list[str | None]) -> None:
        # A second column with the same name is unknown, because we cannot decide which of the two is right.
        columns = [None if column in columns[:index] else column for index, column in enumerate(columns)]
        for column, header in zip(columns, table.header, strict=True):
            if column:
                self._document.headers.setdefault(column, header)
        for row in table.rows:
            if row:
                self._document.rows.append(_performance_row(table, columns, row))


def _performance_row(table: Table, columns: list[str | None], row: tuple[Located, ...]) -> DocumentRow:
    end = Place(row[-1].place.line, row[-1].place.column + len(row[-1].text))
    known = {column: Located("", end) for column in columns if column}
    unknown = []
    for column, header, cell in zip_longest(columns, table.header, row):
        if cell and column:
            known[column] = cell
        elif cell and cell.text:
            unknown.append((header.text if header else "", cell))
    label = known["configuration"]
    config_file = known.get("config_file")
    return DocumentRow(
        label=label if label.text else Located("", row[0].place),
        topology=parse_row_label(label.text, config_file.text if config_file else ""),
        cells=known,
        unknown=unknown,
        old_layout=not set(WINDOWED) & set(columns),
    )
