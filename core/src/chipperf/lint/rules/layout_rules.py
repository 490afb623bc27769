"""Rules on links and layout."""

from __future__ import annotations

import os
import re
from collections import Counter
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from chipperf.documents import markdown, wording
from chipperf.documents.markdown import Place
from chipperf.documents.topology import parse_config_name
from chipperf.errors import DocumentError
from chipperf.lint.rule import LintedDocument, NotChecked, Problem, rule
from chipperf.records.columns import THROUGHPUTS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from chipperf.documents.case_document import CaseDocument
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

_KEYS: Final = {
    "local_batchsize": r"(?i)batch|bs\b|import \*",
    **dict.fromkeys(("seqlength", "seq_length"), r"(?i)seq|length|position|import \*"),
    "gradient_accumulate_steps": r"(?i)accum|global_?batch|import \*",
}
"""What the keys of a value have in common, by its name in the text."""

_WRITTEN_IN: Final = re.compile(
    rf"(?P<value>{'|'.join(_KEYS)})\b.{{0,200}}?(?:为|written in)\s*`?"
    r"(?P<file>config_[\w.-]{0,100}\w|[\w-]{1,100}\.(?:py|json|sh))",
    re.ASCII,
)
_TO_BE_SET: Final = re.compile(
    r"`(?P<file>\w[\w./-]{0,200}\.py)`[^`]*`(?P<key>\w+)`[^`]*(?:修改为|设置为|改为|\bto)\s*`(?P<value>[^`]+)`"
)
_COMMAND: Final = re.compile(r"\s*(?:\w+=\S+ )*(?:python|bash|sh|torchrun|deepspeed|docker|pip)\d?\s")
_OPTION: Final = re.compile(r"\s*--\w")
_VALUE_WITH_COMMENT: Final = re.compile(r"\s*(?:export\s+)?([A-Za-z_]\w*)=[^\s\"'#]+(#\S*[\u3400-\u9fff].*)")
_BLANK_BEHIND_BACKSLASH: Final = re.compile(r"\\[ \t]+$")
_SCHEME: Final = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:|//")
_SOURCES: Final = (".cfg", ".json", ".py", ".sh", ".toml", ".txt", ".yaml", ".yml")
_LINES: Final = re.compile(r"L\d+(?:C\d+)?(?:-L\d+(?:C\d+)?)?")
"""Anchor of lines in a source on GitHub."""

_ENVIRONMENT: Final = ("environment", "hardware", "software")
_NOT_MEASURED: Final = ("configuration", "config_file", "precision", "fix_hp", "target")


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
        if target.suffix.casefold() in _SOURCES and not _LINES.fullmatch(anchor):
            yield Problem(link.place, f"{address} is no page with headings such as {'#' + anchor!r}")
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
    "L34",
    "instruction",
    severity="warning",
    why="a reader who follows the text fails, or changes nothing",
    fix="name the file that contains the value, and give commands that run",
    evidence="configurations",
)
def instructions_can_be_followed(subject: LintedDocument) -> Iterator[Problem]:
    """The text names files that contain the values, changes that still have to be made, and commands that run."""
    directory = subject.need_configs().path
    root = subject.case_directory.parent.parent.parent
    said: set[str] = set()
    for number, line in enumerate(subject.document.markdown.lines, start=1):
        for match in _WRITTEN_IN.finditer(line):
            message = _not_there(subject, directory, match["value"], match["file"])
            if message and message not in said:
                yield Problem(Place(number, match.start("file") + 1), message)
                said.add(message)
        for match in _TO_BE_SET.finditer(line):
            key, value, file = match["key"], match["value"], match["file"]
            if re.search(rf"(?m)^{key}\s*=\s*\W?{re.escape(value)}\W?\s*$", _content(root / file)):
                yield Problem(Place(number, match.start("key") + 1), f"{key} is {value!r} in {file} already")
    for block in subject.document.markdown.blocks:
        if isinstance(block, markdown.Table) or block.kind != "code":
            continue
        lines = subject.document.markdown.lines[block.place.line - 1 : block.last_line]
        for number, line in enumerate(lines, start=block.place.line):
            if comment := _VALUE_WITH_COMMENT.match(line):
                message = f"{comment[2]!r} is a part of the value of {comment[1]}: a comment begins behind a blank"
                yield Problem(Place(number, comment.start(2) + 1), message)
            if blank := _BLANK_BEHIND_BACKSLASH.search(line):
                message = f"a blank behind \\ ends the command {line.strip()!r}, which is to go on"
                yield Problem(Place(number, blank.start() + 1), message)
        for number, (before, line) in enumerate(pairwise(lines), start=block.place.line + 1):
            goes_on = before.rstrip().endswith("\\") or _OPTION.match(before)
            if _OPTION.match(line) and _COMMAND.match(before) and not goes_on:
                message = f"{before.strip()!r} ends without \\, so that {line.strip()!r} is a command of its own"
                yield Problem(Place(number, 1), message)


def _not_there(subject: LintedDocument, directory: Path, value: str, file: str) -> str | None:
    """Return why a value does not stand in a file of the case, or ``None``."""
    config = parse_config_name(file)
    # Another rule reports the configurations of other vendors.
    if config and any(name.vendor != subject.vendor for name in subject.names.find(config.card)):
        return None
    beside = (directory / file, directory / f"{file}.py", directory.parent / file)
    below = subject.benchmark.rglob(file) if subject.benchmark else ()
    path = next((path for path in (*beside, *below) if path.is_file()), None)
    if path is None:
        return f"there is no {file}"
    return None if re.search(_KEYS[value], _content(path)) else f"there is no {value} in {file}"


@lru_cache(maxsize=1024)
def _content(path: Path) -> str:
    try:
        return markdown.read_text(path)
    except DocumentError:
        return ""


@rule(
    "L24",
    "old-layout",
    severity="warning",
    why="one throughput without a definition cannot be compared with three defined ones",
    fix="import the report and render it again: perf report import",
)
def layout_is_the_current_one(subject: LintedDocument) -> Iterator[Problem]:
    """The performance table has the layout's columns below a heading, and the general table explains each of them."""
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
    above = [heading for heading in document.markdown.headings if heading.place < subject.start]
    if above and wording.heading_kind(above[-1].text) in _ENVIRONMENT:
        message = f"the performance table stands below the heading {above[-1].text!r}, with none for the results"
        yield Problem(subject.start, message)
    yield from _general_table_fits(subject)


def _general_table_fits(subject: LintedDocument) -> Iterator[Problem]:
    document = subject.document
    headers = {wording.normal(wording.without_unit(cell.text)) for cell in document.header_cells}
    measured = {header.place for header in document.header_cells}
    tables = (block for block in document.markdown.blocks if isinstance(block, markdown.Table))
    others = [table for table in tables if table.header[0].place not in measured]
    for label, value in (row[:2] for table in others for row in table.rows if len(row) > 1):
        named = wording.refers_to_column(value.text)
        name = wording.without_unit(named) if named else ""
        if named and wording.normal(name) not in headers:
            header = document.headers.get(wording.column_name(name) or "")
            rest = f", where it is {header.text!r}" if header else ""
            message = f"{label.text} refers to {name!r}, which the performance table lacks{rest}"
            yield Problem(value.place, message)
    lacking = [label for key, label in _GENERAL.items() if key not in document.general]
    if document.general and lacking:
        place = next(iter(document.general.values())).label.place
        yield Problem(place, f"the general table has no row for the {', '.join(lacking)}")
    if document.general:
        yield from _unexplained_columns(document, others)


def _unexplained_columns(document: CaseDocument, others: list[markdown.Table]) -> Iterator[Problem]:
    """Yield a problem that names the measured columns that no table besides the performance tables mentions."""
    rows = (row for table in others for row in (table.header, *table.rows))
    mentioned = " ".join(wording.normal(cell.text) for row in rows for cell in row)
    lacking = []
    for header in document.header_cells:
        column, name = wording.column_name(header.text), wording.normal(wording.without_unit(header.text))
        # Of several results the general table's row on results explains one.
        explained = column in document.general and (column != "quality" or header == document.headers["quality"])
        if name and column not in _NOT_MEASURED and not explained and name not in mentioned:
            lacking.append(header)
    if lacking:
        names = ", ".join(dict.fromkeys(repr(header.text) for header in lacking))
        yield Problem(lacking[0].place, f"the general table has no row for {names}, so that the meaning is not told")
