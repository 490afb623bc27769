"""``perf report``: a vendor's report on a case, rendered from records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import typer

from chipperf.cli.agreement import require_agreement
from chipperf.cli.command_groups import group_with_default
from chipperf.cli.command_options import complete_cases, complete_runs, complete_vendors, language_option, runs_among
from chipperf.cli.output import (
    HTML_ENDINGS,
    TEXT_ENDINGS,
    note,
    note_fonts,
    note_unused_templates,
    require_file,
    tell,
    write_file,
)
from chipperf.cli.report_import import import_documents
from chipperf.errors import RecordError, UsageError
from chipperf.languages import Language
from chipperf.plugin import installed
from chipperf.records.files import write_atomically
from chipperf.records.schema import Record
from chipperf.records.store import RECORD_NAME, StoredRecord, find_records, read_stored
from chipperf.report.beside import runs_beside
from chipperf.report.curve_files import make_curve_files
from chipperf.report.provenance import describe_page, provenance_file
from chipperf.report.render import render_page, template_directory
from chipperf.report.tracing import trace
from chipperf.report.view import build_view
from chipperf.verify.evidence import examine_evidence

# "perf report RUN..." is short for "perf report render RUN...".
app = typer.Typer(
    cls=group_with_default("render"), help="Render a vendor's report from records, or import reports as records."
)


app.command("import")(import_documents)


@app.command("render")
def report(
    runs: list[Path] = typer.Argument(
        ...,
        help="Runs, their record.json, or directories with runs in them.",
        metavar="RUN...",
        autocompletion=complete_runs,
    ),
    baseline: list[Path] = typer.Option(
        [],
        "--baseline",
        help="Run with which to compare the convergence curves; repeatable.",
        metavar="RUN",
        autocompletion=complete_runs,
    ),
    lang: str = language_option("Language of the report; a web page has all languages and shows this one first."),
    case: str | None = typer.Option(None, "--case", help="Only runs of this case.", autocompletion=complete_cases),
    vendor: str | None = typer.Option(
        None, "--vendor", help="Only runs of this vendor.", autocompletion=complete_vendors
    ),
    report_format: Literal["md", "html"] | None = typer.Option(
        None,
        "--format",
        help="md: the vendor's case document. html: a web page of any runs. [by the extension of --out, otherwise md]",
    ),
    out: Path | None = typer.Option(
        None,
        "--out",
        help="File to write, with pictures and provenance beside it. [standard output, without them]",
    ),
    templates: Path | None = typer.Option(None, "--templates", help="Directory with templates of your own."),
) -> None:
    """Render the vendor report of one case from the records of its runs, or a web page of any runs.

    A directory that is not a run stands for all runs below it. Records that the events, telemetry and logs beside them
    contradict are refused; a web page marks them.

    Example: perf report runs --case resnet50 --lang zh --out README.md && perf report runs --out report.html
    """
    is_html = report_format == "html" or (
        report_format is None and out is not None and out.suffix.casefold() in HTML_ENDINGS
    )
    require_file(out, HTML_ENDINGS if is_html else TEXT_ENDINGS)
    chosen = _chosen(runs_among(runs), case, vendor)
    if is_html:
        if baseline:
            raise UsageError("a page shows all runs alike and has no --baseline", hint="name the run among the others")
        note_unused_templates(templates, (*dict.fromkeys(run.record.case.name for run in chosen), "report"), ".html.j2")
        html = _web_page(chosen, lang, templates)
        if out is None:
            typer.echo(html, nl=False)
        else:
            write_file(out, html)
        return
    note_unused_templates(templates, (chosen[0].record.case.name, "report"), ".md.j2")
    curves_of = list(map(read_stored, baseline))
    require_agreement(
        [*chosen, *curves_of],
        examine_evidence,
        hint="leave them out: 'perf verify' would refuse the report; as a web page it marks them, --format html",
    )
    records, baselines = ([trace(run.record, run.sha256) for run in part] for part in (chosen, curves_of))
    vendor_templates = find_vendor_templates(records)
    beside = runs_beside([run.file for run in chosen], records, baselines)
    view = replace(build_view(records, baseline=baselines), beside=beside)
    for run in view.beside:
        note(f"run {run.run_id} ({run.state}) is of a row of this report and beside its runs, but not in it")
    if out is None:
        if view.convergence:
            note("without --out there is no picture of the convergence curves")
        page = render_page(view, language=lang, user_templates=templates, vendor_templates=vendor_templates)
        typer.echo(page.text, nl=False)
        return
    links = None
    files: dict[str, bytes] = {}
    if view.convergence:
        links, files = make_curve_files(view.convergence.curves, view.profile, lang, out)
        view = replace(view, convergence=replace(view.convergence, files=links))
    page = render_page(view, language=lang, user_templates=templates, vendor_templates=vendor_templates)
    provenance = describe_page(
        page,
        language=lang,
        records=records,
        baseline=baselines,
        curve=links,
        files=files,
        beside=view.beside,
    )
    # The report is written last, so that the files it links exist.
    written = [out.with_name(name) for name in files]
    for path in written:
        write_atomically(path, files[path.name])
    if links and links.png is None:
        note("no picture, matplotlib is not installed: pip install 'chipperf[plot]'")
    elif links and links.language:
        note_fonts(links.language, lang, links.unwritten)
    write_atomically(provenance_file(out), provenance.model_dump_json(indent=1) + "\n")
    write_atomically(out, page.text)
    for path in (*written, provenance_file(out), out):
        tell(f"wrote {path}")


def _chosen(paths: Sequence[Path], case: str | None, vendor: str | None) -> list[StoredRecord]:
    """Return the runs of a case and a vendor, ``None`` for any, among these and those below directories."""
    chosen: list[StoredRecord] = []
    for path in paths:
        below = [] if not path.is_dir() or (path / RECORD_NAME).exists() else sorted(find_records(path))
        for each in below or [path]:
            try:
                stored = read_stored(each)
            except RecordError as error:
                if not below:
                    raise
                note(f"left out: {error.message}")
                continue
            if case in (None, stored.record.case.name) and vendor in (None, stored.record.vendor.name):
                chosen.append(stored)
    if not chosen:
        wanted = " ".join(f"{name} {value}" for name, value in (("--case", case), ("--vendor", vendor)) if value)
        raise UsageError(f"no run matches {wanted}", hint="leave the option out to see all runs")
    return chosen


def _web_page(runs: Sequence[StoredRecord], lang: Language, templates: Path | None) -> str:
    from chipperf.web.board import summarize_stored
    from chipperf.web.pages import render_runs

    records = [run.record for run in runs]
    return render_runs(
        records,
        list(map(summarize_stored, runs)),
        language=lang,
        user_templates=templates,
        vendor_templates=find_vendor_templates(records),
    )


def find_vendor_templates(records: Sequence[Record]) -> Path | None:
    """Return the ``templates`` directory in the vendor's package. Does not import the vendor's plugin."""
    vendors = list({record.vendor.name for record in records})
    if len(vendors) != 1:
        return None
    for entry in installed.vendors():
        if entry.name == vendors[0]:
            return template_directory(entry)
    note(f"the plugin of vendor {vendors[0]!r} is not installed; rendering without its templates")
    return None
