"""Writes the lists of promises and of checks, of plugins and of cases, into docs/contract.md.

``python docs/generate_contract.py``
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from chipperf.contract.check import LEVELS, all_checks, case_checks
from marked_list import markdown, with_lists
from promises import sentences

if TYPE_CHECKING:
    from chipperf.contract.check import Check

PAGE = Path(__file__).with_name("contract.md")


def page() -> str:
    """Return the content of docs/contract.md: what it says now, with the promises and checks of today."""
    lists = {"promises": _promises(), "checks": _table(), "checks of a case": _case_table()}
    return with_lists(PAGE, Path(__file__).name, lists)


def _promises() -> str:
    rows = [
        f"| {markdown(of)} | {markdown(text)} | {' '.join(checks)} |"
        for of, text, checks in ((each.of, each.text, each.checks) for each in sentences())
        if checks
    ]
    return "\n".join(["| Of | Promise | Checks |", "| --- | --- | --- |", *rows]) + "\n"


def _table() -> str:
    checks = all_checks()
    counts = ", ".join(f"{sum(check.level == level for check in checks)} at level {level}" for level in LEVELS)
    lines = [
        f"{len(checks)} checks: {counts}.",
        "",
        "| Check | Level | Since | Capability | A conforming plugin | Finds |",
        "| --- | --- | --- | --- | --- | --- |",
        *(_row(check) for check in checks),
    ]
    return "\n".join(lines) + "\n"


def _case_table() -> str:
    rows = [f"| {each.id} | {markdown(each.summary)} | {markdown(each.fault)} |" for each in case_checks()]
    return "\n".join(["| Check | A conforming case | Finds |", "| --- | --- | --- |", *rows]) + "\n"


def _row(check: Check) -> str:
    capability = f"`{check.capability}`" if check.capability else ""
    cells = (check.id, str(check.level), check.since, capability, markdown(check.summary), markdown(check.fault))
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
