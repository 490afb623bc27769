"""Fixing documents: making the safe edits that rules propose, and changing no other byte."""

from __future__ import annotations

import codecs
import difflib
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from chipperf.documents.markdown import MAX_BYTES, decoded
from chipperf.errors import UsageError
from chipperf.records.files import read_bounded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from chipperf.lint.lint_run import Result
    from chipperf.lint.rule import Edit

_LINE_END: Final = re.compile(r"(\r\n|\r|\n)")
_MAX_PASSES: Final = 10
"""An edit may uncover another one, or two may change the same text; rules that contradict each other must end too."""


@dataclass(slots=True)
class Change:
    """A document's content before and after all edits."""

    path: Path
    old: bytes
    new: bytes

    def edit(self, edits: Iterable[Edit]) -> int:
        """Make edits, and return how many."""
        mark = codecs.BOM_UTF8 if self.old.startswith(codecs.BOM_UTF8) else b""
        text, count = _edited(decoded(self.new)[0], edits)
        self.new = mark + text.encode()
        return count

    def write(self) -> None:
        """Replace the document's content in place, so that its owner and the links to it stay."""
        try:
            self.path.write_bytes(self.new)
        except OSError as error:
            hint = "make it writable, or apply the patch of --diff"
            raise UsageError(f"cannot write {self.path}: {error.strerror}", hint=hint) from error

    def patch(self) -> Iterator[str]:
        """Yield the lines of a patch that makes the change."""
        old, new = (_LINE_END.sub("\n", decoded(content)[0]).split("\n") for content in (self.old, self.new))
        return difflib.unified_diff(old, new, str(self.path), str(self.path), lineterm="")


def fix(lint: Callable[[Mapping[Path, bytes]], Result], contents: Mapping[Path, bytes]) -> tuple[Result, list[Change]]:
    """Make the edits of all open findings, and those that they uncover, and return what is found then; write nothing.

    ``lint`` checks the documents with what it is given in place of files' content, of which ``contents`` is the first.
    """
    changes: dict[Path, Change] = {}
    result, made = lint(contents), 0
    for _ in range(_MAX_PASSES):
        edits: dict[Path, set[Edit]] = defaultdict(set)
        for finding in result.open:
            if finding.edits:
                edits[Path(finding.file)].update(finding.edits)
        if not edits:
            break
        for path, its_edits in edits.items():
            if path not in changes:
                content = contents[path] if path in contents else read_bounded(path, MAX_BYTES)
                changes[path] = Change(path, content, content)
            made += changes[path].edit(its_edits)
        result = lint({**contents, **{path: change.new for path, change in changes.items()}})
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
