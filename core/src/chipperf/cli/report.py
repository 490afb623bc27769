"""``perf report``: a vendor's report on a case, from records."""

from __future__ import annotations

from enum import Enum
from pathlib import Path

import typer

from chipperf import catalogue
from chipperf.errors import UsageError
from chipperf.records.store import read_record, write_atomically
from chipperf.report.render import render_report, template_directory


class Language(str, Enum):
    """Language of a report."""

    ZH = "zh"
    EN = "en"


def report(
    runs: list[Path] = typer.Argument(..., help="Directories of runs, or their record.json.", metavar="RUN..."),
    lang: Language = typer.Option(Language.ZH, "--lang", help="Language of the report."),
    out: Path | None = typer.Option(None, "--out", help="File to write; standard output if not given."),
    templates: Path | None = typer.Option(None, "--templates", help="Directory with templates of your own."),
) -> None:
    """Render the vendor report of one case from the records of its runs.

    Example: perf report runs/* --lang zh --out README.md
    """
    records = [read_record(path) for path in runs]
    names = {record.vendor.name for record in records}
    vendor_templates = _vendor_templates(names.pop()) if len(names) == 1 else None
    text = render_report(records, language=lang.value, user_templates=templates, vendor_templates=vendor_templates)
    if out is None:
        typer.echo(text, nl=False)
        return
    if not out.parent.is_dir():
        raise UsageError(f"{out.parent} is not a directory", hint="create it, or choose another --out")
    write_atomically(out, text)
    typer.echo(f"wrote {out}", err=True)


def _vendor_templates(vendor: str) -> Path | None:
    """Return the ``templates`` directory in the vendor plugin's package, found without importing the plugin."""
    for entry in catalogue.vendors():
        if entry.name == vendor:
            return template_directory(entry)
    typer.echo(f"note: the plugin of vendor {vendor!r} is not installed; rendering without its templates", err=True)
    return None
