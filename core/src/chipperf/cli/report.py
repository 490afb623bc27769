"""``perf report``: a vendor's report on a case, rendered from records."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from chipperf.cli.command_groups import DefaultCommandGroup
from chipperf.cli.import_documents import import_documents
from chipperf.cli.language import language_option, note_fonts
from chipperf.cli.output import require_directory
from chipperf.errors import UsageError
from chipperf.plugin import installed
from chipperf.records.files import write_atomically
from chipperf.records.store import read_stored
from chipperf.report.curve_files import CurveFiles, make_curve_files
from chipperf.report.provenance import describe_page, provenance_file, provenance_text
from chipperf.report.render import render_page, template_directory
from chipperf.report.tracing import read_traced
from chipperf.report.view import build_view

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chipperf.languages import Language
    from chipperf.records.schema import Record
    from chipperf.records.store import StoredRecord


class ReportFormat(str, Enum):
    """File format of a report."""

    MD = "md"
    HTML = "html"


class ReportGroup(DefaultCommandGroup):
    """``perf report RUN...`` is short for ``perf report render RUN...``."""

    default_command = "render"


app = typer.Typer(cls=ReportGroup, help="Render a vendor's report from records, or import reports as records.")
app.command("import")(import_documents)


@app.command("render")
def report(
    runs: list[Path] = typer.Argument(..., help="Directories of runs, or their record.json.", metavar="RUN..."),
    baseline: list[Path] = typer.Option(
        [], "--baseline", help="Run to compare the convergence curves with; may be repeated.", metavar="RUN"
    ),
    lang: str = language_option("Language of the report; a page has all and shows this one first."),
    report_format: ReportFormat = typer.Option(
        ReportFormat.MD, "--format", help="md: the vendor's case document. html: a page of any runs, for any browser."
    ),
    out: Path | None = typer.Option(
        None,
        "--out",
        help="File to write, pictures and provenance beside it; standard output, without them, if not given.",
    ),
    templates: Path | None = typer.Option(None, "--templates", help="Directory with templates of your own."),
) -> None:
    """Render the vendor report of one case from the records of its runs, or a web page of any runs.

    Example: perf report runs/* --lang zh --out README.md && perf report runs/* --format html --out report.html
    """
    if report_format is ReportFormat.HTML:
        if baseline:
            raise UsageError("a page shows all runs alike and has no --baseline", hint="name the run among the others")
        html = _html([read_stored(path) for path in runs], lang, templates)
        if out is None:
            typer.echo(html, nl=False)
            return
        require_directory(out)
        write_atomically(out, html)
        typer.echo(f"wrote {out}", err=True)
        return
    records, baselines = ([read_traced(path) for path in paths] for paths in (runs, baseline))
    vendor_templates = find_vendor_templates(records)
    view = build_view(records, baseline=baselines)
    if out is None:
        if view.convergence:
            typer.echo("note: without --out there is no picture of the convergence curves", err=True)
        page = render_page(view, language=lang, user_templates=templates, vendor_templates=vendor_templates)
        typer.echo(page.text, nl=False)
        return
    require_directory(out)
    content = None
    if view.convergence:
        content = make_curve_files(view.convergence.curves, view.profile, lang, out)
        view = replace(view, convergence=replace(view.convergence, files=content.links))
    page = render_page(view, language=lang, user_templates=templates, vendor_templates=vendor_templates)
    provenance = describe_page(
        page,
        language=lang,
        records=records,
        baseline=baselines,
        curve=content.links if content else None,
        files=content.files_by_name() if content else {},
    )
    # The report is written last, so that the files it links exist.
    if content:
        content.write()
        _note_about_picture(content.links, lang)
    write_atomically(provenance_file(out), provenance_text(provenance))
    write_atomically(out, page.text)
    for path in (*(content.files if content else ()), provenance_file(out), out):
        typer.echo(f"wrote {path}", err=True)


def _html(runs: Sequence[StoredRecord], lang: Language, templates: Path | None) -> str:
    from chipperf.web.board import summarize
    from chipperf.web.pages import render_runs

    records = [run.record for run in runs]
    return render_runs(
        records,
        [summarize(run.record, digest=run.sha256) for run in runs],
        language=lang,
        user_templates=templates,
        vendor_templates=find_vendor_templates(records),
    )


def _note_about_picture(links: CurveFiles, lang: Language) -> None:
    if links.png is None:
        typer.echo("note: no picture, matplotlib is not installed: pip install 'chipperf[plot]'", err=True)
    elif links.language:
        note_fonts(links.language, lang, links.unwritten)


def find_vendor_templates(records: Sequence[Record]) -> Path | None:
    """Return the ``templates`` directory in the vendor's package. Does not import the vendor's plugin."""
    names = {record.vendor.name for record in records}
    if len(names) != 1:
        return None
    (vendor,) = names
    for entry in installed.vendors():
        if entry.name == vendor:
            return template_directory(entry)
    typer.echo(f"note: the plugin of vendor {vendor!r} is not installed; rendering without its templates", err=True)
    return None
