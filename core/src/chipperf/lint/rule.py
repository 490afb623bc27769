"""What a rule is, and how it says what it found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from chipperf.catalog import Catalog, require_id, summary_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from chipperf.lint.linted_document import LintedDocument
    from chipperf.lint.problem import Problem, Severity


Function: TypeAlias = "Callable[[LintedDocument], Iterator[Problem]]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule.

    Attributes:
        id: Stable name, for example ``L04``.
        name: Stable words for it, for example ``blank-cell``.
        summary: What holds in a good document. The first line of the function's docstring.
        severity: ``error`` fails the lint.
        why: Why it matters to somebody who reads the report.
        fix: What to do about it.
        evidence: What it needs beyond the document; empty if nothing.
        function: Yields problems, or raises :class:`NotChecked`.
    """

    id: str
    name: str
    summary: str
    severity: Severity
    why: str
    fix: str
    evidence: str
    function: Function


def rule(
    id: str, name: str, *, why: str, fix: str, severity: Severity = "error", evidence: str = ""
) -> Callable[[Function], Rule]:
    """Make a rule of a function whose docstring's first line is the rule's summary.

    Args:
        id: See :class:`Rule`, as all that follow.
        name: Stable words for it.
        why: Why it matters.
        fix: What to do about it.
        severity: ``error`` by default.
        evidence: What it needs beyond the document.
    """
    require_id(id, r"L\d{2}", "L04")

    def decorate(function: Function) -> Rule:
        return Rule(
            id=id,
            name=name,
            summary=summary_of(function, id),
            severity=severity,
            why=why,
            fix=fix,
            evidence=evidence,
            function=function,
        )

    return decorate


_RULES: Final = Catalog("chipperf.lint.rules", Rule, noun="rule", listing="perf lint --list")


def all_rules() -> tuple[Rule, ...]:
    """Return every rule, ordered by number."""
    return tuple(_RULES.entries().values())


def choose_rules(select: Sequence[str] = (), ignore: Sequence[str] = ()) -> tuple[Rule, ...]:
    """Return the rules that are selected, by default all, without those that are ignored.

    Raises:
        UsageError: A name is no rule's id.
    """
    wanted = {_RULES.find(id).id for id in select or _RULES.entries()} - {_RULES.find(id).id for id in ignore}
    return tuple(rule for rule in all_rules() if rule.id in wanted)
