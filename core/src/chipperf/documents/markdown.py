"""Parsing a Markdown document into blocks, each with its place.

markdown-it parses the structure. It gives no columns and drops cells beyond a table's header, so this module splits the
rows of tables itself.
"""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass
from itertools import pairwise, takewhile
from typing import TYPE_CHECKING, Any, Final, Literal

from markdown_it import MarkdownIt

from chipperf.errors import DocumentError
from chipperf.records.files import read_bounded

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from markdown_it.token import Token

MAX_BYTES: Final = 4 * 2**20
"""Size limit of a document. A case document has a few kilobytes."""

MAX_TABLE_ROWS: Final = 5_000
"""Largest number of rows in a table."""

BlockKind = Literal["heading", "item", "paragraph", "code", "html"]


class _Parser(MarkdownIt):
    def normalizeLink(self, url: str) -> str:
        return url


_BLOCKS: Final = _Parser("commonmark").enable("table").disable("inline")
# Most texts are plain, so only texts with markup are parsed for inline elements.
_INLINE: Final = _Parser("commonmark")
_MARKUP: Final = re.compile(r"[\\`*_\[\]<>&!]")
_COMMENT: Final = re.compile(r"<!--(.*?)-->", re.DOTALL)
_LINE_BREAK_TAG: Final = re.compile(r"<br\s*/?>", re.IGNORECASE)
_BREAKS: Final = ("softbreak", "hardbreak")
_WHITESPACE: Final = re.compile(r"\s+")
_LINE_START: Final = re.compile(r"[\s>]*(?:(?:[-*+]|\d+[.)])\s+)*")
_BAR: Final = re.compile(r"(?<!\\)\|")
_FULL_WIDTH_BAR: Final = "｜"
_MIN_BARS: Final = 2
_IDEOGRAPH: Final = re.compile(r"[\u3400-\u9fff]")
_UTF_16_MARKS: Final = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Line and column of a text, counted from 1. The column is in characters."""

    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Located:
    """A text on one line without markup, with its place."""

    text: str
    place: Place


@dataclass(frozen=True, slots=True)
class Fault(Located):
    """What could not be read as it is meant, where, and what to do."""

    hint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A link or an image, with the address as written."""

    target: str
    is_image: bool
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Block(Located):
    """A heading, list item, paragraph, code block or piece of HTML. Web links keep the form ``[text](address)``.

    ``depth`` is the level of a heading, or the nesting of a list item from 1; ``value`` is where the value of an item
    ``label: value`` starts.
    """

    kind: BlockKind
    last_line: int
    depth: int = 0
    value: Place | None = None
    links: tuple[Link, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table. Rows may have more or fewer cells than the header."""

    header: tuple[Located, ...]
    rows: tuple[tuple[Located, ...], ...]
    place: Place
    last_line: int
    links: tuple[Link, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Comment(Located):
    """An HTML comment."""

    last_line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Markdown:
    """A parsed document: its blocks in their order, its comments, and its lines."""

    blocks: tuple[Block | Table, ...]
    comments: tuple[Comment, ...]
    lines: tuple[str, ...]

    @property
    def links(self) -> Iterator[Link]:
        """Every link and image."""
        for block in self.blocks:
            yield from block.links

    @property
    def headings(self) -> Iterator[Block]:
        """Every heading."""
        for block in self.blocks:
            if isinstance(block, Block) and block.kind == "heading":
                yield block


def read_text(path: Path) -> str:
    """Return a document's text; a :class:`DocumentError` says where it is not UTF-8, or why it cannot be read."""
    text, fault = decoded_text(path)
    if fault:
        raise DocumentError(f"{path}:{fault.place}: {fault.text}", hint=fault.hint)
    return text


def decoded_text(path: Path) -> tuple[str, Fault | None]:
    """Return a document's text, as far as its bytes are text, and the fault if they are not UTF-8.

    A :class:`DocumentError` says why the file cannot be read at all.
    """
    try:
        content = read_bounded(path, MAX_BYTES)
    except OSError as error:
        hint = "name a document of a page or two" if error.errno == errno.EFBIG else "name a report, such as README.md"
        raise DocumentError(f"cannot read {path}: {error.strerror}", hint=hint) from error
    return decoded(content)


def decoded(content: bytes) -> tuple[str, Fault | None]:
    """Return the text of a document's content, as far as its bytes are text, and the fault if they are not UTF-8."""
    try:
        return content.decode("utf-8-sig"), None
    except UnicodeDecodeError as error:
        wrong = error
    replaced = content.decode("utf-8", errors="replace")
    if content.startswith(_UTF_16_MARKS):
        encoding = "UTF-16"
    elif replaced.count("\ufffd") > len(_IDEOGRAPH.findall(replaced)) and _is_gbk(content):
        encoding = "GBK"
    else:
        before = content[: wrong.start]
        column = len(before.rpartition(b"\n")[2].decode("utf-8", errors="replace")) + 1
        place = Place(before.count(b"\n") + 1, column)
        message = f"byte 0x{content[wrong.start]:02x} is not UTF-8"
        return replaced, Fault(message, place, "write the character again, and save the file as UTF-8")
    hint = f"convert it: iconv -f {encoding} -t UTF-8"
    return content.decode(encoding, errors="replace"), Fault(f"the file is {encoding}, not UTF-8", Place(1, 1), hint)


def _is_gbk(content: bytes) -> bool:
    try:
        return _IDEOGRAPH.search(content.decode("gbk")) is not None
    except UnicodeDecodeError:
        return False


def parse(text: str, name: str = "document") -> Markdown:
    """Return the structure of ``text``. Every text is a valid Markdown document, if no table is too long."""
    return _Reader(text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "\ufffd"), name).read()


def one_line(text: str) -> str:
    """Return ``text`` without whitespace at its ends and with a single space for other whitespace."""
    return _WHITESPACE.sub(" ", text).strip()


class _Reader:
    def __init__(self, text: str, name: str) -> None:
        self._name = name
        self._lines = text.split("\n")
        self._references: dict[str, Any] = {}
        self._tokens = iter(_BLOCKS.parse(text, self._references))
        self._comments: list[Comment] = []

    def read(self) -> Markdown:
        blocks: list[Block | Table] = []
        item_depth, item_begins = 0, False
        for token in self._tokens:
            if token.type == "heading_open":
                blocks.append(self._block("heading", next(self._tokens), depth=int(token.tag[1:])))
            elif token.type == "list_item_open":
                item_depth += 1
                item_begins = True
            elif token.type == "list_item_close":
                item_depth -= 1
                item_begins = False
            elif token.type == "table_open":
                blocks.append(self._table(token))
            elif token.type == "inline":
                blocks.append(self._block("item" if item_begins else "paragraph", token, depth=item_depth))
                item_begins = False
            elif token.type in ("fence", "code_block"):
                blocks.append(_verbatim("code", token, token.content))
            elif token.type == "html_block":
                self._add_comments(token.content, _lines_of(token)[0])
                if (content := _COMMENT.sub("", token.content)).strip():
                    blocks.append(_verbatim("html", token, content))
        return Markdown(blocks=tuple(blocks), comments=tuple(self._comments), lines=tuple(self._lines))

    def _inline(self, source: str) -> tuple[str, Sequence[Token]]:
        """Return the text of inline Markdown, and its tokens, none for plain text."""
        if not _MARKUP.search(source):
            return one_line(source), ()
        (inline,) = _INLINE.parseInline(source, self._references)
        children = inline.children or ()
        return _plain(children), children

    def _block(self, kind: BlockKind, token: Token, *, depth: int) -> Block:
        first, last = _lines_of(token)
        text, children = self._inline(token.content)
        if kind != "heading":
            self._add_inline_comments(children, first)
        first_line = token.content.partition("\n")[0]
        place = Place(first + 1, max(self._lines[first].find(first_line), 0) + 1)
        colon = re.search(r"[:：]\s*", first_line)
        value = Place(place.line, place.column + colon.end()) if colon and kind == "item" else None
        links = tuple(self._links(children, first, last))
        return Block(kind=kind, text=text, place=place, last_line=last, depth=depth, value=value, links=links)

    def _links(self, children: Sequence[Token], first: int, last: int) -> Iterator[Link]:
        for child in children:
            if child.type in ("link_open", "image"):
                is_image = child.type == "image"
                target = str(child.attrGet("src" if is_image else "href") or "")
                yield Link(target=target, is_image=is_image, place=self._place_of(target, first, last))

    def _table(self, opened: Token) -> Table:
        first, last = _lines_of(opened)
        rows: list[tuple[Located, ...]] = []
        links: list[Link] = []
        for token in takewhile(lambda token: token.type != "table_close", self._tokens):
            if token.type != "tr_open":
                continue
            index = _lines_of(token)[0]
            row = []
            for source, place in split_row(self._lines[index], index):
                text, children = self._inline(source)
                row.append(Located(text, place))
                links.extend(self._links(children, index, index + 1))
            rows.append(tuple(row) or (Located("", Place(index + 1, 1)),))
            if len(rows) > MAX_TABLE_ROWS + 1:
                raise DocumentError(
                    f"{self._name}:{index + 1}:1: the table has more than {MAX_TABLE_ROWS} rows",
                    hint="split the document: a performance table has one row per configuration",
                )
        header, *body = rows
        return Table(header=header, rows=tuple(body), place=Place(first + 1, 1), last_line=last, links=tuple(links))

    def _add_inline_comments(self, children: Sequence[Token], line: int) -> None:
        for child in children:
            if child.type in _BREAKS:
                line += 1
            elif child.type == "html_inline":
                self._add_comments(child.content, line)
                line += child.content.count("\n")

    def _add_comments(self, content: str, first: int) -> None:
        """Add the comments in HTML that starts in line ``first``, counted from 0."""
        for match in _COMMENT.finditer(content):
            line = first + content.count("\n", 0, match.start())
            place = self._place_of(match[0].partition("\n")[0], line, line + 1)
            self._comments.append(
                Comment(text=match[1].strip(), place=place, last_line=place.line + match[0].count("\n"))
            )

    def _place_of(self, wanted: str, first: int, last: int) -> Place:
        """Return the place of a text between two lines, or the start of the first one."""
        for number, line in enumerate(self._lines[first:last], start=first + 1):
            if wanted and (column := line.find(wanted)) >= 0:
                return Place(number, column + 1)
        line = self._lines[first]
        return Place(first + 1, len(line) - len(line.lstrip()) + 1)


def _lines_of(token: Token) -> tuple[int, int]:
    """Return the first line of a token and the line after its last one, counted from 0."""
    first, last = token.map or (0, 1)
    return first, last


def _verbatim(kind: BlockKind, token: Token, content: str) -> Block:
    first, last = _lines_of(token)
    return Block(kind=kind, text=one_line(content), place=Place(first + 1, 1), last_line=last)


def _plain(children: Sequence[Token]) -> str:
    """Return inline content as text without emphasis, code marks or comments, with links as ``[text](address)``."""
    parts: list[str] = []
    targets: list[str] = []
    for child in children:
        is_html = child.type == "html_inline"
        if child.type == "link_open":
            targets.append(str(child.attrGet("href") or ""))
            parts.append("[")
        elif child.type == "link_close":
            parts.append(f"]({targets.pop()})")
        elif child.type == "image":
            parts.append(f"![{child.content}]({child.attrGet('src') or ''})")
        elif child.type in _BREAKS or (is_html and _LINE_BREAK_TAG.fullmatch(child.content)):
            parts.append(" ")
        elif not (is_html and child.content.startswith("<!--")):
            parts.append(child.content)
    return one_line("".join(parts))


def rows_in(document: Markdown, block: Block) -> tuple[tuple[Located, ...], ...]:
    """Return the lines of a block that look like a table's rows, although Markdown has no table there."""
    rows = []
    for index in range(block.place.line - 1, min(block.last_line, len(document.lines))):
        line = document.lines[index].replace(_FULL_WIDTH_BAR, "|")
        if len(_BAR.findall(line)) >= _MIN_BARS:
            rows.append(tuple(Located(_text(source), place) for source, place in split_row(line, index)))
    return tuple(rows)


def has_full_width_bars(document: Markdown, line: int) -> bool:
    """Return whether a line, counted from 1, has bars of a Chinese keyboard, which make no table."""
    return _FULL_WIDTH_BAR in document.lines[line - 1]


def _text(source: str) -> str:
    if not _MARKUP.search(source):
        return one_line(source)
    (inline,) = _INLINE.parseInline(source)
    return _plain(inline.children or ())


def split_row(line: str, index: int) -> Iterator[tuple[str, Place]]:
    """Split a table's row as GitHub's Markdown does: at every bar without a preceding backslash."""
    bars = [-1, *(match.start() for match in _BAR.finditer(line)), len(line)]
    pieces = [(before + 1, line[before + 1 : bar]) for before, bar in pairwise(bars)]
    if _LINE_START.fullmatch(pieces[0][1]):
        pieces = pieces[1:]
    if pieces and not pieces[-1][1].strip():
        pieces = pieces[:-1]
    for column, raw in pieces:
        text = raw.strip()
        offset = len(raw) - len(raw.lstrip()) if text else min(1, len(raw))
        yield text.replace("\\|", "|"), Place(index + 1, column + offset + 1)
