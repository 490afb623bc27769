"""Waivers: comments in a document that accept a finding, with the reason.

``<!-- perf lint: ignore L04: no 2x8 machine here -->`` accepts findings of rule L04 in the next block. ``ignore-file``
accepts them in the whole document. Several rules are separated by commas.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from chipperf.lint.linted_document import Problem
from chipperf.lint.rule import all_rules

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chipperf.documents.markdown import Markdown, Place

_COMMENT: Final = re.compile(r"perf[ -]lint:\s*(ignore-file|ignore)\s+([\w\s,]*?)\s*(?::\s*(.*))?", re.DOTALL)
_MENTION: Final = re.compile(r"perf[ -]lint\b")


@dataclass(slots=True, kw_only=True, eq=False)
class IgnoreComment:
    """One waiver: its rules, lines and reason."""

    rules: tuple[str, ...]
    reason: str
    place: Place
    first_line: int
    last_line: int
    used: set[str] = field(default_factory=set)

    def covers(self, rule_id: str, line: int) -> bool:
        """Return whether the waiver accepts a finding of a rule in a line."""
        return rule_id in self.rules and self.first_line <= line <= self.last_line


def read_ignore_comments(document: Markdown) -> tuple[list[IgnoreComment], list[Problem]]:
    """Return a document's waivers, and the problems of malformed waivers."""
    waivers: list[IgnoreComment] = []
    problems: list[Problem] = []
    known = {rule.id for rule in all_rules()}
    for comment in document.comments:
        if not _MENTION.match(comment.text):
            continue
        match = _COMMENT.fullmatch(comment.text)
        ids = tuple(re.findall(r"\w+", match[2])) if match else ()
        if match is None or not ids:
            problems.append(Problem(comment.place, f"not a waiver: {comment.text[:60]!r}; write ignore L04: reason"))
            continue
        unknown = [id for id in ids if id not in known]
        if unknown:
            problems.append(Problem(comment.place, f"a waiver for {unknown[0]!r}, which is no rule"))
        reason = (match[3] or "").strip()
        if not reason:
            problems.append(Problem(comment.place, f"the waiver for {', '.join(ids)} has no reason"))
            continue
        whole_file = (1, len(document.lines))
        first, last = whole_file if match[1] == "ignore-file" else _next_block(document, comment.last_line)
        waivers.append(IgnoreComment(rules=ids, reason=reason, place=comment.place, first_line=first, last_line=last))
    return waivers, problems


def unused(waivers: list[IgnoreComment], checked: set[str]) -> Iterator[Problem]:
    """Yield the waivers of rules that ran and found nothing there, because such waivers would hide a new fault."""
    for waiver in waivers:
        idle = [id for id in waiver.rules if id in checked and id not in waiver.used]
        if idle:
            yield Problem(waiver.place, f"the waiver for {', '.join(idle)} accepts nothing", severity="warning")


def _next_block(document: Markdown, line: int) -> tuple[int, int]:
    for block in document.blocks:
        if block.last_line > line or block.place.line >= line:
            return min(block.place.line, line), block.last_line
    return line, line
