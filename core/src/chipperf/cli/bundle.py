"""``perf bundle``: pack runs and reports for submission, and check bundles."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import typer

from chipperf.cli.agreement import require_agreement
from chipperf.cli.command_groups import group_with_default
from chipperf.cli.command_options import JSON_OPTION, complete_runs, runs_among
from chipperf.cli.output import note, print_json, require_file
from chipperf.cli.verify import verify_reports
from chipperf.errors import CheckFailed, RecordError
from chipperf.visible import counted

if TYPE_CHECKING:
    from chipperf.bundle.manifest import BundleManifest

_TEMPLATES = typer.Option(
    None, "--templates", help="The --templates with which the reports were rendered.", exists=True
)

# "perf bundle RUN..." is short for "perf bundle pack RUN...".
app = typer.Typer(cls=group_with_default("pack"), help="Pack runs and reports for submission, or check a bundle.")


@app.command("pack")
def pack_runs(
    runs: list[Path] = typer.Argument(
        ..., help="Directories of runs, or their record.json.", metavar="RUN...", autocompletion=complete_runs
    ),
    reports: list[Path] = typer.Option(
        [], "--report", help="Report on these runs, packed with the files beside it; repeatable.", metavar="README"
    ),
    documents: list[Path] = typer.Option(
        [], "--document", help="File to pack as it is: limits, a certificate; repeatable.", metavar="FILE"
    ),
    out: Path = typer.Option(..., "--out", help="Archive to write: FILE.tar.gz."),
    templates: Path | None = _TEMPLATES,
    sign: Path | None = typer.Option(None, "--sign", help="Sign with this ssh key.", metavar="KEY"),
) -> None:
    """Pack records, logs, events, telemetry, and reports with their provenance, each file with its SHA-256.

    A report that differs from its records is refused, and a record that contradicts itself or the files of its run; see
    perf verify. The same files give the same archive.

    Example: perf bundle runs/* --report README.md --out submission.tar.gz
    """
    from chipperf.bundle.pack import pack
    from chipperf.records.store import read_stored
    from chipperf.verify.evidence import examine

    require_file(out, (".tar.gz", ".tgz"))
    runs = runs_among(runs)
    require_agreement(
        map(read_stored, runs), examine, hint="leave them out: 'perf bundle check' would refuse the bundle"
    )
    _require_equal(
        [f"{file}: {fault}" for file in documents if (fault := _fault_of_document(file))],
        hint="leave them out, or make them again: 'perf bundle check' would refuse the bundle",
    )
    results = verify_reports(reports, runs, templates)
    _require_equal(
        [str(difference) for result in results for difference in result.differences],
        hint="render the report again, of these runs and their baselines: perf report --out",
    )
    manifest = pack(runs, reports, out, sign, documents)
    size_bytes = sum(file.size_bytes for file in manifest.files)
    typer.echo(
        f"wrote {out}: {_contents(manifest)}, {counted(len(manifest.files), 'file')}, "
        f"{size_bytes} bytes before compression"
    )


@app.command("check")
def check(
    bundle: Path = typer.Argument(..., help="Archive that 'perf bundle' wrote.", metavar="FILE"),
    templates: Path | None = _TEMPLATES,
    signers: Path | None = typer.Option(
        None,
        "--signers",
        help="Require a signature of one of the signers in this ssh file of allowed signers.",
        metavar="FILE",
    ),
    as_json: bool = JSON_OPTION,
) -> None:
    """Check a bundle: every file against its SHA-256, every record on its own and against the run's events, telemetry
    and logs, and every report against the records.

    Leaves no unpacked files on disk. Exit code 4 if anything is wrong.

    Example: perf bundle check submission.tar.gz
    """
    from chipperf.bundle.bundle_check import unpack_checked
    from chipperf.bundle.pack import files_of_report
    from chipperf.records.store import read_record
    from chipperf.verify.evidence import examine

    contradictions: list[str] = []
    remarks: list[str] = []
    with TemporaryDirectory(prefix="chipperf-bundle-") as temporary:
        root = Path(temporary)
        manifest, signer = unpack_checked(bundle, root, signers)
        for run in manifest.runs:
            file = root / run.record
            try:
                record = read_record(file)
            except RecordError as error:
                raise CheckFailed(f"{bundle}: {error.message.replace(f'{root}/', '')}", hint=error.hint) from error
            if record.run_id != run.run_id:
                raise CheckFailed(f"{bundle}: {run.record} is of run {record.run_id}, not {run.run_id}")
            examined = examine(record, file.parent)
            contradictions += [f"run {run.run_id}: {text}" for text in examined.contradictions]
            remarks += [f"run {run.run_id}: {text}" for text in examined.notes]
        faults = {name: _fault_of_document(root / name) for name in manifest.documents}
        contradictions += [f"{name}: {fault}".replace(f"{root}/", "") for name, fault in faults.items() if fault]
        records = [root / run.record for run in manifest.runs]
        pages = [root / report for report in manifest.reports]
        results = verify_reports(pages, records, templates)
        for result in results:
            remarks += [f"{result.file}: {text}".replace(f"{root}/", "") for text in result.notes]
        linked = {file for page in pages for file in files_of_report(page)}
        unlinked = sorted({file for page in pages for file in page.parent.iterdir()} - linked)
        contradictions += [f"{file.relative_to(root)} is linked by no report" for file in unlinked]
    found = [[str(each).replace(f"{root}/", "") for each in result.differences] for result in results]
    if as_json:
        reports = [
            {"file": name, "equal": not differences, "differences": differences}
            for name, differences in zip(manifest.reports, found, strict=True)
        ]
        content = {"bundle": str(bundle), "runs": [run.run_id for run in manifest.runs], "reports": reports}
        findings = {"contradictions": contradictions, "remarks": remarks}
        print_json(content | findings | {"files": len(manifest.files), "signer": signer})
    else:
        for text in remarks:
            note(f"{bundle}: {text}")
        typer.echo(
            f"{bundle}: {counted(len(manifest.files), 'file')} as packed, {_contents(manifest)}"
            f"{f', signed by {signer}' if signer else '; no signature was checked'}"
        )
    differences = [*contradictions, *(text for texts in found for text in texts)]
    _require_equal(differences, hint="see which record and which page differ with perf verify")


def _fault_of_document(file: Path) -> str | None:
    """Return what is wrong with limits, a statement or a certificate; ``None`` for a document of another kind too."""
    from chipperf.contract.certificate import Certificate
    from chipperf.contract.statement import Statement
    from chipperf.records.files import read_bounded, read_model
    from chipperf.records.machine_limits import MachineLimits
    from chipperf.records.schema import StrictModel

    content = None
    if file.suffix == ".json":
        with suppress(OSError, ValueError, RecursionError):
            content = json.loads(read_bounded(file))
    kinds: dict[str, type[StrictModel]] = {
        "limits_version": MachineLimits,
        "contract_version": Statement,
        "comparisons": Certificate,
    }
    for key, model in kinds.items():
        if isinstance(content, dict) and key in content:
            try:
                read_model(model, file, hint="")
            except RecordError as error:
                return error.message.removeprefix(f"{file}: ")
    return None


def _contents(manifest: BundleManifest) -> str:
    return f"{counted(len(manifest.runs), 'run')}, {counted(len(manifest.reports), 'report')}"


def _require_equal(differences: list[str], *, hint: str) -> None:
    for difference in differences:
        typer.echo(difference, err=True)
    if differences:
        raise CheckFailed(f"{counted(len(differences), 'difference')} between reports, records and evidence", hint=hint)
