"""Renders the reports in docs/examples from the records beside them: ``python docs/generate_examples.py``.

The records stay as the chipperf that ran wrote them.
"""

from __future__ import annotations

from pathlib import Path

from chipperf.cli.main import app

EXAMPLES = Path(__file__).with_name("examples")
REPORTS = {"zh": "README.md", "en": "report.en.md"}


def render(example: Path, directory: Path) -> None:
    """Render the report of one example, in both languages, with its figures.

    Args:
        example: Directory that holds a ``record.json``.
        directory: Directory to write to.
    """
    for language, name in REPORTS.items():
        app(["report", str(example), "--lang", language, "--out", str(directory / name)], standalone_mode=False)


if __name__ == "__main__":
    for record in sorted(EXAMPLES.glob("*/record.json")):
        render(record.parent, record.parent)
