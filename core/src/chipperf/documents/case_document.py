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
from chipperf.documents.markdown import Block, Fault, Located, Markdown, Place, Table
from chipperf.documents.topology import RowLabel, has_topology_in_brackets, parse_config_name, parse_row_label
from chipperf.languages import ENGLISH, LIST_SEPARATOR, Language, in_language, pattern, phrase
from chipperf.records.columns import WINDOWED
from chipperf.records.schema import UNKNOWN, MetricsDefinition

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chipperf.documents.cells import MemoryCell
    from chipperf.records.schema import Setting

_TEMPLATE_MARK: Final = re.compile(r"chipperf report template (\d{1,9})")
_IMPORTED_MARK: Final = re.compile(r"chipperf imported values; metric definitions: (\w+)")
_DEFINITIONS: Final[Mapping[str, MetricsDefinition]] = {each: each for each in get_args(MetricsDefinition)}
_LABEL_END: Final = re.compile(r"\s*[:：]\s*")
_IDEOGRAPH: Final = re.compile(r"[\u3400-\u9fff]")
_MIN_KNOWN_COLUMNS: Final = 3
_MIN_KNOWN_ROWS: Final = 3
_DASHES: Final = re.compile(r"[:：]?[-－—―]+[:：]?")
_TAG: Final = re.compile(r"<[^>]*>")
_PAIR_IN_BRACKETS: Final = re.compile(r"[（(][^（）()]*/[^（）()]*[）)]")
_TARGET: Final = re.compile("目标|target", re.IGNORECASE)
_PRECISION: Final = re.compile(r"(?:[bt]?fp?\d+|amp)", re.IGNORECASE)
_REFERENCE: Final = re.compile(pattern(phrase("see note %(number)s"), number=r"(\d+)"))
_NOTE_OF_CHANGES: Final = re.compile(
    pattern(phrase("Note %(number)s, fix_hp: %(changes)s"), number=r"(\d+)", changes="(.+)")
)
_LINE_OF_A_ROW: Final = "write a row with as many cells as the header, and a bar on both sides"


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneralRow:
    """A row of the general table."""

    label: Located
    value: Located
    remark: Located


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentRow:
    """A row of the performance table: its cells by column, and those of unknown columns, each after its header.

    A cell that the row lacks is not there. FlagPerf's ``old_layout`` has one throughput, in samples. ``section`` is the
    heading within the table above the row, and ``headers`` are the headers of its known columns.
    """

    label: Located
    topology: RowLabel | None
    cells: dict[str, Located]
    unknown: list[tuple[str, Located]]
    old_layout: bool
    headers: Mapping[str, str]
    section: str = ""

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
    def config_name(self) -> str:
        """Name without suffix of the configuration that the row names; empty if it names none."""
        name = self.known("config_file").removesuffix(".py")
        return name if parse_config_name(name) else ""

    @property
    def metric(self) -> str | None:
        """Kind of its result, ``None`` if it is not known."""
        return wording.quality_kind(self.headers.get("quality", ""))

    @property
    def quality(self) -> float | None:
        """Result, as a fraction if its kind is one; the first of as many as the header names."""
        return self._result("quality")

    @property
    def target(self) -> float | None:
        """Target that is written beside the result."""
        return self._result("target")

    @property
    def memory(self) -> MemoryCell | None:
        """Used and total memory."""
        return cells.memory(self.known("mem"), self.headers.get("mem", ""))

    @property
    def identity(self) -> tuple[str, ...]:
        """What distinguishes the row from others of its topology: every column except those of measured values."""
        return *self.identity_besides_hyperparameters, self.text("fix_hp") or ""

    @property
    def identity_besides_hyperparameters(self) -> tuple[str, ...]:
        """The row's :attr:`identity` without ``fix_hp``."""
        note = self.topology.note if self.topology else ""
        stated = (self.text(column) or "" for column in ("precision", "config_file", "parallel"))
        return self.section, self.card, note, *stated, *(f"{header}={cell.text}" for header, cell in self.unknown)

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

    def _result(self, column: str) -> float | None:
        first, *others = self.known(column).split("&&")
        if len(others) > self.headers.get("quality", "").count("&&"):
            return None
        return cells.quality(first.strip(), is_fraction=wording.is_fraction(self.metric))


@dataclass(slots=True, kw_only=True)
class CaseDocument:
    """The content of a case document.

    Attributes:
        generated: True if chipperf rendered the document.
        metrics_definition: Definition of the metrics that its numbers follow.
        title: Heading of the vendor's own section.
        facts: Environment by field of the record's environment.
        other_facts: Facts of further environments, which are remarks too.
        general: General table by the kind of the row.
        headers: Header of the performance table by column.
        header_cells: All headers of performance tables, also those of unknown columns.
        remarks: All other text.
        not_understood: Text in the layout's places that does not fit the layout.
        faults: What could not be read as it is meant.
    """

    name: str
    markdown: Markdown
    language: Language
    generated: bool
    metrics_definition: MetricsDefinition
    title: Located | None = None
    facts: dict[str, Located] = field(default_factory=dict)
    other_facts: list[tuple[str, Located]] = field(default_factory=list)
    general: dict[str, GeneralRow] = field(default_factory=dict)
    headers: dict[str, Located] = field(default_factory=dict)
    header_cells: list[Located] = field(default_factory=list)
    rows: list[DocumentRow] = field(default_factory=list)
    remarks: list[Located] = field(default_factory=list)
    not_understood: list[Located] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    @property
    def is_report(self) -> bool:
        """True if the document has a performance table, a general table or environment facts."""
        return bool(self.rows or self.headers or self.general or self.faults or len(self.facts) >= _MIN_KNOWN_ROWS)

    def require_performance_table(self) -> None:
        """Add a fault if no row of a performance table was read, and nothing else says why."""
        if not self.rows and not self.faults:
            hint = "write the results as a table below a header with 配置 or Configuration"
            self.faults.append(Fault("there is no performance table with a row", Place(1, 1), hint))


def read_document(text: str, name: str) -> CaseDocument:
    """Return the content of a document. Any Markdown is one, possibly without content, if no table is too long."""
    parsed = markdown.parse(text, name)
    comments = [comment.text for comment in parsed.comments]
    generated = layout_of(parsed) is not None
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
    if document.general or document.headers:
        document.require_performance_table()
    return document


def layout_of(document: Markdown) -> int | None:
    """Return the version of the layout that chipperf rendered a document in, or ``None`` if it states none."""
    found = (_TEMPLATE_MARK.search(comment.text) for comment in document.comments)
    return next((int(mark[1]) for mark in found if mark), None)


class _Reader:
    """Reads the blocks in order and keeps track of the section."""

    def __init__(self, document: CaseDocument) -> None:
        self._document = document
        self._section = "beginning"
        self._tables = _Tables(document)
        # A fact whose value follows below its label, and the depth of the label.
        self._open_fact: tuple[str, int] | None = None
        self._in_notes = False
        self._notes_of_changes: dict[str, tuple[Block, str]] = {}
        self._last_heading: Block | None = None

    def read(self) -> None:
        for block in self._document.markdown.blocks:
            if isinstance(block, Block) and self._section != "evidence":
                self._note_of_changes(block)
            if self._section != "evidence" and self._tables.read(block):
                self._open_fact = None
            elif isinstance(block, Table):
                continue
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
        # Pages of another kind, such as a comparison, have such tables too.
        if self._document.is_report:
            self._document.faults += self._tables.transposed
        self._take_changes_from_notes()

    def _note_of_changes(self, block: Block) -> None:
        if block.kind == "item" and (found := _NOTE_OF_CHANGES.fullmatch(block.text)):
            # Each language has groups of its own.
            number, text = filter(None, found.groups())
            # The page's own notes come first. A text of a record that looks like one stands behind them.
            self._notes_of_changes.setdefault(number, (block, text))

    def _take_changes_from_notes(self) -> None:
        """Take each ``fix_hp`` whose cell refers to a note from the note."""
        for row in self._document.rows:
            reference = _REFERENCE.fullmatch(row.known("fix_hp"))
            if reference and (note := self._notes_of_changes.get(reference[reference.lastindex or 0])):
                block, text = note
                column = block.place.column + block.text.rindex(text)
                row.cells["fix_hp"] = Located(text.replace(", ", ","), Place(block.place.line, column))

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
            self._document.other_facts.append((key, value))
            self._remark(block)
            return
        facts[key] = value
        if not value.text:
            self._open_fact = (key, block.depth)

    def _continue_fact(self, key: str, block: Block) -> None:
        facts, before = self._document.facts, self._document.facts[key]
        facts[key] = Located(f"{before.text}; {block.text}", before.place) if before.text else block

    def _remark(self, text: Located) -> None:
        _add_remark(self._document, text)


class _Tables:
    """Reads the general table and performance tables, also those that are none for Markdown."""

    def __init__(self, document: CaseDocument) -> None:
        self._document = document
        self._last_table: _OpenTable | None = None
        self.transposed: list[Fault] = []

    def read(self, block: Block | Table) -> bool:
        """Read a block's table, and return whether it has one."""
        if isinstance(block, Table):
            self._last_table = None
            self._table(block)
            return True
        if block.kind != "heading" and self._broken_table(block):
            return True
        self._last_table = None
        return False

    def _table(self, table: Table) -> None:
        columns = self._columns(table.header)
        if not columns and any(row and has_topology_in_brackets(row[0].text) for row in table.rows):
            columns = [self._column(cell.text) for cell in table.header]
            hint = (
                "name the columns as the layout does: 配置, precision, fix_hp, e2e_time, p_whole, p_train, p_core, mem"
            )
            self._fault("the performance table has fewer than 3 columns that are known", table.header[0].place, hint)
        is_transposed = sum(_is_metric(row) for row in table.rows) >= _MIN_KNOWN_COLUMNS
        if columns:
            self._performance(table.header, table.rows, columns)
        elif _is_general(table.rows) and not is_transposed:
            self._general(table.header, table.rows)
        else:
            if is_transposed:
                hint = "write a row for each topology and a column for each metric"
                self.transposed.append(
                    Fault("a table with a row for each metric is not read", table.header[0].place, hint)
                )
            for row in (table.header, *table.rows):
                for cell in row:
                    _add_remark(self._document, cell)

    def _columns(self, header: Sequence[Located]) -> list[str | None]:
        """Return the columns of a performance table, or none if the header is that of another table."""
        columns = [self._column(cell.text) for cell in header]
        known = sum(map(bool, columns))
        is_header = known >= _MIN_KNOWN_COLUMNS and ("configuration" in columns or columns[0] is None)
        return columns if is_header else []

    def _column(self, header: str) -> str | None:
        if key := wording.column_name(header):
            return key
        general = self._document.general.get("quality")
        named = wording.refers_to_column(general.value.text) if general else None
        return "quality" if named and wording.normal(named) == wording.normal(wording.without_unit(header)) else None

    def _broken_table(self, block: Block) -> bool:
        """Read rows that Markdown doesn't take for those of a table, say why, and return whether there are any."""
        rows = markdown.rows_in(self._document.markdown, block)
        if not rows:
            if block.kind == "html" and self._is_html_table(block):
                hint = "write it as a table of Markdown, with bars between the cells"
                self._fault("a table in HTML is not read", block.place, hint)
            return False
        for index, header in enumerate(rows):
            body = tuple(row for row in rows[index + 1 :] if not _is_delimiter(row))
            if columns := self._columns(header):
                self._lost_table(block, header, rows[index + 1 : index + 2])
                self._performance(header, body, columns)
                return True
        without_header = wording.normal(rows[0][0].text) in wording.GENERAL
        if _is_general(rows) and not (without_header and self._last_table):
            self._lost_table(block, rows[0], rows[1:2])
            body = rows[0 if without_header else 1 :]
            self._general(rows[0], tuple(row for row in body if not _is_delimiter(row)))
            return True
        if self._last_table is None:
            return False
        cut_off = tuple(row for row in rows if not _is_delimiter(row))
        self._fault(
            f"{len(cut_off)} rows are cut off from their table",
            block.place,
            "remove the blank line, comment or text between them and the table",
        )
        self._last_table.append(cut_off)
        return True

    def _lost_table(self, block: Block, header: Sequence[Located], next_rows: Sequence[Sequence[Located]]) -> None:
        """Say why a table is none."""
        place = header[0].place
        delimiter = next((row for row in next_rows if _is_delimiter(row)), None)
        if markdown.has_full_width_bars(self._document.markdown, place.line):
            reason, hint = "its bars are full-width", "write | for ｜"
        elif delimiter is None:
            reason, hint = "it has no delimiter row", "write a row | --- | --- | below the header"
        elif len(delimiter) != len(header):
            reason = f"its delimiter row has {len(delimiter)} cells, its header {len(header)}"
            hint = "write as many cells in both"
        else:
            reason = "it is in code" if block.kind == "code" else "it is within another text"
            hint = "put a blank line before it, and no more than three spaces before its lines"
        self._fault(f"this is not a table in Markdown: {reason}", place, hint)

    def _is_html_table(self, block: Block) -> bool:
        if "<table" not in block.text.casefold():
            return False
        lines = self._document.markdown.lines[block.place.line - 1 : block.last_line]
        texts = [piece.strip() for line in lines for piece in _TAG.split(line) if piece.strip()]
        known = {wording.column_name(text) or wording.GENERAL.get(wording.normal(text)) for text in texts} - {None}
        return len(known) >= _MIN_KNOWN_COLUMNS

    def _fault(self, text: str, place: Place, hint: str) -> None:
        self._document.faults.append(Fault(text, place, hint))

    def _general(self, header: Sequence[Located], rows: Sequence[Sequence[Located]]) -> None:
        self._last_table = _OpenTable(lambda more: self._general(header, more))
        for row in rows:
            key = wording.GENERAL.get(wording.normal(row[0].text)) if row else None
            blank = Located("", row[0].place if row else header[0].place)
            label, value, remark, *rest = (*row, blank, blank, blank)[: max(3, len(row))]
            if key is None or key in self._document.general:
                text = " ".join(cell.text for cell in row if cell.text)
                if wording.column_name(wording.refers_to_column(value.text) or value.text):
                    # It explains a column that the layout does not have, or a second result.
                    self._document.remarks.append(Located(text, label.place))
                else:
                    self._unknown(text, label.place)
                continue
            self._document.general[key] = GeneralRow(label=label, value=value, remark=remark)
            for cell in rest:
                self._unknown(f"{label.text}: {cell.text}" if cell.text else "", cell.place)
            self._count_cells(row, len(header))

    def _unknown(self, text: str, place: Place) -> None:
        if text:
            self._document.not_understood.append(Located(text, place))
            self._document.remarks.append(Located(text, place))

    def _count_cells(self, row: Sequence[Located], wanted: int) -> None:
        written = len(row)
        while written > wanted and not row[written - 1].text:
            written -= 1
        if written != wanted:
            self._fault(f"the row has {written} cells, its header {wanted}", row[0].place, _LINE_OF_A_ROW)

    def _performance(
        self, header: Sequence[Located], rows: Sequence[Sequence[Located]], columns: Sequence[str | None]
    ) -> None:
        document = self._document
        self._last_table = _OpenTable(lambda more: self._performance(header, more, columns))
        if "configuration" not in columns:
            columns = ["configuration", *columns[1:]]
            hint = "head the column of the cards with 配置 or Configuration"
            self._fault("the performance table has no column for the configuration", header[0].place, hint)
        columns = _distinct(columns, header, document.general.get("quality"))
        for column, cell in zip(columns, header, strict=True):
            if column:
                document.headers.setdefault(column, cell)
        document.header_cells += header
        section = ""
        for row in rows:
            if len(row) == 1 and len(header) > 1 and row[0].text and parse_row_label(row[0].text) is None:
                hint = "put a blank line before a text below a table"
                self._fault("this text became a row of the table above it", row[0].place, hint)
                _add_remark(self._document, row[0])
            elif not any(cell.text for cell in row):
                self._fault("the row is empty", (*row, header[0])[0].place, "remove it")
            elif all(not cell.text or _DASHES.fullmatch(cell.text) for cell in row[1:]) and len(row) > 1:
                section = row[0].text
                _add_remark(self._document, row[0])
            else:
                self._count_cells(row, len(header))
                self._performance_row(columns, header, row, section)

    def _performance_row(
        self, columns: Sequence[str | None], header: Sequence[Located], row: Sequence[Located], section: str
    ) -> None:
        known: dict[str, Located] = {}
        unknown = []
        for column, head, cell in zip_longest(columns, header, row):
            if cell and column:
                known[column] = cell
            elif cell and cell.text:
                unknown.append((head.text if head else "", cell))
        self._split_result(known)
        label = known.get("configuration")
        config_file = known.get("config_file")
        texts = {column: head.text for column, head in zip(columns, header, strict=True) if column}
        self._document.rows.append(
            DocumentRow(
                label=label if label and label.text else Located("", row[0].place),
                topology=parse_row_label(label.text if label else "", config_file.text if config_file else ""),
                cells=known,
                unknown=unknown,
                old_layout=not {*WINDOWED, "tokens", "parallel"} & set(columns),
                headers=texts,
                section=section,
            )
        )

    def _split_result(self, known: dict[str, Located]) -> None:
        """Split a cell with a result and its target, as far as the legend doesn't give the bar another meaning."""
        cell, header = known.get("quality"), self._document.headers.get("quality")
        pair = cells.result_and_target(cell.text) if cell else None
        if not cell or not header or not pair or "target" in known:
            return
        general = self._document.general.get("quality")
        legend = " ".join((header.text, general.value.text, general.remark.text) if general else (header.text,))
        if (meaning := _PAIR_IN_BRACKETS.search(legend)) and not _TARGET.search(meaning[0]):
            return
        result, target = pair
        known["quality"] = Located(result, cell.place)
        at = cell.text.rindex(target)
        known["target"] = Located(target, Place(cell.place.line, cell.place.column + at))
        self._document.headers.setdefault("target", header)


def _add_remark(document: CaseDocument, text: Located) -> None:
    if text.text:
        document.remarks.append(text)


@dataclass(frozen=True, slots=True)
class _OpenTable:
    """The last table, to which rows that were cut off from it are appended."""

    append: Callable[[Sequence[Sequence[Located]]], None]


def _is_general(rows: Sequence[Sequence[Located]]) -> bool:
    labels = (wording.normal(row[0].text) for row in rows if row)
    return sum(label in wording.GENERAL for label in labels) >= _MIN_KNOWN_ROWS


def _is_metric(row: Sequence[Located]) -> bool:
    """Return whether a row has a column's name and then what a cell of that column may have."""
    values = [cell.text for cell in row[1:]]
    column = wording.column_name(row[0].text) if row else None
    reads = any(cells.quality(text) is not None or cells.number(text) is not None for text in values)
    return column is not None and (reads or (column == "precision" and any(map(_PRECISION.fullmatch, values))))


def _is_delimiter(row: Sequence[Located]) -> bool:
    return all(_DASHES.fullmatch(cell.text) for cell in row)


def _distinct(columns: Sequence[str | None], header: Sequence[Located], general: GeneralRow | None) -> list[str | None]:
    """Return the columns without those that repeat a name, because we cannot decide which of the two is right.

    Of several results the one is kept that the general table names, otherwise the first.
    """
    named = wording.normal(wording.refers_to_column(general.value.text) or "") if general else ""
    results = [index for index, column in enumerate(columns) if column == "quality"]
    chosen = next((index for index in results if wording.normal(header[index].text) == named), None)
    chosen = results[0] if results and chosen is None else chosen
    return [
        None if (index != chosen if column == "quality" else column in columns[:index]) else column
        for index, column in enumerate(columns)
    ]
