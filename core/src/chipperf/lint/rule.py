"""The rules of lint: declaring, listing and selecting them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from chipperf.catalog import Catalog, require_id, summary_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from chipperf.lint.linted_document import LintedDocument, Problem, Severity


Function: TypeAlias = "Callable[[LintedDocument], Iterator[Problem]]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule.

    Attributes:
        id: Stable name, for example ``L04``.
        name: Stable name in words, for example ``blank-cell``.
        severity: ``error`` fails the lint.
        summary: What is true of a good document. The first line of the function's docstring.
        why: Why the rule matters to readers of the report.
        fix: How to correct the document.
        evidence: Evidence that the rule needs in addition to the document; empty if none.
        function: Yields problems, or raises :class:`~chipperf.lint.linted_document.NotChecked`.
    """

    id: str
    name: str
    severity: Severity
    summary: str
    why: str
    fix: str
    evidence: str
    function: Function


def rule(
    id: str, name: str, *, why: str, fix: str, severity: Severity = "error", evidence: str = ""
) -> Callable[[Function], Rule]:
    """Make a rule from a function. The first line of its docstring is the rule's summary.

    :class:`Rule` describes the arguments.
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
    """Return all rules, ordered by number."""
    return tuple(_RULES.entries().values())


def choose_rules(select: Sequence[str] = (), ignore: Sequence[str] = ()) -> tuple[Rule, ...]:
    """Return the selected rules, by default all, without the ignored ones.

    Raises:
        UsageError: A name is not the id of a rule.
    """
    wanted = {_RULES.find(id).id for id in select or _RULES.entries()} - {_RULES.find(id).id for id in ignore}
    return tuple(rule for rule in all_rules() if rule.id in wanted)
