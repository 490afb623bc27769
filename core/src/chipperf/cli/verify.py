"""``perf verify``: make reports again from their records and show the differences."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from chipperf.cli.command_options import JSON_OPTION, complete_runs
from chipperf.cli.output import note, print_json
from chipperf.errors import CheckFailed
from chipperf.visible import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chipperf.verify.report_verification import ReportResult


def verify(
    reports: list[Path] = typer.Argument(..., help="Reports that 'perf report --out' wrote.", metavar="README..."),
    runs: list[Path] = typer.Option(
        ..., "--runs", help="Directory below which to look for the runs' records; repeatable.", metavar="DIR"
    ),
    baseline: list[Path] = typer.Option(
        [],
        "--baseline",
        help="Run whose curve the report shows; needed only if the report has no provenance beside it.",
        metavar="RUN",
        autocompletion=complete_runs,
        exists=True,
    ),
    templates: Path | None = typer.Option(
        None, "--templates", help="The --templates with which the report was rendered.", exists=True
    ),
    as_json: bool = JSON_OPTION,
) -> None:
    """Render reports again from their records, and show every cell and line that differs.

    Records are found by their hashes, whatever their directories are called. Each record is checked on its own, and
    against the events, telemetry and logs beside it. Exit code 4 if anything differs.

    Example: perf verify README.md --runs runs
    """
    results = verify_reports(reports, runs, templates, baseline)
    if as_json:
        print_json(
            [
                {
                    "file": str(result.file),
                    "equal": not result.differences and not result.contradictions,
                    "with_provenance": result.with_provenance,
                    "records": {run: str(file) for run, file in result.records.items()},
                    "cells": result.cells,
                    "differences": list(map(asdict, result.differences)),
                    "contradictions": result.contradictions,
                    "remarks": result.remarks,
                    "notes": result.notes,
                }
                for result in results
            ]
        )
    else:
        for result in results:
            for text in (*result.notes, *result.remarks):
                note(f"{result.file}: {text}")
            for difference in result.differences:
                typer.echo(str(difference))
            for text in result.contradictions:
                typer.echo(f"{result.file}: {text}")
            if not result.differences:
                equal = counted(len(result.records), "record")
                typer.echo(f"{result.file}: {result.cells} cells and facts equal {equal}")
    found = [len(result.differences) + len(result.contradictions) for result in results]
    if differences := sum(found):
        wrong = sum(map(bool, found))
        raise CheckFailed(
            f"{counted(differences, 'difference')} in {wrong} of {counted(len(results), 'report')}",
            hint="render the report again, or find out who changed it: docs/verify.md",
        )


def verify_reports(
    reports: Sequence[Path], runs: Sequence[Path], templates: Path | None, baseline: Sequence[Path] = ()
) -> list[ReportResult]:
    """Verify reports; for the arguments see :func:`verify`. If there are no reports, ``runs`` need not exist."""
    # Imported here because other commands do not need it.
    from chipperf.cli.report import find_vendor_templates
    from chipperf.verify.named_records import RecordFinder
    from chipperf.verify.report_verification import Templates, verify_report

    if not reports:
        return []
    finder = RecordFinder(runs)
    where = Templates(user=templates, of_vendor=find_vendor_templates)
    return [verify_report(report, finder, where, baseline=baseline) for report in reports]
