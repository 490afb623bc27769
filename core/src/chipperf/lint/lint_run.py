"""Linting documents: running the rules and applying the waivers."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from chipperf.documents.case_document import read_document
from chipperf.documents.document_identity import identify_case, identify_vendor, installed_cases
from chipperf.documents.markdown import Place, read_text
from chipperf.errors import DocumentError, UsageError
from chipperf.lint.configs import read_configs
from chipperf.lint.ignore_comments import read_ignore_comments, unused
from chipperf.lint.linted_document import Corpus, LintedDocument, NotChecked

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from chipperf.documents.card_names import CardNames
    from chipperf.lint.linted_document import Problem, Severity
    from chipperf.lint.rule import Rule
    from chipperf.records.schema import Record

WAIVER_RULE: Final = "L00"
"""Id of findings on unreadable documents and wrong waivers."""

_SUFFIXES: Final = (".md", ".markdown")
_SKIPPED_DIRECTORIES: Final = {".git", "node_modules", "__pycache__", ".venv"}


@dataclass(frozen=True, slots=True, kw_only=True)
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
    """The result of a lint.

    Attributes:
        files: The checked documents.
        skipped: Markdown files that are not case documents.
        findings: Findings in the order of files, lines and rules.
        unchecked: Rules without evidence.
    """

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

    Named files are always checked. A Markdown file found in a directory is skipped if it is not a case document.

    Args:
        paths: Files and directories.
        rules: The rules.
        names: Names of vendors and cards.
        vendor: Vendor of the documents; by default detected for each.
        case: Case of the documents; by default detected for each.
        config: Configurations; by default the directory ``config`` next to each document.
        records: Records of the documents' runs.

    Raises:
        UsageError: A path or ``config`` does not exist.
    """
    result = Result()
    corpus = Corpus()
    for path, named in _files(paths):
        name = str(path)
        try:
            document = read_document(read_text(path), name)
        except DocumentError as error:
            result.findings.append(_unreadable(name, error.message))
            result.files.append(name)
            continue
        if not named and not document.is_report:
            result.skipped.append(name)
            continue
        case_name = case or identify_case(document, path)
        beside = path.parent / "config"
        configs = config or (beside if beside.is_dir() else None)
        corpus.subjects.append(
            LintedDocument(
                path=path,
                name=name,
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
    findings = []
    checked = set()
    for rule in rules:
        try:
            for problem in rule.function(subject):
                waiver = next((each for each in waivers if each.covers(rule.id, problem.place.line)), None)
                if waiver:
                    waiver.used.add(rule.id)
                reason = waiver.reason if waiver else None
                findings.append(_finding(subject, rule.id, rule.severity, problem, reason))
            checked.add(rule.id)
        except NotChecked as error:
            result.unchecked.append(Unchecked(rule=rule.id, file=subject.name, reason=str(error)))
    for problem in (*faults, *unused(waivers, checked)):
        findings.append(_finding(subject, WAIVER_RULE, "error", problem))
    result.findings += sorted(findings, key=lambda each: (each.place, each.rule))


def _finding(
    subject: LintedDocument, rule: str, severity: Severity, problem: Problem, reason: str | None = None
) -> Finding:
    return Finding(
        rule=rule,
        severity=problem.severity or severity,
        file=subject.name,
        place=problem.place,
        message=problem.message,
        reason=reason,
    )


def _unreadable(name: str, message: str) -> Finding:
    match = re.match(rf"{re.escape(name)}:(\d+):(\d+):\s*", message)
    place = Place(int(match[1]), int(match[2])) if match else Place(1, 1)
    message = message[match.end() :] if match else message
    return Finding(rule=WAIVER_RULE, severity="error", file=name, place=place, message=message)


def _files(paths: Sequence[Path]) -> Iterator[tuple[Path, bool]]:
    """Yield each file once, and whether the user named it."""
    seen: set[Path] = set()
    for path in paths:
        if not path.exists():
            raise UsageError(f"{path} does not exist", hint="name files or directories")
        found = sorted(_documents_below(path)) if path.is_dir() else [path]
        for each in found:
            if each not in seen:
                seen.add(each)
                yield each, each is path


def _documents_below(directory: Path) -> Iterator[Path]:
    for path in directory.rglob("*"):
        if path.suffix.casefold() in _SUFFIXES and not _SKIPPED_DIRECTORIES & set(path.parts) and path.is_file():
            yield path
