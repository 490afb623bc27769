"""Formats of a lint's result for programs, code scanning, and annotations of a pull request."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import chipperf
from chipperf.documents.format import github_annotation
from chipperf.lint.rule import find_rule

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from chipperf.lint.lint_run import Result
    from chipperf.lint.rule import Rule

_SARIF_SCHEMA: Final = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_DESCRIPTION: Final = ("id", "name", "severity", "summary", "why", "fix", "evidence")


def describe(rule: Rule) -> dict[str, object]:
    """Return what programs get about a rule."""
    return {**{name: getattr(rule, name) for name in _DESCRIPTION}, "default": not rule.off_because, "url": rule.url}


def _json(result: Result) -> str:
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
                "edits": [asdict(edit) for edit in each.edits],
            }
            for each in result.findings
        ],
        "not_checked": [asdict(each) for each in result.unchecked],
        "rules": [describe(rule) for rule in result.rules],
        "fixed": result.fixed,
        "unmatched": result.unmatched,
        "settings": result.settings,
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _sarif(result: Result) -> str:
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
                "helpUri": rule.url,
                "defaultConfiguration": {"level": rule.severity, "enabled": not rule.off_because},
            }
            for rule in result.rules
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
                        "artifactLocation": {"uri": quote(os.fsencode(finding.file))},
                        "region": {"startLine": finding.place.line, "startColumn": finding.place.column},
                    }
                }
            ],
            "suppressions": (
                [{"kind": "external" if finding.in_baseline else "inSource", "justification": finding.reason}]
                if finding.reason
                else []
            ),
        }
        for finding in result.findings
    ]
    notes = [
        {"level": "note", "message": {"text": f"{each.file}: {each.rule} not checked: {each.reason}"}}
        for each in result.unchecked
    ]
    notes += [{"level": "note", "message": {"text": f"no longer found: {each}"}} for each in result.unmatched]
    notes += [{"level": "note", "message": {"text": each}} for each in result.settings]
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "invocations": [{"executionSuccessful": True, "toolExecutionNotifications": notes}],
        "results": results,
    }
    content = {"$schema": _SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _github(result: Result) -> str:
    lines = []
    for finding in result.open:
        rule = find_rule(finding.rule)
        text, title = f"{finding.message} ({rule.url})", f"{rule.id} {rule.name}"
        place = {"file": finding.file, "line": finding.place.line, "col": finding.place.column}
        lines.append(github_annotation(finding.severity, text, **place, title=title))
    for each in result.unchecked:
        lines.append(github_annotation("debug", f"{each.file}: {each.rule} not checked: {each.reason}"))
    lines += [github_annotation("notice", each) for each in result.settings]
    return "".join(f"{line}\n" for line in lines)


def statistics(result: Result) -> list[dict[str, Any]]:
    """Return the open findings of each rule in figures, the most frequent first."""
    rows = []
    for id, count in sorted(Counter(each.rule for each in result.open).items(), key=lambda each: (-each[1], each[0])):
        found = [each for each in result.open if each.rule == id]
        rows.append(
            {
                "rule": id,
                "name": find_rule(id).name,
                "findings": count,
                "errors": sum(each.severity == "error" for each in found),
                "documents": len({each.file for each in found}),
                "fixable": sum(bool(each.edits) for each in found),
            }
        )
    return rows


def _json_statistics(result: Result) -> str:
    return json.dumps(statistics(result), indent=2) + "\n"


FORMATS: Final[Mapping[str, Callable[[Result], str]]] = {
    "json": _json,
    "json-statistics": _json_statistics,
    "sarif": _sarif,
    "github": _github,
}
"""Function that writes a result for programs, by the name of its format."""
