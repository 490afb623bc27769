"""Writes the list of the checks of a case into docs/cases.md: ``python docs/generate_cases.py``."""

from __future__ import annotations

from pathlib import Path

from chipperf.contract.check import case_checks
from marked_list import markdown, with_lists

PAGE = Path(__file__).with_name("cases.md")


def page() -> str:
    """Return the content of docs/cases.md: what it says now, with the checks of today."""
    rows = [f"| {each.id} | {markdown(each.summary)} | {markdown(each.fault)} |" for each in case_checks()]
    table = "\n".join(["| Check | A conforming case | Finds |", "| --- | --- | --- |", *rows]) + "\n"
    return with_lists(PAGE, Path(__file__).name, {"checks": table})


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
