"""``perf suite``: many runs from one file, one after another."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from chipperf.cli.listing import JSON_OPTION, print_json, print_table
from chipperf.cli.repeat import shown
from chipperf.cli.suite_overview import describe, suite_overview
from chipperf.errors import TrainingError, UsageError
from chipperf.launch.sequence import TRAIN_COMMAND, ProcessSequence, require_torch
from chipperf.suites.execution import execute
from chipperf.suites.plan import plan_suite
from chipperf.suites.state import SuiteDirectory, SuiteRun, SuiteState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chipperf.records.repeats import Repeats

_SHOWN_METRICS = ("p_train", "p_core", "quality", "time_to_target", "e2e_time")


def suite(
    file: Path = typer.Argument(..., help="TOML file with the matrix, or a list of FlagPerf's case keys."),
    out: Path | None = typer.Option(None, "--out", help="Directory of all runs. [runs/ and the file's name]"),
    resume: bool = typer.Option(False, "--resume", help="Continue the suite in --out: completed runs stay."),
    retry_failed: bool = typer.Option(False, "--retry-failed", help="With --resume, run failed ones again, too."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Print the plan, and run nothing."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Run a matrix of case, precision, topology and repeats.

    A run that fails keeps no other from its turn. Exit code 0: all completed, 1: some did not.

    Example: perf suite nightly.toml --out runs/nightly

    Example: perf suite nightly.toml --out runs/nightly --resume --retry-failed
    """
    if retry_failed and not resume:
        raise UsageError("--retry-failed belongs to --resume", hint="a suite that begins has no failed runs")
    plan = plan_suite(file)
    for text in plan.ignored:
        typer.echo(f"note: {text}", err=True)
    directory = SuiteDirectory(out or Path("runs") / file.stem)
    if dry_run:
        state = directory.read(plan) if resume else directory.begin(plan, file)
        _print_plan(state, state.select(retry_failed=retry_failed), directory, as_json=as_json)
        return
    require_torch()
    sequence = ProcessSequence()
    with directory.locked(), sequence.stopping_at_signals():
        state = directory.read(plan) if resume else directory.begin(plan, file)
        with suite_overview(state, directory) as overview:
            execute(
                state.select(retry_failed=retry_failed), state, directory, sequence, overview, command=TRAIN_COMMAND
            )
        summaries = directory.summarise(state)
    if as_json:
        print_json({name: repeats.model_dump(mode="json") for name, repeats in summaries.items()})
    else:
        _print_summary(summaries)
    _require_completed(state, file, directory, interrupted=sequence.interrupted)


def _print_plan(state: SuiteState, to_do: list[SuiteRun], directory: SuiteDirectory, *, as_json: bool) -> None:
    if as_json:
        print_json([_plan_data(run, directory) | {"runs_now": run in to_do} for run in state.runs])
        return
    for run in state.runs:
        command = _plan_data(run, directory)["command"] if run in to_do else f"{run.state}, not run again"
        typer.echo(f"{run.planned.name}: {command}")
    typer.echo(f"{len(to_do)} of {len(state.runs)} runs would be started")


def _plan_data(run: SuiteRun, directory: SuiteDirectory) -> dict[str, Any]:
    command = ["perf", "train", *directory.next_attempt(run)[1]]
    return {
        "name": run.planned.name,
        "state": run.state,
        "seed": run.planned.seed,
        "command": shlex.join(command),
    }


def _print_summary(summaries: Mapping[str, Repeats]) -> None:
    print_table(
        ["configuration", "runs", *_SHOWN_METRICS],
        [
            [name, f"{repeats.completed}/{repeats.planned}", *(_cell(repeats, metric) for metric in _SHOWN_METRICS)]
            for name, repeats in summaries.items()
        ],
    )
    statistics = sorted(
        {one.statistic.replace("_", " ") for all_ in summaries.values() for one in all_.metrics.values()}
    )
    typer.echo(f"values: {' or '.join(statistics)} of completed runs, with lowest and highest; throughput in samples/s")


def _cell(repeats: Repeats, metric: str) -> str:
    one = repeats.metrics[metric]
    result = shown(one.value, one)
    if len(one.values) < 2 or result == shown(one.lowest, one) == shown(one.highest, one):
        return result
    return f"{result} ({shown(one.lowest, one)}-{shown(one.highest, one)})"


def _require_completed(state: SuiteState, file: Path, directory: SuiteDirectory, *, interrupted: bool) -> None:
    """End with an error if a run did not complete.

    Raises:
        TrainingError: Names the runs, and how to go on.
    """
    rest = [run for run in state.runs if run.state != "completed"]
    if not rest:
        return
    for run in rest:
        if run.state in ("failed", "interrupted"):
            typer.echo(f"{run.planned.name} {run.state} {describe(run)}".rstrip(), err=True)
    how = "stopped by a signal: " if interrupted else ""
    only_failed = all(run.state == "failed" for run in rest)
    again = shlex.join(["perf", "suite", str(file), f"--out={directory.path}", "--resume"])
    raise TrainingError(
        f"{how}{state.count('completed')} of {len(state.runs)} runs completed, {state.count('failed')} failed",
        hint=f"{again} --retry-failed" if only_failed else again,
    )
