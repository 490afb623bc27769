"""Linting documents: running the rules, and applying the waivers in the documents.

A waiver is a comment that accepts findings, with the reason: ``<!-- perf lint: ignore L04: no 2x8 machine here -->``
accepts findings of rule L04 in the next block. ``ignore-file`` accepts them in the whole document. Several rules are
separated by commas.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from chipperf.documents.case_document import read_document
from chipperf.documents.document_identity import identify_case, identify_vendor, installed_cases, is_place_of_a_case
from chipperf.documents.markdown import Markdown, Place, decoded_text
from chipperf.errors import DocumentError, UsageError
from chipperf.lint.configs import read_configs
from chipperf.lint.rule import Corpus, LintedDocument, NotChecked, Problem, Rule, Severity, all_rules

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from chipperf.documents.card_names import CardNames
    from chipperf.records.schema import Record

WAIVER_RULE: Final = "L00"
"""Id of findings on unreadable documents and wrong waivers."""

_COMMENT: Final = re.compile(r"perf[ -]lint:\s*(ignore-file|ignore)\s+([\w\s,]*?)\s*(?::\s*(.*))?", re.DOTALL)
_MENTION: Final = re.compile(r"perf[ -]lint\b")
_SUFFIXES: Final = (".md", ".markdown")
_SKIPPED_DIRECTORIES: Final = {".git", "node_modules", "__pycache__", ".venv"}


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding of a rule, with its file and place. ``reason`` is the reason of the waiver that accepts it."""

    rule: str
    severity: Severity
    file: str
    place: Place
    message: str
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unchecked:
    """A rule that could not be checked on a file, and the missing evidence."""

    rule: str
    file: str
    reason: str


@dataclass(slots=True, kw_only=True)
class Result:
    """The checked documents, skipped Markdown files, findings by file, line and rule, and rules without evidence."""

    files: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    unchecked: list[Unchecked] = field(default_factory=list)

    def count(self, severity: Severity) -> int:
        """Return the number of findings of a severity, without those that a waiver accepts."""
        return sum(finding.severity == severity and finding.reason is None for finding in self.findings)


def lint(
    paths: Sequence[Path],
    rules: Sequence[Rule],
    *,
    names: CardNames,
    vendor: str | None = None,
    case: str | None = None,
    config: Path | None = None,
    records: Sequence[Record] = (),
) -> Result:
    """Check documents, and all Markdown files in directories and their subdirectories.

    Named files are always checked. A Markdown file found in a directory is skipped if it is not a case document. Vendor
    and case are by default detected for each document, and the configurations of its runs are by default those in the
    directory ``config`` next to it. A path or ``config`` that does not exist is a :class:`UsageError`.
    """
    result = Result()
    corpus = Corpus()
    for path, named in _files(paths):
        name = str(path)
        try:
            text, fault = decoded_text(path)
            document = read_document(text, name)
        except DocumentError as error:
            result.findings.append(_unreadable(name, error.message))
            result.files.append(name)
            continue
        if fault:
            document.faults.insert(0, fault)
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
    for subject in corpus.subjects:
        _check(subject, rules, result)
    return result


def _check(subject: LintedDocument, rules: Sequence[Rule], result: Result) -> None:
    waivers, faults = read_ignore_comments(subject.document.markdown)
    found: list[Finding] = []

    def add(id: str, severity: Severity, problem: Problem, reason: str | None = None) -> None:
        severity = problem.severity or severity
        place, message = problem.place, problem.message
        found.append(Finding(id, severity, subject.document.name, place, message, reason))

    checked = set()
    for rule in rules:
        try:
            for problem in rule.function(subject):
                accepting = next((each for each in waivers if each.covers(rule.id, problem.place.line)), None)
                if accepting:
                    accepting.used.add(rule.id)
                add(rule.id, rule.severity, problem, accepting.reason if accepting else None)
            checked.add(rule.id)
        except NotChecked as error:
            result.unchecked.append(Unchecked(rule=rule.id, file=subject.document.name, reason=str(error)))
    for waiver in waivers:
        # A waiver of a rule that found nothing there would hide a new fault.
        idle = [id for id in waiver.rules if id in checked and id not in waiver.used]
        if idle:
            message = f"the waiver for {', '.join(idle)} accepts nothing"
            faults.append(Problem(waiver.place, message, severity="warning"))
    faults += [Problem(each.place, f"{each.text}: {each.hint}") for each in subject.document.faults]
    for fault in faults:
        add(WAIVER_RULE, "error", fault)
    result.findings += sorted(found, key=lambda each: (each.place, each.rule))


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
        whole_file = range(1, len(document.lines) + 1)
        lines = whole_file if match[1] == "ignore-file" else _next_block(document, comment.last_line)
        waivers.append(IgnoreComment(rules=ids, reason=reason, place=comment.place, lines=lines))
    return waivers, problems


def _next_block(document: Markdown, line: int) -> range:
    for block in document.blocks:
        if block.last_line > line or block.place.line >= line:
            return range(min(block.place.line, line), block.last_line + 1)
    return range(line, line + 1)


def _unreadable(name: str, message: str) -> Finding:
    match = re.match(rf"{re.escape(name)}:(\d+):(\d+):\s*", message)
    place = Place(int(match[1]), int(match[2])) if match else Place(1, 1)
    message = message[match.end() :] if match else message
    return Finding(WAIVER_RULE, "error", name, place, message)


def _files(paths: Sequence[Path]) -> Iterator[tuple[Path, bool]]:
    """Yield each file once, and whether the user named it."""
    seen: set[Path] = set()
    for path in paths:
        if not path.exists():
            raise UsageError(f"{path} does not exist", hint="name files or directories")
        found = [path]
        if path.is_dir():
            below = (each for each in path.rglob("*") if not _SKIPPED_DIRECTORIES & set(each.parts))
            found = sorted(each for each in below if each.suffix.casefold() in _SUFFIXES and each.is_file())
        for each in found:
            if each not in seen:
                seen.add(each)
                yield each, each is path
