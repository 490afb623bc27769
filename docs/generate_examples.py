"""Renders the reports in docs/examples from the records beside them: ``python docs/generate_examples.py``.

The records stay as the chipperf that ran wrote them. An excerpt of one report is in the project's README.
"""

from __future__ import annotations

from pathlib import Path

from chipperf.cli.main import app
from marked_list import with_lists

EXAMPLES = Path(__file__).with_name("examples")
REPORTS = {"zh": "README.md", "en": "report.en.md"}
READMES = {"zh": "README.zh-CN.md", "en": "README.md"}
DEMO = EXAMPLES / "mobilenetv2-cpu"
"""The report of a run of ``make demo``."""


def render(example: Path, directory: Path) -> None:
    """Render the report of one example, in both languages, with its figures.

    Args:
        example: Directory that holds a ``record.json``.
        directory: Directory to write to.
    """
    for language, name in REPORTS.items():
        app(["report", str(example), "--lang", language, "--out", str(directory / name)], standalone_mode=False)


def readme(language: str) -> str:
    """Return the project's README with the warning, table and notes of the demo's report."""
    page = (DEMO / REPORTS[language]).read_text(encoding="utf-8")
    warning = page.partition("\n")[0]
    table = page[page.index("| precision | fix_hp |") :].partition("\n### ")[0]
    first_line = page[: page.index("| precision | fix_hp |")].rpartition("\n")[2]
    excerpt = f"{warning}\n\n{first_line}{table.rstrip()}\n"
    return with_lists(EXAMPLES.parents[1] / READMES[language], Path(__file__).name, {"the demo's report": excerpt})


if __name__ == "__main__":
    for record in sorted(EXAMPLES.glob("*/record.json")):
        render(record.parent, record.parent)
    for language, name in READMES.items():
        (EXAMPLES.parents[1] / name).write_text(readme(language), encoding="utf-8")
