"""Writes the list of rules into docs/lint.md: ``python docs/generate_lint.py``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from chipperf.lint.rule import all_rules
from marked_list import markdown, with_lists

if TYPE_CHECKING:
    from chipperf.lint.rule import Rule

PAGE = Path(__file__).with_name("lint.md")


def page() -> str:
    """Return the content of docs/lint.md: what it says now, with the rules of today."""
    return with_lists(PAGE, Path(__file__).name, {"rules": _table()})


def _table() -> str:
    rules = all_rules()
    errors = sum(rule.severity == "error" for rule in rules)
    lines = [
        f"{len(rules)} rules: {errors} errors, {len(rules) - errors} warnings.",
        "",
        "| Rule | In a good document | Why it matters | What to do | Needs |",
        "| --- | --- | --- | --- | --- |",
        *(_row(rule) for rule in rules),
    ]
    return "\n".join(lines) + "\n"


def _row(rule: Rule) -> str:
    cells = (f"{rule.id} {rule.name}, {rule.severity}", rule.summary, rule.why, rule.fix, rule.evidence)
    return f"| {' | '.join(markdown(cell) for cell in cells)} |"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
