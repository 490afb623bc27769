"""Writes the table of precisions into docs/training.md: ``python docs/generate_precisions.py``."""

from __future__ import annotations

from pathlib import Path

from chipperf.precisions import PRECISIONS
from marked_list import with_lists

PAGE = Path(__file__).with_name("training.md")


def page() -> str:
    """Return the content of docs/training.md: what it says now, with the precisions of today."""
    rows = [
        f"| `{name}` | {means.arithmetic} | {means.description} | {means.capability or ''} |"
        for name, means in PRECISIONS.items()
    ]
    head = ["| `--precision` | Products | Meaning | Capability of the plugin |", "| --- | --- | --- | --- |"]
    return with_lists(PAGE, Path(__file__).name, {"precisions": "\n".join([*head, *rows]) + "\n"})


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
