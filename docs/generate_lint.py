"""Writes the list of rules into docs/lint.md, and a page for each into docs/lint: ``python docs/generate_lint.py``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from chipperf.lint.rule import DOCUMENT_RULE, all_rules
from chipperf.lint.rule_pages import page as page_of
from marked_list import markdown, with_lists

if TYPE_CHECKING:
    from chipperf.lint.rule import Rule

PAGE = Path(__file__).with_name("lint.md")
RULE_PAGES = Path(__file__).with_name("lint")


def page() -> str:
    """Return the content of docs/lint.md: what it says now, with the rules of today."""
    return with_lists(PAGE, Path(__file__).name, {"rules": _table()})


def rule_pages() -> dict[Path, str]:
    """Return the pages of the rules by their paths."""
    return {RULE_PAGES / f"{rule.id}.md": page_of(rule) for rule in (DOCUMENT_RULE, *all_rules())}


def _table() -> str:
    rules = all_rules()
    errors = sum(rule.severity == "error" for rule in rules)
    lines = [
        f"{len(rules)} rules: {errors} errors, {len(rules) - errors} warnings.",
        "",
        "| Rule | In a good document | Why it matters | What to do | Needs |",
        "| --- | --- | --- | --- | --- |",
        *(_row(rule) for rule in (DOCUMENT_RULE, *rules)),
    ]
    if off := [f"* {rule.id}: {markdown(rule.off_because)}." for rule in rules if rule.off_because]:
        lines += ["", "These are off by default, because of what they find in real reports:", "", *off]
    return "\n".join(lines) + "\n"


def _row(rule: Rule) -> str:
    severity = f"{rule.severity}, off" if rule.off_because else rule.severity
    name = f"[{rule.id}](lint/{rule.id}.md) {rule.name}, {severity}"
    return f"| {' | '.join(markdown(cell) for cell in (name, rule.summary, rule.why, rule.fix, rule.evidence))} |"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    RULE_PAGES.mkdir(exist_ok=True)
    for path, text in rule_pages().items():
        path.write_text(text, encoding="utf-8")
