"""Formats of a lint's result: for people, programs, code scanning, and annotations of a pull request."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import asdict
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import chipperf

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from chipperf.lint.lint_run import Result
    from chipperf.lint.rule import Rule

_SARIF_SCHEMA: Final = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_FAULT_NAME: Final = "document"
_DESCRIPTION: Final = ("id", "name", "severity", "summary", "why", "fix", "evidence")


def _text(result: Result, rules: Sequence[Rule]) -> str:
    names = {rule.id: rule.name for rule in rules}
    open_findings = [finding for finding in result.findings if finding.reason is None]
    lines = [
        f"{finding.file}:{finding.place}: {finding.severity} {finding.rule} {names.get(finding.rule, _FAULT_NAME)}: "
        f"{finding.message}"
        for finding in open_findings
    ]
    found = {finding.rule for finding in open_findings}
    explained = [rule for rule in rules if rule.id in found]
    if explained:
        lines += ["", *(f"{rule.id} {rule.name}: {rule.why}. To do: {rule.fix}." for rule in explained)]
    lines += ["", *_summary(result)]
    return "\n".join(lines).lstrip("\n") + "\n"


def _summary(result: Result) -> Iterator[str]:
    by_reason: dict[tuple[str, int], list[str]] = defaultdict(list)
    for (rule, reason), count in Counter((each.rule, each.reason) for each in result.unchecked).items():
        by_reason[reason, count].append(rule)
    for (reason, count), ids in by_reason.items():
        files = "" if len(result.files) == 1 else f" in {count} of {len(result.files)} files"
        yield f"not checked{files}: {', '.join(ids)}: {reason}"
    waived = [finding for finding in result.findings if finding.reason is not None]
    for finding in waived:
        yield f"accepted: {finding.file}:{finding.place}: {finding.rule}: {finding.message} [{finding.reason}]"
    skipped = f", {len(result.skipped)} other Markdown files skipped" if result.skipped else ""
    yield (
        f"{len(result.files)} documents: {result.count('error')} errors, {result.count('warning')} warnings, "
        f"{len(waived)} accepted{skipped}"
    )


def _json(result: Result, rules: Sequence[Rule]) -> str:
    content = {
        "chipperf": chipperf.__version__,
        "files": result.files,
        "skipped": result.skipped,
        "errors": result.count("error"),
        "warnings": result.count("warning"),
        "findings": [
            {
                "rule": each.rule,
                "severity": each.severity,
                "file": each.file,
                "line": each.place.line,
                "column": each.place.column,
                "message": each.message,
                "accepted": each.reason,
            }
            for each in result.findings
        ],
        "not_checked": [asdict(each) for each in result.unchecked],
        "rules": [{name: getattr(rule, name) for name in _DESCRIPTION} for rule in rules],
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _sarif(result: Result, rules: Sequence[Rule]) -> str:
    driver = {
        "name": "perf lint",
        "version": chipperf.__version__,
        "rules": [
            {
                "id": rule.id,
                "name": rule.name,
                "shortDescription": {"text": rule.summary},
                "fullDescription": {"text": f"{rule.why}."},
                "help": {"text": f"To do: {rule.fix}."},
                "defaultConfiguration": {"level": rule.severity},
            }
            for rule in rules
        ],
    }
    results = [
        {
            "ruleId": finding.rule,
            "level": finding.severity,
            "message": {"text": finding.message},
            "locations": [
                {
                    "physicalLocation": {
                        "artifactLocation": {"uri": quote(finding.file)},
                        "region": {"startLine": finding.place.line, "startColumn": finding.place.column},
                    }
                }
            ],
            "suppressions": [{"kind": "inSource", "justification": finding.reason}] if finding.reason else [],
        }
        for finding in result.findings
    ]
    notes = [
        {"level": "note", "message": {"text": f"{each.file}: {each.rule} not checked: {each.reason}"}}
        for each in result.unchecked
    ]
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "invocations": [{"executionSuccessful": True, "toolExecutionNotifications": notes}],
        "results": results,
    }
    content = {"$schema": _SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _github(result: Result, rules: Sequence[Rule]) -> str:
    names = {rule.id: rule.name for rule in rules}
    lines = []
    for finding in result.findings:
        if finding.reason is None:
            properties = (
                f"file={_property(finding.file)},line={finding.place.line},col={finding.place.column},"
                f"title={_property(f'{finding.rule} {names.get(finding.rule, _FAULT_NAME)}')}"
            )
            lines.append(f"::{finding.severity} {properties}::{_message(finding.message)}")
    for each in result.unchecked:
        lines.append(f"::debug::{_message(f'{each.file}: {each.rule} not checked: {each.reason}')}")
    return "".join(f"{line}\n" for line in lines)


def _message(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _message(text).replace(":", "%3A").replace(",", "%2C")


FORMATS: Final[Mapping[str, Callable[[Result, Sequence[Rule]], str]]] = {
    "text": _text,
    "json": _json,
    "sarif": _sarif,
    "github": _github,
}
"""Function that writes a result, by the name of its format."""
