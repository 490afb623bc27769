"""A vendor's case document: environment, general table and performance table, each value with its place.

Other content is kept as text. Text in the layout's places that does not fit the layout is listed separately.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from chipperf.documents import markdown, wording
from chipperf.documents.cells import marker
from chipperf.documents.markdown import Block, Located, Place, Table
from chipperf.documents.topology import RowLabel, parse_row_label
from chipperf.languages import ENGLISH, list_separator
from chipperf.records.columns import WINDOWED

if TYPE_CHECKING:
    from chipperf.documents.markdown import Markdown
    from chipperf.languages import Language

_TEMPLATE_MARK: Final = re.compile(r"chipperf report template (\d+)")
_IMPORTED_MARK: Final = re.compile(r"chipperf imported values; metric definitions: (\w+)")
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
    """A row of the performance table.

    Attributes:
        label: Text of the configuration.
        topology: Topology in that text; ``None`` if it has none.
        cells: Cells by column. A missing cell of the row has an empty text.
        unknown: Cells of unknown columns, each after its header.
        old_layout: True for FlagPerf's first layout, which has no ``p_*`` columns.
    """

    label: Located
    topology: RowLabel | None
    cells: dict[str, Located]
    unknown: list[tuple[str, Located]]
    old_layout: bool

    @property
    def line(self) -> int:
        """Line of the row."""
        return self.label.place.line

    @property
    def precision(self) -> str:
        """Precision in lower case; empty if the row has none."""
        cell = self.cells.get("precision")
        return cell.text.casefold() if cell and marker(cell.text) is None else ""

    def text(self, column: str) -> str | None:
        """Return a cell's text, or ``None`` if the table has no such column."""
        cell = self.cells.get(column)
        return cell.text if cell else None


@dataclass(slots=True, kw_only=True)
class CaseDocument:
    """The content of a case document.

    Attributes:
        name: Name of the file in messages.
        markdown: The parsed document.
        language: Main language of the document.
        generated: True if chipperf rendered the document.
        metrics_definition: Definition of the metrics that its numbers follow.
        title: Heading of the vendor's own section.
        facts: Environment by field of the record's environment.
        general: General table by the kind of the row.
        headers: Header of the performance table by column.
        rows: Rows of the performance tables.
        remarks: All other text, in its order.
        not_understood: Text in the layout's places that does not fit the layout.
        generated_lines: Lines of notes and evidence from chipperf, which repeat the tables.
    """

    name: str
    markdown: Markdown
    language: Language
    generated: bool
    metrics_definition: Literal["chipperf", "flagperf"]
    title: Located | None = None
    facts: dict[str, Located] = field(default_factory=dict)
    general: dict[str, GeneralRow] = field(default_factory=dict)
    headers: dict[str, Located] = field(default_factory=dict)
    rows: list[DocumentRow] = field(default_factory=list)
    remarks: list[Located] = field(default_factory=list)
    not_understood: list[Located] = field(default_factory=list)
    generated_lines: int = 0

    @property
    def is_report(self) -> bool:
        """True if the document has a performance table, a general table or environment facts."""
        return bool(self.rows or self.headers or self.general or len(self.facts) >= _MIN_KNOWN_ROWS)


def read_document(text: str, name: str) -> CaseDocument:
    """Return the content of a document. Any Markdown is a document, possibly without content.

    Raises:
        DocumentError: A table is too long.
    """
    parsed = markdown.parse(text, name)
    comments = [comment.text for comment in parsed.comments]
    generated = any(_TEMPLATE_MARK.search(comment) for comment in comments)
    imported = next((match for comment in comments if (match := _IMPORTED_MARK.search(comment))), None)
    by_chipperf = generated and (imported is None or imported[1] == "chipperf")
    document = CaseDocument(
        name=name,
        markdown=parsed,
        language=_language(text, parsed, generated=generated),
        generated=generated,
        metrics_definition="chipperf" if by_chipperf else "flagperf",
    )
    _Reader(document).read()
    return document


def _language(text: str, parsed: Markdown, *, generated: bool) -> Language:
    """Return the language of a document: a report of chipperf's is in that of its headings, others by their script."""
    headings = (block.text for block in parsed.blocks if not isinstance(block, Table) and block.kind == "heading")
    own = wording.language_of_headings(headings) if generated else None
    return own or ("zh" if len(_IDEOGRAPH.findall(text)) * 10 > len(text) else ENGLISH)


class _Reader:
    """Reads the blocks in order and keeps track of the section."""

    def __init__(self, document: CaseDocument) -> None:
        self._document = document
        self._section = "beginning"
        self._open_fact: tuple[str, int] | None = None
        self._in_notes = False
        self._last_heading: Located | None = None

    def read(self) -> None:
        for block in self._document.markdown.blocks:
            if isinstance(block, Table):
                self._table(block)
            elif block.kind == "heading":
                self._heading(block)
            elif self._is_generated_text(block):
                self._document.generated_lines += block.last_line - block.place.line + 1
            elif block.kind == "item":
                self._item(block)
            else:
                self._text(block)

    def _heading(self, block: Block) -> None:
        kind = wording.heading_kind(block.text)
        heading = Located(block.text, block.place)
        self._open_fact = None
        self._in_notes = False
        if self._section == "evidence" and kind not in ("remarks", "title"):
            self._document.generated_lines += 1
            return
        if kind == "evidence" and not self._document.generated:
            kind = None
        if kind == "environment" and self._document.title is None and self._section == "other" and self._last_heading:
            # If the title has the vendor's own wording, it is the heading above the environment.
            self._document.title = self._last_heading
            if self._document.remarks and self._document.remarks[-1] == self._last_heading:
                self._document.remarks.pop()
        if kind == "title":
            if self._document.title is None:
                self._document.title = heading
            else:
                self._remark(heading)
        elif kind is None or (kind == "curve" and not self._document.generated):
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
            self._remark(Located(block.text, block.place))
            return
        if self._open_fact and block.depth > self._open_fact[1]:
            self._continue_fact(self._open_fact[0], block)
            return
        self._open_fact = None
        match = _LABEL_END.search(block.text)
        key = wording.FACTS.get(wording.normal(block.text[: match.start()])) if match else None
        if match is None or key is None:
            self._remark(Located(block.text, block.place))
            return
        value = Located(block.text[match.end() :].strip(), block.value or block.place)
        self._fact(key, value, block)

    def _fact(self, key: str, value: Located, block: Block) -> None:
        facts = self._document.facts
        if key == "machine_and_card":
            key = "card_title"
            separator = list_separator(self._document.language)
            if self._document.generated and separator in value.text and "machine" not in facts:
                machine, _, card = value.text.partition(separator)
                facts["machine"] = Located(machine, value.place)
                value = Located(card, value.place)
        if key in facts:
            self._remark(Located(block.text, block.place))
            return
        facts[key] = value
        if not value.text:
            self._open_fact = (key, block.depth)

    def _continue_fact(self, key: str, block: Block) -> None:
        before = self._document.facts[key]
        text = f"{before.text}; {block.text}" if before.text else block.text
        self._document.facts[key] = Located(text, before.place if before.text else block.place)

    def _text(self, block: Block) -> None:
        text = Located(block.text, block.place)
        if self._open_fact and block.kind == "paragraph" and block.depth:
            self._continue_fact(self._open_fact[0], block)
        else:
            self._remark(text)

    def _remark(self, text: Located) -> None:
        if text.text:
            self._document.remarks.append(text)

    def _table(self, table: Table) -> None:
        if self._section == "evidence":
            self._document.generated_lines += table.last_line - table.place.line + 1
            return
        self._open_fact = None
        columns = [self._column(header) for header in table.header]
        known = [column for column in columns if column]
        first = [wording.normal(row[0].text) if row else "" for row in table.rows]
        if "configuration" in known and len(known) >= _MIN_KNOWN_COLUMNS:
            self._performance(table, columns)
        elif sum(label in wording.GENERAL for label in first) >= _MIN_KNOWN_ROWS:
            self._general(table)
        else:
            for row in (table.header, *table.rows):
                for cell in row:
                    self._remark(cell)

    def _column(self, header: Located) -> str | None:
        name = wording.without_unit(header.text)
        key = wording.COLUMNS.get(wording.normal(name))
        if key:
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

    def _performance(self, table: Table, columns: list[str | None]) -> None:
        # A second column with the same name is unknown, because we cannot decide which of the two is right.
        unique = [None if column in columns[:index] else column for index, column in enumerate(columns)]
        for column, header in zip(unique, table.header, strict=True):
            if column:
                self._document.headers.setdefault(column, header)
        old_layout = not set(WINDOWED) & set(unique)
        for cells in table.rows:
            if cells:
                self._document.rows.append(self._row(table, unique, cells, old_layout=old_layout))

    def _row(
        self, table: Table, columns: list[str | None], cells: tuple[Located, ...], *, old_layout: bool
    ) -> DocumentRow:
        end = Place(cells[-1].place.line, cells[-1].place.column + len(cells[-1].text))
        known = {column: Located("", end) for column in columns if column}
        unknown = []
        for index, cell in enumerate(cells):
            column = columns[index] if index < len(columns) else None
            if column:
                known[column] = cell
            elif cell.text:
                unknown.append((table.header[index].text if index < len(columns) else "", cell))
        label = known["configuration"]
        if not label.text:
            label = Located("", cells[0].place)
        config_name = known["config_file"].text if "config_file" in known else ""
        return DocumentRow(
            label=label,
            topology=parse_row_label(label.text, config_name),
            cells=known,
            unknown=unknown,
            old_layout=old_layout,
        )

    def _unknown(self, text: str, place: Place) -> None:
        if text:
            self._document.not_understood.append(Located(text, place))
            self._document.remarks.append(Located(text, place))
