"""``perf bundle``: pack runs and reports for submission, and check bundles."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import typer

from chipperf.cli.command_groups import DefaultCommandGroup
from chipperf.cli.output import JSON_OPTION, print_json, require_directory
from chipperf.cli.verify import verify_reports
from chipperf.errors import CheckFailed, RecordError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chipperf.verify.report_verification import ReportResult

_TEMPLATES = typer.Option(None, "--templates", help="The --templates that the reports were made with.")


class BundleGroup(DefaultCommandGroup):
    """``perf bundle RUN...`` is short for ``perf bundle pack RUN...``."""

    default_command = "pack"


app = typer.Typer(cls=BundleGroup, help="Pack runs and reports for submission, or check a bundle.")


@app.command("pack")
def pack_runs(
    runs: list[Path] = typer.Argument(..., help="Directories of runs, or their record.json.", metavar="RUN..."),
    reports: list[Path] = typer.Option(
        [], "--report", help="Report on these runs, with what lies beside it; may be repeated.", metavar="README"
    ),
    out: Path = typer.Option(..., "--out", help="Archive to write: FILE.tar.gz."),
    templates: Path | None = _TEMPLATES,
) -> None:
    """Pack records, logs, events, telemetry, and reports with their provenance, each file with its SHA-256.

    A report that differs from its records is refused, see perf verify. The same files give the same archive.

    Example: perf bundle runs/* --report README.md --out submission.tar.gz
    """
    from chipperf.bundle.pack import pack

    require_directory(out)
    results = verify_reports(reports, runs, templates)
    _require_equal(results, hint="render the report again, of these runs and their baselines: perf report --out")
    manifest = pack(runs, reports, out)
    size_bytes = sum(file.size_bytes for file in manifest.files)
    typer.echo(
        f"wrote {out}: {len(manifest.runs)} runs, {len(manifest.reports)} reports, {len(manifest.files)} files, "
        f"{size_bytes} bytes before compression"
    )


@app.command("check")
def check(
    bundle: Path = typer.Argument(..., help="Archive that 'perf bundle' wrote.", metavar="FILE"),
    templates: Path | None = _TEMPLATES,
    as_json: bool = JSON_OPTION,
) -> None:
    """Check a bundle: every file against its SHA-256, every record, and every report against the records.

    Nothing is unpacked to where it stays. Exit code 4 if anything is wrong.

    Example: perf bundle check submission.tar.gz
    """
    from chipperf.bundle.bundle_check import unpack_checked
    from chipperf.records.store import read_stored

    with TemporaryDirectory(prefix="chipperf-bundle-") as temporary:
        root = Path(temporary)
        manifest = unpack_checked(bundle, root)
        for run in manifest.runs:
            try:
                run_id = read_stored(root / run.record).record.run_id
            except RecordError as error:
                raise CheckFailed(f"{bundle}: {error.message.replace(f'{root}/', '')}", hint=error.hint) from error
            if run_id != run.run_id:
                raise CheckFailed(f"{bundle}: {run.record} is of run {run_id}, not {run.run_id}")
        records = [root / run.record for run in manifest.runs]
        results = verify_reports([root / report for report in manifest.reports], records, templates)
        described = {
            "bundle": str(bundle),
            "runs": [run.run_id for run in manifest.runs],
            "reports": [
                {
                    "file": name,
                    "equal": not result.differences,
                    "differences": [str(difference).replace(f"{root}/", "") for difference in result.differences],
                }
                for name, result in zip(manifest.reports, results, strict=True)
            ],
            "files": len(manifest.files),
        }
        if as_json:
            print_json(described)
        else:
            typer.echo(
                f"{bundle}: {len(manifest.files)} files as packed, {len(manifest.runs)} records, "
                f"{len(manifest.reports)} reports"
            )
        _require_equal(results, root=root, hint="see which record and which page differ with perf verify")


def _require_equal(results: Sequence[ReportResult], *, hint: str, root: Path | None = None) -> None:
    differences = [str(difference) for result in results for difference in result.differences]
    if root:
        differences = [difference.replace(f"{root}/", "") for difference in differences]
    for difference in differences:
        typer.echo(difference, err=True)
    if differences:
        count = len(differences)
        raise CheckFailed(f"{count} difference{'s' if count > 1 else ''} between reports and records", hint=hint)
