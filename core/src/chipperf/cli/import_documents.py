"""``perf report import``: import vendors' case documents and FlagPerf's logs as records."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from chipperf.cli.command_options import JSON_OPTION
from chipperf.cli.output import print_json, print_table
from chipperf.documents.card_names import read_card_names
from chipperf.errors import DocumentError, UsageError
from chipperf.importing.imported import write_imports
from chipperf.records.schema import Topology

if TYPE_CHECKING:
    from chipperf.documents.card_names import CardNames
    from chipperf.importing.flagperf_log import RunFacts
    from chipperf.importing.imported import Import


def import_documents(
    files: list[Path] = typer.Argument(
        ..., help="Case documents (README.md), or FlagPerf's rank0.out.log beside its monitor logs.", metavar="FILE..."
    ),
    out: Path = typer.Option(Path("imported"), "--out", help="Directory in which each record gets a directory."),
    vendor: str | None = typer.Option(None, "--vendor", help="Whose they are, if they do not tell."),
    case: str | None = typer.Option(None, "--case", help="Which case they are on, if they do not tell."),
    topology: str | None = typer.Option(None, "--topology", help="Of a log: machines x cards per machine, as 1x8."),
    precision: str | None = typer.Option(None, "--precision", help="Of a log: precision of the run."),
    cards: list[Path] = typer.Option([], "--cards", help="File with further names of vendors and cards, as TOML."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Import hand-written case documents and FlagPerf's logs as records, every value with its line and column.

    Texts that stand in one of the layout's places and do not fit it are printed; they stay among the records' remarks.

    Example: perf report import README.md --out imported && perf report imported/* --lang en
    """
    from chipperf.importing.flagperf_log import RunFacts

    names = read_card_names(cards)
    facts = RunFacts(vendor=vendor, case=case, topology=_topology(topology), precision=precision)
    imports = [_import(file, names, facts) for file in files]
    directories = iter(write_imports(imports, out))
    placed = [[(next(directories), each.record) for each in imported.records] for imported in imports]
    if as_json:
        print_json(
            [
                {
                    "files": [file.name for file in imported.files],
                    "records": [str(directory) for directory, _ in records],
                    "not_understood": [text.model_dump() for text in imported.not_understood],
                }
                for imported, records in zip(imports, placed, strict=True)
            ]
        )
        return
    rows = [
        (directory, record.topology.label, record.precision.requested, record.vendor.name)
        for records in placed
        for directory, record in records
    ]
    print_table(("record", "topology", "precision", "vendor"), rows)
    not_understood = [text for imported in imports for text in imported.not_understood]
    for text in not_understood:
        typer.echo(f"not understood: {text}", err=True)
    typer.echo(f"{len(rows)} records; {len(not_understood)} texts not understood")


def _import(file: Path, names: CardNames, facts: RunFacts) -> Import:
    from chipperf.documents.markdown import read_text
    from chipperf.importing.document_import import import_document
    from chipperf.importing.flagperf_log import import_log

    if file.is_dir():
        raise DocumentError(f"{file} is a directory", hint="name README.md or rank0.out.log in it")
    if file.suffix == ".log":
        return import_log(file, names=names, facts=facts)
    return import_document(read_text(file), str(file), names=names, vendor=facts.vendor, case=facts.case, path=file)


def _topology(text: str | None) -> Topology | None:
    if text is None:
        return None
    match = re.fullmatch(r"([1-9]\d{0,3})x([1-9]\d{0,3})", text)
    if not match:
        raise UsageError(f"--topology {text!r} is not machines x cards", hint="for example --topology 1x8")
    return Topology(nnodes=int(match[1]), nproc_per_node=int(match[2]))
