"""Parsing a Markdown document into blocks, each with its place.

markdown-it parses the structure. It gives no columns and drops cells beyond a table's header, so this module splits the
rows of tables itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from markdown_it import MarkdownIt

from chipperf.errors import DocumentError

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
        """Return the address unchanged."""
        return url


_BLOCKS: Final = _Parser("commonmark").enable("table").disable("inline")
# Most texts are plain, so only texts with markup are parsed for inline elements.
_INLINE: Final = _Parser("commonmark")
_MARKUP: Final = re.compile(r"[\\`*_\[\]<>&!]")
_COMMENT: Final = re.compile(r"<!--(.*?)-->", re.DOTALL)
_LINE_BREAK_TAG: Final = re.compile(r"<br\s*/?>", re.IGNORECASE)
_WHITESPACE: Final = re.compile(r"\s+")
_LINE_START: Final = re.compile(r"[\s>]*(?:(?:[-*+]|\d+[.)])\s+)*")


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A link or an image, with the address as written."""

    target: str
    is_image: bool
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A heading, list item, paragraph, code block or piece of HTML.

    Attributes:
        kind: Kind of the block.
        text: Text on one line. Web links keep the form ``[text](address)``.
        place: Start of the text.
        last_line: Last line of the block.
        depth: Level of a heading, or nesting of a list item (1 is outermost); otherwise 0.
        value: Start of the value in a list item ``label: value``.
        links: Links and images in the block.
    """

    kind: BlockKind
    text: str
    place: Place
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
class Comment:
    """An HTML comment: its content and its lines."""

    text: str
    place: Place
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


def read_text(path: Path) -> str:
    """Return a document's text.

    Raises:
        DocumentError: The file cannot be read, is larger than :data:`MAX_BYTES`, or is not UTF-8. The message says
            where.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise DocumentError(f"cannot read {path}: {error.strerror}", hint="name a file that exists") from error
    return decode(content, str(path))


def decode(content: bytes, name: str) -> str:
    """Return the text of a document called ``name``.

    Raises:
        DocumentError: The document is larger than :data:`MAX_BYTES` or not UTF-8. The message says where.
    """
    if len(content) > MAX_BYTES:
        raise DocumentError(f"{name} is larger than {MAX_BYTES // 2**20} MiB", hint="a case document is a page or two")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line = before.count(b"\n") + 1
        column = len(before.rpartition(b"\n")[2].decode("utf-8", errors="replace")) + 1
        raise DocumentError(
            f"{name}:{line}:{column}: byte 0x{content[error.start]:02x} is not UTF-8", hint="save the file as UTF-8"
        ) from error


def parse(text: str, name: str = "document") -> Markdown:
    """Return the structure of ``text``. Every text is a valid Markdown document.

    Raises:
        DocumentError: A table has more than :data:`MAX_TABLE_ROWS` rows.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "\ufffd")
    lines = text.split("\n")
    blocks: list[Block | Table] = []
    comments: list[Comment] = []
    references: dict[str, Any] = {}
    tokens = iter(_BLOCKS.parse(text, references))
    item_depth = 0
    item_begins = False
    for token in tokens:
        if token.type == "heading_open":
            inline = next(tokens)
            inside = _inside(inline.content, references)
            blocks.append(_block("heading", inline, inside, lines, depth=int(token.tag[1:])))
        elif token.type == "list_item_open":
            item_depth += 1
            item_begins = True
        elif token.type == "list_item_close":
            item_depth -= 1
            item_begins = False
        elif token.type == "table_open":
            blocks.append(_table(tokens, token, lines, references, name))
        elif token.type == "inline":
            kind: BlockKind = "item" if item_begins else "paragraph"
            inside = _inside(token.content, references)
            blocks.append(_block(kind, token, inside, lines, depth=item_depth))
            comments.extend(_inline_comments(token, inside, lines))
            item_begins = False
        elif token.type in ("fence", "code_block"):
            blocks.append(_verbatim("code", token, token.content))
        elif token.type == "html_block":
            comments.extend(_comments(token.content, (token.map or (0, 1))[0], lines))
            if (content := _COMMENT.sub("", token.content)).strip():
                blocks.append(_verbatim("html", token, content))
    return Markdown(blocks=tuple(blocks), comments=tuple(comments), lines=tuple(lines))


def one_line(text: str) -> str:
    """Return ``text`` without whitespace at its ends and with a single space for other whitespace."""
    return _WHITESPACE.sub(" ", text).strip()


def _inside(source: str, references: dict[str, Any]) -> Sequence[Token] | None:
    """Return the tokens of inline Markdown, or ``None`` for plain text."""
    if not _MARKUP.search(source):
        return None
    (inline,) = _INLINE.parseInline(source, references)
    return inline.children or ()


def _block(
    kind: BlockKind, inline: Token, inside: Sequence[Token] | None, lines: Sequence[str], *, depth: int
) -> Block:
    first, last = inline.map or (0, 1)
    place = _find(lines, first, inline.content)
    raw_first_line = inline.content.partition("\n")[0]
    colon = re.search(r"[:：]\s*", raw_first_line)
    value = Place(place.line, place.column + colon.end()) if colon and kind == "item" else None
    return Block(
        kind=kind,
        text=_text(inline.content, inside),
        place=place,
        last_line=last,
        depth=depth,
        value=value,
        links=tuple(_links(inside or (), lines, first, last)),
    )


def _verbatim(kind: BlockKind, token: Token, content: str) -> Block:
    first, last = token.map or (0, 1)
    return Block(kind=kind, text=one_line(content), place=Place(first + 1, 1), last_line=last)


def _find(lines: Sequence[str], index: int, content: str) -> Place:
    wanted = content.partition("\n")[0]
    line = lines[index] if index < len(lines) else ""
    return Place(index + 1, max(line.find(wanted), 0) + 1)


def _text(source: str, inside: Sequence[Token] | None) -> str:
    return one_line(source) if inside is None else _plain(inside)


def _plain(children: Sequence[Token]) -> str:
    """Return inline content as text without emphasis, code marks or comments, with links as ``[text](address)``."""
    parts: list[str] = []
    targets: list[str] = []
    for child in children:
        if child.type in ("softbreak", "hardbreak"):
            parts.append(" ")
        elif child.type == "link_open":
            targets.append(str(child.attrGet("href") or ""))
            parts.append("[")
        elif child.type == "link_close":
            parts.append(f"]({targets.pop()})" if targets else "]")
        elif child.type == "image":
            parts.append(f"![{child.content}]({child.attrGet('src') or ''})")
        elif child.type == "html_inline":
            if _LINE_BREAK_TAG.fullmatch(child.content):
                parts.append(" ")
            elif not child.content.startswith("<!--"):
                parts.append(child.content)
        else:
            parts.append(child.content)
    return one_line("".join(parts))


def _links(children: Sequence[Token], lines: Sequence[str], first: int, last: int) -> Iterator[Link]:
    for child in children:
        if child.type in ("link_open", "image"):
            is_image = child.type == "image"
            target = str(child.attrGet("src" if is_image else "href") or "")
            yield Link(target=target, is_image=is_image, place=_place_of(lines, first, last, target))


def _place_of(lines: Sequence[str], first: int, last: int, wanted: str) -> Place:
    for index in range(first, min(last, len(lines))):
        if wanted and (column := lines[index].find(wanted)) >= 0:
            return Place(index + 1, column + 1)
    line = lines[first] if first < len(lines) else ""
    return Place(first + 1, len(line) - len(line.lstrip()) + 1)


def _table(
    tokens: Iterator[Token], opened: Token, lines: Sequence[str], references: dict[str, Any], name: str
) -> Table:
    first, last = opened.map or (0, 1)
    rows: list[tuple[Located, ...]] = []
    links: list[Link] = []
    for token in tokens:
        if token.type == "table_close":
            break
        if token.type == "tr_open":
            index = (token.map or (first, last))[0]
            row = []
            for source, place in split_row(lines[index], index):
                inside = _inside(source, references)
                row.append(Located(_text(source, inside), place))
                links.extend(_links(inside or (), lines, index, index + 1))
            rows.append(tuple(row))
            if len(rows) > MAX_TABLE_ROWS + 1:
                raise DocumentError(
                    f"{name}:{index + 1}:1: the table has more than {MAX_TABLE_ROWS} rows",
                    hint="split the document: a performance table has one row per configuration",
                )
    header, *body = rows or [()]
    return Table(
        header=header, rows=tuple(body), place=Place(first + 1, 1), last_line=max(last, first + 1), links=tuple(links)
    )


def split_row(line: str, index: int) -> Iterator[tuple[str, Place]]:
    """Split a table's row as GitHub's Markdown does: at every bar without a preceding backslash."""
    start = 0
    bars = [match.start() for match in re.finditer(r"(?<!\\)\|", line)]
    pieces = []
    for bar in (*bars, len(line)):
        pieces.append((start, line[start:bar]))
        start = bar + 1
    if _LINE_START.fullmatch(pieces[0][1]):
        pieces = pieces[1:]
    if pieces and not pieces[-1][1].strip():
        pieces = pieces[:-1]
    for column, raw in pieces:
        text = raw.strip()
        offset = len(raw) - len(raw.lstrip()) if text else min(1, len(raw))
        yield text.replace("\\|", "|"), Place(index + 1, column + offset + 1)


def _inline_comments(inline: Token, inside: Sequence[Token] | None, lines: Sequence[str]) -> Iterator[Comment]:
    line = (inline.map or (0, 1))[0]
    for child in inside or ():
        if child.type in ("softbreak", "hardbreak"):
            line += 1
        elif child.type == "html_inline":
            yield from _comments(child.content, line, lines)
            line += child.content.count("\n")


def _comments(content: str, first: int, lines: Sequence[str]) -> Iterator[Comment]:
    """Return the comments in HTML that starts in line ``first``, counted from 0."""
    for match in _COMMENT.finditer(content):
        line = first + content.count("\n", 0, match.start())
        opening = match[0].partition("\n")[0]
        place = _place_of(lines, line, line + 1, opening)
        yield Comment(text=match[1].strip(), place=place, last_line=place.line + match[0].count("\n"))
