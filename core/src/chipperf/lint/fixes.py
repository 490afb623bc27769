"""Fixing documents: making the safe edits that rules propose, and changing no other byte."""

from __future__ import annotations

import codecs
import difflib
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from chipperf.documents.markdown import read_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from chipperf.lint.lint_run import Result
    from chipperf.lint.rule import Edit

_LINE_END: Final = re.compile(r"(\r\n|\r|\n)")
_MAX_PASSES: Final = 10
"""An edit may uncover another one, or two may change the same text; rules that contradict each other must end too."""


@dataclass(slots=True)
class Change:
    """A document's text before and after all edits."""

    path: Path
    old: str
    new: str

    def write(self) -> None:
        """Replace the document in place, so that its mark of byte order, its owner and links to it stay."""
        mark = codecs.BOM_UTF8 if self.path.read_bytes().startswith(codecs.BOM_UTF8) else b""
        self.path.write_bytes(mark + self.new.encode())

    def patch(self) -> Iterator[str]:
        """Yield the lines of a patch that makes the change."""
        old, new = (_LINE_END.sub("\n", text).split("\n") for text in (self.old, self.new))
        return difflib.unified_diff(old, new, str(self.path), str(self.path), lineterm="")


def fix(lint: Callable[[Mapping[Path, str]], Result], texts: Mapping[Path, str]) -> tuple[Result, list[Change]]:
    """Make the edits of all open findings, and those that they uncover, and return what is found then; write nothing.

    ``lint`` checks the documents, of which it does not read those whose texts it is given; ``texts`` are the first.
    """
    changes: dict[Path, Change] = {}
    result, made = lint(texts), 0
    for _ in range(_MAX_PASSES):
        edits: dict[Path, set[Edit]] = defaultdict(set)
        for finding in result.open:
            if finding.edit:
                edits[Path(finding.file)].add(finding.edit)
        before = made
        for path, its_edits in edits.items():
            old = texts[path] if path in texts else read_text(path)
            change = changes.get(path) or Change(path, old, old)
            change.new, count = _edited(change.new, its_edits)
            if count:
                changes[path] = change
                made += count
        if made == before:
            break
        result = lint({**texts, **{path: change.new for path, change in changes.items()}})
    result.fixed = made
    return result, list(changes.values())


def _edited(text: str, edits: Iterable[Edit]) -> tuple[str, int]:
    """Return a text after the edits that do not touch each other, and their number."""
    pieces = _LINE_END.split(text)
    made = 0
    last: tuple[int, int] | None = None
    for edit in sorted(edits, key=lambda each: (each.place, each.new), reverse=True):
        index, start = 2 * (edit.place.line - 1), edit.place.column - 1
        end = start + len(edit.old)
        if last and last[0] == index and last[1] <= end:
            continue
        line = pieces[index]
        pieces[index] = line[:start] + edit.new + line[end:]
        last = index, start
        made += 1
    return "".join(pieces), made
