"""The parts of a Markdown report that tests compare: headings, environment facts and tables."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from markdown_it import MarkdownIt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from markdown_it.token import Token

_PARSER = MarkdownIt("commonmark").enable("table")


@dataclass
class Document:
    """A parsed report; texts are rendered inline HTML with single spaces, so that bold and links count."""

    headings: list[tuple[int, str]] = field(default_factory=list)
    list_items: dict[str, list[str]] = field(default_factory=dict)
    tables: list[list[list[str]]] = field(default_factory=list)
    images: list[tuple[str, str]] = field(default_factory=list)
    """Heading above it and target."""

    def section(self, heading: str) -> list[str]:
        """Return the list items under a heading."""
        return self.list_items.get(heading, [])


def parse(markdown: str) -> Document:
    """Return what tests compare of ``markdown``."""
    document = Document()
    inside: list[str] = []
    tokens = iter(_PARSER.parse(markdown))
    for token in tokens:
        if token.type == "heading_open":
            document.headings.append((int(token.tag[1:]), _text(next(tokens))))
        elif token.type == "table_open":
            document.tables.append(list(_rows(tokens)))
        elif token.type.endswith("_open"):
            inside.append(token.type)
        elif token.type.endswith("_close") and token.type != "heading_close":
            inside.pop()
        if token.type == "inline" and document.headings:
            images = [child for child in token.children or [] if child.type == "image"]
            document.images += [(document.headings[-1][1], str(image.attrs["src"])) for image in images]
        if token.type == "inline" and "list_item_open" in inside and document.headings:
            document.list_items.setdefault(document.headings[-1][1], []).append(_text(token))
    return document


def _rows(tokens: Iterator[Token]) -> Iterator[list[str]]:
    row: list[str] = []
    for token in tokens:
        if token.type == "table_close":
            return
        if token.type == "tr_open":
            row = []
        elif token.type == "inline":
            row.append(_text(token))
        elif token.type == "tr_close":
            yield row


def _text(inline: Token) -> str:
    html = _PARSER.renderer.renderInline(inline.children or [], _PARSER.options, {})
    return " ".join(html.split())
