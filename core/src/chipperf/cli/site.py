"""``perf site``: web pages of all records below a directory."""

from __future__ import annotations

from pathlib import Path

import typer

from chipperf.cases.registry import case_names
from chipperf.cli.command_options import language_option
from chipperf.cli.live import counting_progress
from chipperf.cli.output import note, note_unused_templates, tell
from chipperf.report.figures import has_matplotlib
from chipperf.web.site_files import build_site

_SHOWN_PROBLEMS = 10


def site(
    directory: Path = typer.Argument(..., help="Directory with runs in it, at any depth.", metavar="DIR"),
    out: Path = typer.Option(..., "--out", help="Directory to write to: new, empty, or of an earlier site."),
    lang: str = language_option("Language that the pages show first; they contain all languages."),
    templates: Path | None = typer.Option(None, "--templates", help="Directory with templates of your own."),
) -> None:
    """Make static web pages of all records below a directory: a leaderboard, and a page for each run.

    The leaderboard lists records that cannot be read, with their paths.

    Example: perf site runs --out site
    """
    note_unused_templates(templates, ("leaderboard", "report", *case_names()), ".html.j2")
    with counting_progress("making pages") as advance:
        made = build_site(directory, out, language=lang, user_templates=templates, tell=advance)
    for problem in made.problems[:_SHOWN_PROBLEMS]:
        note(f"not readable: {problem.place}: {problem.message}")
    if len(made.problems) > _SHOWN_PROBLEMS:
        note(f"{len(made.problems) - _SHOWN_PROBLEMS} more are listed on the page")
    if made.copies:
        note(f"copies of other records, left out: {made.copies}")
    if not has_matplotlib():
        note("no charts, matplotlib is not installed: pip install 'chipperf[plot]'")
    elif made.uncharted:
        note(f"pages of runs without charts, because there are too many: {made.uncharted}")
    tell(f"wrote {made.index}, pages of runs: {made.runs}")
