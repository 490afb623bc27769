"""``perf runs`` and ``perf show``: what runs there are, and what a run measured."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from chipperf.cli.command_options import JSON_OPTION, complete_cases, complete_runs, complete_vendors
from chipperf.cli.output import note, print_json, print_table
from chipperf.languages import ENGLISH, in_language
from chipperf.visible import counted

if TYPE_CHECKING:
    from chipperf.errors import RecordError
    from chipperf.records.rows import Value
    from chipperf.records.store import StoredRecord
    from chipperf.web.board import PageCell

State = Literal["running", "completed", "failed", "interrupted", "killed"]

_TITLES = ("created (UTC)", "state", "case", "row", "p_core", "verdict", "run")


def runs(
    directories: list[Path] = typer.Argument(
        ..., help="Directories with runs in them, at any depth.", metavar="DIR..."
    ),
    case: str | None = typer.Option(None, "--case", autocompletion=complete_cases, help="Only runs of this case."),
    vendor: str | None = typer.Option(
        None, "--vendor", autocompletion=complete_vendors, help="Only runs of this vendor."
    ),
    state: State | None = typer.Option(None, "--state", help="Only runs in this state."),
    verdict: str | None = typer.Option(None, "--verdict", help="Only runs with this verdict, for example converged."),
    topology: str | None = typer.Option(None, "--topology", help="Only runs on this topology, for example 1x8."),
    precision: str | None = typer.Option(None, "--precision", help="Only runs that requested this precision."),
    as_json: bool = JSON_OPTION,
) -> None:
    """List the runs below directories, newest first: date, state, case, row of a report, verdict.

    The verdict also says if a record is implausible, on its own or with the files of its run beside it, or if no
    evidence is beside it. Records that cannot be read are named on standard error; the others are still listed.

    Example: perf runs runs --case resnet50 --state completed
    """
    from chipperf.records.rows import as_row, load
    from chipperf.web.board import doubts_of, mark_doubles, summarize_stored

    problems: list[RecordError] = []
    found = {each.sha256: each for directory in directories for each in load(directory, on_problem=problems.append)}
    board = mark_doubles(map(summarize_stored, found.values()))
    options = {"case": case, "vendor": vendor, "state": state, "topology": topology, "precision": precision}
    wanted = {key: value for key, value in {**options, "verdict": verdict}.items() if value is not None}
    rows = [(as_row(each) | doubts_of(marked), each) for each, marked in zip(found.values(), board, strict=True)]
    chosen = [row for row in rows if all(row[0][key] == value for key, value in wanted.items())]
    chosen.sort(key=lambda row: str(row[0]["created_at"]), reverse=True)
    for problem in problems:
        note(f"not readable: {problem.message}")
    if as_json:
        faults = [problem.message for problem in problems]
        print_json({"runs": [_json(row) for row, _ in chosen], "problems": faults})
    elif chosen:
        print_table(_TITLES, [_cells(row, stored) for row, stored in chosen])
    if not chosen:
        note(_why_none([row for row, _ in rows], wanted))


def show(
    run: Path = typer.Argument(
        ..., help="Directory of a run, or its record.json.", metavar="RUN", autocompletion=complete_runs
    ),
    as_json: bool = JSON_OPTION,
) -> None:
    """Show one run: its values, failures, environment, precision, dataset and settings.

    Example: perf show runs/demo
    """
    from chipperf.records.rows import as_row
    from chipperf.records.store import read_stored
    from chipperf.web.board import COLUMNS, doubts_of, summarize_stored
    from chipperf.web.details import describe

    stored = read_stored(run)
    board = summarize_stored(stored)
    if as_json:
        print_json(_json(as_row(stored) | doubts_of(board)))
        return
    facts = [(heading.title, cell) for heading, cell in zip(COLUMNS, board.cells, strict=True)]
    print_table(("run", str(stored.file)), [_fact(*fact) for fact in facts])
    if board.implausible:
        typer.echo()
        print_table(("implausible",), [(text,) for text in board.implausible])
    if board.lacks_evidence:
        typer.echo("\nno evidence: no events of the run are beside its record, so nothing confirms its values")
    for section in describe(stored.record):
        typer.echo()
        print_table((str(section.title), ""), [_fact(fact.name, fact.value) for fact in section.facts])
        if section.omitted:
            typer.echo(f"and {section.omitted} more")


def _fact(name: object, cell: PageCell) -> tuple[str, str]:
    text = in_language(cell.text, ENGLISH)
    reason = cell.reason or ""
    if reason.startswith(text):
        text = reason
    return in_language(name, ENGLISH), f"{text} ({reason})" if reason not in text else text


def _cells(row: dict[str, Value], stored: StoredRecord) -> tuple[object, ...]:
    from chipperf.documents.format import number
    from chipperf.report.row import configuration_name

    created, rate, failure = row["created_at"], row["p_core_samples_per_s"], row["failure"]
    when = f"{created:%Y-%m-%d %H:%M}" if isinstance(created, datetime) else ""
    # The failure of a run that was killed or interrupted has that name, too.
    state = f"{row['state']} ({failure})" if failure not in (None, row["state"]) else row["state"]
    speed = number(rate) if isinstance(rate, float) else "-"
    place = stored.file.parent
    name, verdict = configuration_name(stored.record), str(row["verdict"]).replace("_", " ")
    if row["implausible"] or row["lacks_evidence"]:
        verdict += ", implausible" if row["implausible"] else ", no evidence"
    return when, state, row["case"], name, speed, verdict, place


def _json(row: dict[str, Value]) -> dict[str, Any]:
    return {key: value.isoformat() if isinstance(value, datetime) else value for key, value in row.items()}


def _why_none(rows: list[dict[str, Value]], wanted: dict[str, str]) -> str:
    if not rows:
        return "there are no runs"
    there = [f"{key} {', '.join(sorted({str(row[key]) for row in rows}))}" for key in wanted]
    return f"none of {counted(len(rows), 'run')} matches; there are: {'; '.join(there)}"
