"""What a rule is, and how it says what it found."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from chipperf.lint.problem import Problem, Severity
    from chipperf.lint.subject import Subject


_ID: Final = re.compile(r"L\d{2}")


Function: TypeAlias = "Callable[[Subject], Iterator[Problem]]"


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
    if not _ID.fullmatch(id):
        raise ValueError(f"{id!r} is not a rule id such as 'L04'")

    def decorate(function: Function) -> Rule:
        summary = (inspect.getdoc(function) or "").partition("\n")[0]
        if not summary:
            raise ValueError(f"rule {id} has no docstring to take its summary from")
        return Rule(
            id=id,
            name=name,
            summary=summary,
            severity=severity,
            why=why,
            fix=fix,
            evidence=evidence,
            function=function,
        )

    return decorate
