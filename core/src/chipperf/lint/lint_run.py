"""Linting documents: running the rules, and applying the waivers in the documents.

A waiver is a comment that accepts findings, with the reason: ``<!-- perf lint: ignore L04: no 2x8 machine here -->``
accepts findings of rule L04 in the next block. ``ignore-file`` accepts them in the whole document. Several rules are
separated by commas. Colon and commas may be full-width.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from itertools import takewhile
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from chipperf.documents.case_document import read_document
from chipperf.documents.document_identity import identify_case, identify_vendor, installed_cases, is_place_of_a_case
from chipperf.documents.markdown import Fault, Markdown, Place, Table, decoded, decoded_text, has_full_width_bars
from chipperf.errors import DocumentError, UsageError
from chipperf.lint.configs import read_configs
from chipperf.lint.look_alikes import look_alikes
from chipperf.lint.rule import (
    DOCUMENT_RULE,
    Corpus,
    Edit,
    LintedDocument,
    NotChecked,
    Problem,
    Rule,
    Severity,
    all_rules,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from chipperf.documents.card_names import CardNames
    from chipperf.records.schema import Record

_COMMENT: Final = re.compile(r"perf[ -]lint[:：]\s*(ignore-file|ignore)\s([-\w\s,，、]*)(?:[:：](.*))?", re.DOTALL)
_WORD: Final = re.compile(r"[^\W\d_\u3400-\u9fff]{2,}|[\u3400-\u9fff]{2}")
_MIN_WORDS: Final = 2
_MENTION: Final = re.compile(r"perf[ -]lint\b")
_SUFFIXES: Final = (".md", ".markdown")
_SKIPPED_DIRECTORIES: Final = {".git", "node_modules", "__pycache__", ".venv"}


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding of a rule, with its file, place and line.

    ``reason`` is that of the waiver that accepts it, or ``in BASELINE``, the file that does.
    """

    rule: str
    severity: Severity
    file: str
    place: Place
    message: str
    line: str = ""
    edits: tuple[Edit, ...] = ()
    reason: str | None = None
    in_baseline: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Unchecked:
    """A rule that could not be checked on a file, and the missing evidence."""

    rule: str
    file: str
    reason: str


@dataclass(slots=True, kw_only=True)
class Result:
    """What a lint found.

    Attributes:
        files: The checked documents.
        skipped: Markdown files that are not case documents.
        findings: Findings by file, line and rule.
        unchecked: Rules without evidence.
        rules: The rules that at least one document was checked against.
        checked: Ids of the rules with evidence, by file.
        unmatched: Findings in baselines that no longer occur, each with its baseline.
        fixed: Number of edits made.
        settings: What settings and baselines turn off or accept, a text for each file.
    """

    files: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    unchecked: list[Unchecked] = field(default_factory=list)
    rules: tuple[Rule, ...] = (DOCUMENT_RULE,)
    checked: dict[str, set[str]] = field(default_factory=dict)
    unmatched: list[str] = field(default_factory=list)
    fixed: int = 0
    settings: list[str] = field(default_factory=list)

    @property
    def open(self) -> list[Finding]:
        """Findings that nothing accepts."""
        return [finding for finding in self.findings if finding.reason is None]

    def count(self, severity: Severity) -> int:
        """Return the number of open findings of a severity."""
        return sum(finding.severity == severity for finding in self.open)


def lint(
    paths: Sequence[Path],
    rules: Sequence[Rule],
    *,
    names: CardNames,
    vendor: str | None = None,
    case: str | None = None,
    config: Path | None = None,
    records: Sequence[Record] = (),
    ignored: Callable[[Path], Collection[str]] = lambda path: (),
    contents: Mapping[Path, bytes] = MappingProxyType({}),
) -> Result:
    """Check documents, and all Markdown files in directories and their subdirectories.

    Named files are always checked. A Markdown file found in a directory is skipped if it is not a case document. Vendor
    and case are by default detected for each document, and the configurations of its runs are by default those in the
    directory ``config`` next to it. ``ignored`` gives the ids of the rules that are not checked on a document, and
    ``contents`` what stands in place of files' content. A path or ``config`` that does not exist is a
    :class:`UsageError`.
    """
    result = Result()
    corpus = Corpus()
    not_utf_8 = set()
    for path, named in _files(paths, contents):
        name = str(path)
        try:
            text, fault = decoded(contents[path]) if path in contents else decoded_text(path)
            document = read_document(text, name)
        except DocumentError as error:
            result.findings.append(_unreadable(name, error))
            result.files.append(name)
            result.checked[name] = {DOCUMENT_RULE.id}
            continue
        if fault:
            document.faults.insert(0, fault)
            not_utf_8.add(name)
        if named or is_place_of_a_case(path, names):
            document.require_performance_table()
        elif not document.is_report:
            result.skipped.append(name)
            continue
        case_name = case or identify_case(document, path)
        beside = path.parent / "config"
        configs = config or (beside if beside.is_dir() else None)
        corpus.subjects.append(
            LintedDocument(
                path=path,
                document=document,
                names=names,
                vendor=vendor or identify_vendor(document, names, path),
                case_name=case_name,
                case=installed_cases().get(case_name or ""),
                configs=read_configs(configs) if configs else None,
                records=tuple(record for record in records if record.case.name == case_name),
                corpus=corpus,
            )
        )
        result.files.append(name)
    used = set()
    for subject in corpus.subjects:
        without = ignored(subject.path)
        own = [rule for rule in rules if rule.id not in without]
        _check(subject, own, result, may_edit=subject.document.name not in not_utf_8)
        used.update(own)
    result.rules += tuple(rule for rule in rules if rule in used)
    return result


def _check(subject: LintedDocument, rules: Sequence[Rule], result: Result, *, may_edit: bool) -> None:
    waivers, faults = read_ignore_comments(subject.document.markdown)
    lines = subject.document.markdown.lines
    found: list[Finding] = []

    def add(rule: Rule, problem: Problem, reason: str | None = None) -> None:
        place, severity = problem.place, problem.severity or rule.severity
        line = lines[place.line - 1]
        # The text of a cell may lack emphasis or an escape that its source has.
        fits = all(lines[edit.place.line - 1].startswith(edit.old, edit.place.column - 1) for edit in problem.edits)
        edits = problem.edits if may_edit and fits else ()
        found.append(Finding(rule.id, severity, subject.document.name, place, problem.message, line, edits, reason))

    checked = result.checked[subject.document.name] = {DOCUMENT_RULE.id}
    for rule in rules:
        try:
            for problem in rule.function(subject):
                accepting = next((each for each in waivers if each.covers(rule.id, problem.place.line)), None)
                if accepting:
                    accepting.used.add(rule.id)
                add(rule, problem, accepting.reason if accepting else None)
            checked.add(rule.id)
        except NotChecked as error:
            result.unchecked.append(Unchecked(rule=rule.id, file=subject.document.name, reason=str(error)))
    for waiver in waivers:
        # A waiver of a rule that found nothing there would hide a new fault.
        idle = [id for id in waiver.rules if id in checked and id not in waiver.used]
        if idle:
            message = f"the waiver for {', '.join(idle)} accepts nothing"
            faults.append(Problem(waiver.place, message, severity="warning"))
    own = (*subject.document.faults, *look_alikes(subject.document))
    faults += [_problem(each, subject.document.markdown) for each in own]
    for fault in faults:
        add(DOCUMENT_RULE, fault)
    result.findings += sorted(found, key=lambda each: (each.place, each.rule))


def _problem(fault: Fault, document: Markdown) -> Problem:
    """Return the problem that a fault is, with the edits that make the bars of a table plain."""
    numbers = range(fault.place.line, len(document.lines) + 1)
    table = takewhile(lambda number: has_full_width_bars(document, number), numbers)
    edits = [Edit(Place(number, 1), line := document.lines[number - 1], line.replace("｜", "|")) for number in table]
    return Problem(fault.place, f"{fault.text}: {fault.hint}", edits=tuple(edits))


@dataclass(slots=True, kw_only=True, eq=False)
class IgnoreComment:
    """One waiver: its rules, lines and reason."""

    rules: tuple[str, ...]
    reason: str
    place: Place
    lines: range
    used: set[str] = field(default_factory=set)

    def covers(self, rule_id: str, line: int) -> bool:
        """Return whether the waiver accepts a finding of a rule in a line."""
        return rule_id in self.rules and line in self.lines


def read_ignore_comments(document: Markdown) -> tuple[list[IgnoreComment], list[Problem]]:
    """Return a document's waivers, and the problems of malformed waivers."""
    waivers: list[IgnoreComment] = []
    problems: list[Problem] = []
    known = {name: rule.id for rule in all_rules() for name in (rule.id.casefold(), rule.name)}
    for comment in document.comments:
        if not _MENTION.match(comment.text):
            continue
        match = _COMMENT.fullmatch(comment.text)
        texts = re.findall(r"[-\w]+", match[2]) if match else ()
        ids = tuple(known.get(text.casefold(), text) for text in texts)
        if match is None or not ids:
            problems.append(Problem(comment.place, f"not a waiver: {comment.text[:60]!r}; write ignore L04: reason"))
            continue
        unknown = [id for id in ids if id not in known.values()]
        if unknown:
            problems.append(Problem(comment.place, f"a waiver for {unknown[0]!r}, which is not a rule"))
        reason = (match[3] or "").strip()
        if not reason:
            problems.append(Problem(comment.place, f"the waiver for {', '.join(ids)} has no reason"))
            continue
        whole_file = range(1, len(document.lines) + 1)
        is_whole = match[1] == "ignore-file"
        if is_whole and (fault := _fault_of_ignore_file(document, comment.place, reason)):
            problems.append(Problem(comment.place, f"ignore-file accepts nothing: {fault}"))
            continue
        lines = whole_file if is_whole else _next_block(document, comment.last_line)
        waivers.append(IgnoreComment(rules=ids, reason=reason, place=comment.place, lines=lines))
    return waivers, problems


def _fault_of_ignore_file(document: Markdown, place: Place, reason: str) -> str:
    """Return why a reader of the document would not find or understand a waiver for all of it; empty if none."""
    table = next((block for block in document.blocks if isinstance(block, Table)), None)
    if table and table.place < place:
        return "it is after the first table"
    is_short = len(_WORD.findall(reason)) < _MIN_WORDS
    return f"{reason!r} is not a reason; write a few words" if is_short else ""


def _next_block(document: Markdown, line: int) -> range:
    for block in document.blocks:
        if block.last_line > line or block.place.line >= line:
            return range(min(block.place.line, line), block.last_line + 1)
    return range(line, line + 1)


def _unreadable(name: str, error: DocumentError) -> Finding:
    match = re.match(rf"{re.escape(name)}:(\d+):(\d+):\s*", error.message)
    place = Place(int(match[1]), int(match[2])) if match else Place(1, 1)
    message = error.message[match.end() :] if match else error.message
    return Finding(DOCUMENT_RULE.id, "error", name, place, f"{message}; {error.hint}" if error.hint else message)


def _files(paths: Sequence[Path], given: Collection[Path]) -> Iterator[tuple[Path, bool]]:
    """Yield each file once, and whether the user named it. Those whose text is given need not exist."""
    seen: set[str] = set()
    named = {os.path.abspath(path) for path in paths}
    for path in paths:
        if path not in given and not path.exists():
            raise UsageError(f"{path} does not exist", hint="name files or directories")
        found = [path]
        if path.is_dir():
            pages = (each for each in path.rglob("*") if each.suffix.casefold() in _SUFFIXES and each.is_file())
            found = sorted(each for each in pages if not _SKIPPED_DIRECTORIES & set(each.relative_to(path).parts))
        for each in found:
            name = os.path.abspath(each)
            if name not in seen:
                seen.add(name)
                yield each, name in named
