"""Formats of a lint's result for people: findings by document and rule, or one in a line."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Final, Literal

from chipperf.lint.result_formats import statistics
from chipperf.lint.rule import DOCUMENT_RULE, find_rule
from chipperf.visible import counted, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from chipperf.lint.lint_run import Finding, Result

Style = Literal["error", "warning", "name", "rule"]

_CODES: Final[Mapping[Style, str]] = {"error": "31", "warning": "33", "name": "1", "rule": "1"}
_SHOWN: Final = 3
"""Findings of a rule in a document that are shown; one more is not worth a line that says so."""

_INDENT: Final = " " * 6
_MIN_WIDTH: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Screen:
    """What a text is written for: with color, and with lines of the source, cut at a width in columns."""

    color: bool = False
    width: int | None = None

    def paint(self, text: str, style: Style) -> str:
        """Return a text that a terminal shows in a style."""
        return f"\x1b[{_CODES[style]}m{text}\x1b[0m" if self.color else text


def _text(result: Result, screen: Screen) -> Iterator[str]:
    yield from _documents(result, screen, folds=True)
    yield from _accepted(each for each in result.findings if each.severity == "error" and not each.in_baseline)
    if any(each.rule == DOCUMENT_RULE.id for each in result.open) and len(result.files) == 1 and result.unchecked:
        # What else a rule needs helps nobody before the document is understood.
        yield f"not checked: {', '.join(sorted({each.rule for each in result.unchecked}))} (--format full: why)"
    elif len(result.files) == 1:
        yield from _reasons(result.files[0], result)
    elif result.unchecked:
        counts = Counter(each.rule for each in result.unchecked)
        by_count = groupby(sorted(counts, key=lambda rule: (-counts[rule], rule)), key=lambda rule: counts[rule])
        parts = [f"{', '.join(rules)} in {count}" for count, rules in by_count]
        yield f"not checked, of {len(result.files)} documents: {'; '.join(parts)} (--format full: why)"
    yield from _end(result, screen)


def _full(result: Result, screen: Screen) -> Iterator[str]:
    yield from _documents(result, screen, folds=False)
    yield from _accepted(result.findings)
    for file in result.files:
        yield from _reasons(file, result, f"{file}: " if len(result.files) > 1 else "")
    yield from _end(result, screen)


def _concise(result: Result, screen: Screen) -> Iterator[str]:
    for each in result.open:
        name = screen.paint(f"{each.rule} {find_rule(each.rule).name}", "rule")
        yield f"{each.file}:{each.place}: {screen.paint(each.severity, each.severity)} {name}: {each.message}"
    yield from _summary(result)


def _statistics(result: Result, screen: Screen) -> Iterator[str]:
    for row in statistics(result):
        name = screen.paint(f"{row['rule']} {row['name']}", "rule")
        fixable = f", {row['fixable']} that --fix corrects" if row["fixable"] else ""
        yield f"{row['findings']:>6}  {name} in {counted(row['documents'], 'document')}{fixable}"
    yield from _summary(result)


def _documents(result: Result, screen: Screen, *, folds: bool) -> Iterator[str]:
    by_file: dict[str, dict[tuple[str, str], list[Finding]]] = defaultdict(lambda: defaultdict(list))
    for finding in result.open:
        by_file[finding.file][finding.rule, finding.severity].append(finding)
    for file, by_rule in by_file.items():
        yield screen.paint(file, "name")
        for found in by_rule.values():
            yield from _rule(found, screen, folds=folds)
        yield ""


def _rule(found: Sequence[Finding], screen: Screen, *, folds: bool) -> Iterator[str]:
    first = found[0]
    name = screen.paint(f"{first.rule} {find_rule(first.rule).name}", "rule")
    head = f"  {name}, {screen.paint(first.severity, first.severity)}"
    if len(found) > 1:
        lines = sorted({each.place.line for each in found})
        span = f"lines {lines[0]}-{lines[-1]}" if len(lines) > 1 else f"line {lines[0]}"
        head += f": {len(found)} findings, {span}"
    yield head
    shown = found[:_SHOWN] if folds and len(found) > _SHOWN + 1 else found
    for finding in shown:
        yield f"    {finding.place}: {finding.message}"
        if screen.width and finding.line:
            yield from _source(finding, screen, screen.width - len(_INDENT))
    if len(shown) < len(found):
        yield f"    {len(found) - len(shown)} more (--format full)"


def _source(finding: Finding, screen: Screen, width: int) -> Iterator[str]:
    """Yield the line of a finding, cut to the width, and a mark below the place."""
    # Imported here: only terminals need the widths of characters.
    from rich.cells import cell_len

    line, column = finding.line.replace("\t", " "), finding.place.column - 1
    before, after = visible(line[:column]), visible(line[column:])
    cut = 0
    while cell_len(before[cut:]) > max(width, _MIN_WIDTH) // 2:
        cut += 1
    before = f"…{before[cut + 1 :]}" if cut else before
    end = len(after)
    while cell_len(before + after[:end]) >= max(width, _MIN_WIDTH):
        end -= 1
    yield f"{_INDENT}{before}{after[:end]}{'…' if end < len(after) else ''}"
    yield f"{_INDENT}{' ' * cell_len(before)}{screen.paint('^', finding.severity)}"


def _reasons(file: str, result: Result, prefix: str = "") -> Iterator[str]:
    """Yield what could not be checked on a document, a line for each reason."""
    by_reason: dict[str, list[str]] = defaultdict(list)
    for each in result.unchecked:
        if each.file == file:
            by_reason[each.reason].append(each.rule)
    for reason, rules in by_reason.items():
        yield f"{prefix}not checked: {', '.join(rules)}: {reason}"


def _end(result: Result, screen: Screen) -> Iterator[str]:
    for text in result.unmatched:
        yield f"no longer found: {text}"
    for id in sorted({finding.rule for finding in result.open}):
        rule = find_rule(id)
        yield f"{screen.paint(f'{id} {rule.name}', 'rule')}: {rule.why}. To do: {rule.fix}. {rule.url}"
    yield from _summary(result)


def _accepted(findings: Iterable[Finding]) -> Iterator[str]:
    for each in findings:
        if each.reason is not None:
            yield f"accepted: {each.file}:{each.place}: {each.rule}: {each.message} [{each.reason}]"


def _summary(result: Result) -> Iterator[str]:
    yield from result.settings
    errors, warnings, accepted = result.count("error"), result.count("warning"), len(result.findings) - len(result.open)
    fixable = sum(bool(finding.edits) for finding in result.open)
    parts = [f"{counted(errors, 'error')}, {counted(warnings, 'warning')}, {accepted} accepted"]
    if result.skipped:
        parts.append(f"{len(result.skipped)} other Markdown files skipped")
    if result.fixed:
        parts.append(f"{result.fixed} fixed")
    if fixable:
        parts.append(f"{fixable} that --fix corrects")
    yield f"{counted(len(result.files), 'document')}: {', '.join(parts)}"


def written(result: Result, name: str, screen: Screen) -> str:
    """Return a result in one of the :data:`TEXT_FORMATS`, with what a terminal would obey in foreign texts escaped."""
    shown = replace(
        result,
        files=[visible(file) for file in result.files],
        findings=[
            replace(
                each,
                file=visible(each.file),
                message=visible(each.message),
                reason=each.reason and visible(each.reason),
            )
            for each in result.findings
        ],
        unchecked=[replace(each, file=visible(each.file), reason=visible(each.reason)) for each in result.unchecked],
        unmatched=[visible(text) for text in result.unmatched],
        settings=[visible(text) for text in result.settings],
    )
    return "".join(f"{line}\n" for line in TEXT_FORMATS[name](shown, screen))


TEXT_FORMATS: Final[Mapping[str, Callable[[Result, Screen], Iterator[str]]]] = {
    "text": _text,
    "full": _full,
    "concise": _concise,
    "statistics": _statistics,
}
"""Function that yields the lines of a result for people, by the name of its format."""
