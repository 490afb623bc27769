"""Rules on links and layout."""

from __future__ import annotations

import os
import re
from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from chipperf.documents import markdown, wording
from chipperf.errors import DocumentError
from chipperf.lint.rule import LintedDocument, NotChecked, Problem, rule
from chipperf.records.columns import THROUGHPUTS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from chipperf.documents.markdown import Markdown

_LINK: Final = re.compile(r"!?\[([^\[\]]*)\]\([^()]*\)")
_HTML_ANCHOR: Final = re.compile(r"""<\w+ [^<>]{0,200}?\b(?:id|name)=["']([^"'<>]+)["']""")
_NOT_IN_SLUG: Final = re.compile(r"[^\w\- ]")
_GENERAL: Final = {
    "task": "task",
    "model": "model",
    "dataset": "dataset",
    "precision": "precision",
    "fix_hp": "hyperparameters",
    "card_short_name": "short name of the device",
}
"""Rows of the general table that every layout has."""

_SCHEME: Final = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:|//")


@rule(
    "L23",
    "dead-link",
    severity="warning",
    why="the reader does not find the data set, the figure or the wheel",
    fix="correct the address or the anchor",
)
def links_resolve(subject: LintedDocument) -> Iterator[Problem]:
    """Links to files lead to files that exist, and anchors to headings."""
    for link in subject.document.markdown.links:
        if not link.target or _SCHEME.match(link.target):
            continue
        address, _, anchor = link.target.partition("#")
        target = subject.path.parent / unquote(address.partition("?")[0]) if address else subject.path
        # os.path, because an address may be no possible path, for which methods of Path raise an exception.
        if not os.path.exists(target):
            if _is_within_reach(subject.path.parent, address):
                yield Problem(link.place, f"{address!r} does not exist")
            continue
        if not anchor:
            continue
        page = target / "README.md" if os.path.isdir(target) else target
        anchors = _page_anchors(page) if address else _anchors(subject.document.markdown)
        if anchors is not None and unquote(anchor).casefold() not in anchors:
            yield Problem(link.place, f"{address or 'this page'} has no heading for {'#' + anchor!r}")


def _is_within_reach(directory: Path, address: str) -> bool:
    """Return whether a missing file's directory exists; if a report was copied out of its repository, it does not."""
    parts = [part for part in unquote(address).split("/") if part not in ("", ".")]
    climbed = directory
    while parts and parts[0] == "..":
        climbed = climbed.parent
        parts.pop(0)
    return climbed == directory or not parts or (len(parts) > 1 and os.path.exists(climbed / parts[0]))


@lru_cache(maxsize=1024)
def _page_anchors(path: Path) -> frozenset[str] | None:
    if path.suffix.casefold() not in (".md", ".markdown"):
        return None
    try:
        return _anchors(markdown.parse(markdown.read_text(path)))
    except DocumentError:
        return None


def _anchors(page: Markdown) -> frozenset[str]:
    """Return GitHub's anchors of the headings, and those written as HTML."""
    seen: Counter[str] = Counter()
    anchors = {name.casefold() for line in page.lines for name in _HTML_ANCHOR.findall(line)}
    for heading in page.headings:
        slug = _NOT_IN_SLUG.sub("", _LINK.sub(r"\1", heading.text).casefold()).strip().replace(" ", "-")
        anchors.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return frozenset(anchors)


@rule(
    "L24",
    "old-layout",
    severity="warning",
    why="one throughput without a definition cannot be compared with three defined ones",
    fix="import the report and render it anew: perf report import",
)
def layout_is_the_current_one(subject: LintedDocument) -> Iterator[Problem]:
    """The performance table has the columns of the current layout, and those that the general table refers to."""
    document = subject.document
    if not document.headers:
        raise NotChecked("there is no performance table")
    lacking = [column for column in reversed(THROUGHPUTS) if column not in document.headers]
    if not {"tokens", "parallel"}.isdisjoint(document.headers):
        # The layout of large language models has one throughput, in tokens.
        lacking = []
    elif any(row.old_layout for row in document.rows) or len(lacking) == len(THROUGHPUTS):
        yield Problem(subject.start, "the performance table is of the first layout, without p_* columns")
        lacking = []
    if lacking:
        yield Problem(subject.start, f"the performance table has no column {', '.join(lacking)}")
    yield from _general_table_fits(subject)


def _general_table_fits(subject: LintedDocument) -> Iterator[Problem]:
    document = subject.document
    headers = {wording.normal(wording.without_unit(cell.text)) for cell in document.header_cells}
    for row in document.general.values():
        named = wording.refers_to_column(row.value.text)
        name = wording.without_unit(named) if named else ""
        if named and wording.normal(name) not in headers:
            header = document.headers.get(wording.column_name(name) or "")
            rest = f", where it is {header.text!r}" if header else ""
            message = f"{row.label.text} refers to {name!r}, which the performance table lacks{rest}"
            yield Problem(row.value.place, message)
    lacking = [label for key, label in _GENERAL.items() if key not in document.general]
    if document.general and lacking:
        place = next(iter(document.general.values())).label.place
        yield Problem(place, f"the general table has no row for the {', '.join(lacking)}")
