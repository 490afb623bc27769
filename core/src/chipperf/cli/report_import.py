"""``perf report import``: records from hand-written reports and from logs."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from chipperf.cli.command_options import JSON_OPTION, complete_cases, complete_vendors
from chipperf.cli.output import note, print_json, print_table
from chipperf.documents.card_names import read_card_names
from chipperf.errors import CheckFailed, UsageError
from chipperf.records.schema import Topology
from chipperf.visible import counted, visible

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from chipperf.documents.card_names import CardNames
    from chipperf.documents.markdown import Located
    from chipperf.importing.file_import import FileImport, Outcome
    from chipperf.importing.log_lines import Stated
    from chipperf.records.schema import Record


def import_documents(
    files: list[Path] = typer.Argument(
        ...,
        help="Case documents, FlagPerf's rank0.out.log with its monitor logs, MLPerf logs, or directories of these.",
        metavar="PATH...",
    ),
    out: Path = typer.Option(Path("imported"), "--out", help="Directory in which each record gets a directory."),
    vendor: str | None = typer.Option(
        None, "--vendor", autocompletion=complete_vendors, help="Their vendor, if they do not name it."
    ),
    case: str | None = typer.Option(
        None, "--case", autocompletion=complete_cases, help="Their case, if they do not name it."
    ),
    topology: str | None = typer.Option(
        None, "--topology", help="For logs: machines x cards per machine, for example 1x8."
    ),
    precision: str | None = typer.Option(None, "--precision", help="For logs: precision of the run."),
    cards: list[Path] = typer.Option(
        [], "--cards", metavar="FILE", help="TOML file with further names of vendors and cards."
    ),
    as_json: bool = JSON_OPTION,
) -> None:
    """Import hand-written case documents and logs as records, every value with its line and column.

    Prints every text that does not fit its place in the layout. The records' remarks keep these texts and the findings
    of perf lint on the document. Exit code 4 if not everything was understood.

    Example: perf report import README.md --out imported && perf report imported/* --lang en
    """
    from chipperf.importing.file_import import import_files
    from chipperf.importing.imported import write_imports
    from chipperf.importing.log_lines import Stated

    names = read_card_names(cards)
    stated = Stated(vendor=vendor, case=case, topology=_topology(topology), precision=precision)
    paths, findings = _find(files, stated, names)
    results = [_with_findings(each, findings) for each in import_files(paths, stated, names)]
    if len(results) == 1 and results[0].error:
        raise results[0].error
    directories = iter(write_imports([each.imported for each in results], out))
    placed = [[(next(directories), each.record) for each in result.imported.records] for result in results]
    if as_json:
        print_json([_as_json(each, records) for each, records in zip(results, placed, strict=True)])
    else:
        _print(results, placed)
        if any(path.is_dir() for path in files) and (records := [each for of_file in placed for each in of_file]):
            command = shlex.join(["perf", "report", str(out), "--case", records[0][1].case.name])
            note(f"a report has one case and one vendor: {command} --vendor {records[0][1].vendor.name}")
    _require_all(results)


def _as_json(each: FileImport, records: Sequence[tuple[Path, Record]]) -> dict[str, object]:
    return {
        "path": visible(str(each.path)),
        "imported": each.outcome,
        "reason": each.reason,
        "files": [file.name for file in each.imported.files],
        "records": [str(directory) for directory, _ in records],
        "not_understood": [found.model_dump() for found in each.imported.not_understood],
    }


def _print(results: Sequence[FileImport], placed: Sequence[Sequence[tuple[Path, Record]]]) -> None:
    rows = [
        (directory, record.topology.label, record.precision.requested, record.vendor.name)
        for records in placed
        for directory, record in records
    ]
    print_table(("record", "topology", "precision", "vendor"), rows)
    not_understood = [found for each in results for found in each.imported.not_understood]
    for found in not_understood:
        typer.echo(f"not understood: {found}", err=True)
    if len(results) > 1:
        overview = [
            (visible(str(each.path)), len(records), each.outcome, each.reason)
            for each, records in zip(results, placed, strict=True)
        ]
        print_table(("file", "records", "imported", "why not fully"), overview)
    typer.echo(f"{counted(len(rows), 'record')}; {counted(len(not_understood), 'text')} not understood")


def _require_all(results: Sequence[FileImport]) -> None:
    counts: dict[Outcome, int] = {"fully": 0, "partly": 0, "refused": 0}
    for each in results:
        counts[each.outcome] += 1
    if counts["fully"] < len(results):
        listed = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
        raise CheckFailed(
            f"{counted(len(results), 'file')}: {listed}",
            hint="the remarks of the records keep what was not understood, see docs/report.md",
        )


def _find(
    paths: Sequence[Path], stated: Stated, names: CardNames
) -> tuple[list[Path], Mapping[Path, Sequence[Located]]]:
    """Return the files to import, those below each directory sorted, and the findings of lint on each document.

    A rendered import shows the document's values in the layout of chipperf, in which its mistakes can no longer be
    found.
    """
    from chipperf.documents.markdown import Located
    from chipperf.importing.file_import import LOG_SUFFIXES, find_logs
    from chipperf.lint.lint_run import lint
    from chipperf.lint.rule import choose_rules

    documents = [path for path in paths if path.suffix not in LOG_SUFFIXES or path.is_dir()]
    linted = lint(documents, choose_rules(), names=names, vendor=stated.vendor, case=stated.case)
    found: list[Path] = []
    named = {path.resolve() for path in paths if not path.is_dir()}
    for path in paths:
        if path.is_dir():
            below = [Path(file) for file in linted.files if Path(file).is_relative_to(path)]
            # A file that is named, or lies below two of the directories, is imported once.
            new = [each for each in sorted({*below, *find_logs(path)}) if each.resolve() not in named]
            named |= {each.resolve() for each in new}
            found += new
        else:
            found.append(path)
    if not found:
        listed = ", ".join(map(str, paths))
        raise UsageError(f"no case document and no log is in {listed}", hint="name some, or other directories")
    findings: dict[Path, list[Located]] = {}
    for each in linted.findings:
        accepted = f", accepted ({each.reason})" if each.reason else ""
        text = f"perf lint, line {each.place.line}: {each.rule}{accepted}: {each.message}"
        findings.setdefault(Path(each.file).resolve(), []).append(Located(text, each.place))
    return found, findings


def _with_findings(each: FileImport, findings: Mapping[Path, Sequence[Located]]) -> FileImport:
    own = findings.get(each.path.resolve(), ())
    return each if each.error or each.imported.generated else replace(each, imported=each.imported.with_remarks(own))


def _topology(text: str | None) -> Topology | None:
    if text is None:
        return None
    match = re.fullmatch(r"([1-9]\d{0,3})x([1-9]\d{0,3})", text)
    if not match:
        raise UsageError(f"--topology {text!r} is not machines x cards", hint="for example --topology 1x8")
    return Topology(nnodes=int(match[1]), nproc_per_node=int(match[2]))
