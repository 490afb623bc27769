"""``perf suite``: many runs from one file, one after another."""

from __future__ import annotations

import shlex
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from chipperf.cli.command_line import typed_parameters
from chipperf.cli.output import JSON_OPTION, print_json, print_table
from chipperf.cli.repeat import shown
from chipperf.cli.suite_overview import describe, suite_overview
from chipperf.errors import TrainingError, UsageError
from chipperf.launch.sequence import TRAIN_COMMAND, ProcessSequence, require_torch
from chipperf.records.columns import columns_of
from chipperf.suites.execution import execute
from chipperf.suites.follower import follow
from chipperf.suites.leader import leading
from chipperf.suites.machines import Machine, machine_from_options
from chipperf.suites.state import SuiteDirectory, SuiteRun, SuiteState
from chipperf.suites.suite_plan import plan_suite

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chipperf.records.repeats import Repeats
    from chipperf.suites.suite_plan import SuitePlan

_SHOWN_METRICS = tuple(column.name for column in columns_of("suite"))


def suite(
    context: typer.Context,
    file: Path = typer.Argument(..., help="TOML file with the matrix, or a list of FlagPerf's case keys."),
    out: Path | None = typer.Option(None, "--out", help="Directory of all runs. [runs/ and the file's name]"),
    resume: bool = typer.Option(False, "--resume", help="Continue the suite in --out: completed runs stay."),
    retry_failed: bool = typer.Option(False, "--retry-failed", help="With --resume, run failed ones again, too."),
    node_rank: int | None = typer.Option(
        None, "--node-rank", min=0, envvar="SLURM_NODEID", help="Which of several machines this is, counted from 0."
    ),
    rendezvous: str | None = typer.Option(
        None,
        "--rdzv",
        metavar="HOST:PORT",
        help="Where the machines meet: the first one, and the first of 16 free ports.",
    ),
    dry_run: bool = typer.Option(False, "--dry-run", help="Print the plan, and run nothing."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Run a matrix of case, precision, topology and repeats.

    A run that fails keeps no other from its turn. Exit code 0: all completed, 1: some did not.

    Example: perf suite nightly.toml --out runs/nightly

    Example: perf suite nightly.toml --out runs/nightly --resume --retry-failed

    Example: perf suite scaling.toml --out /shared/scaling --node-rank 0 --rdzv node0:29500

    The last one is for topologies of several machines: start it on each of them, with a --node-rank of its own.
    """
    if retry_failed and not resume:
        raise UsageError("--retry-failed belongs to --resume", hint="a suite that begins has no failed runs")
    plan = plan_suite(file)
    for text in plan.ignored:
        typer.echo(f"note: {text}", err=True)
    machine = _machine(context, plan, node_rank, rendezvous, dry_run=dry_run)
    directory = SuiteDirectory(out or Path("runs") / file.stem)
    if dry_run:
        state = directory.read(plan) if resume else directory.begin(plan, file)
        _print_plan(state, state.select(retry_failed=retry_failed), directory, machine, as_json=as_json)
        return
    require_torch()
    sequence = ProcessSequence()
    if machine is not None and not machine.is_first:
        with sequence.stopping_at_signals():
            codes = follow(
                *(plan, directory, machine, sequence),
                resume=resume,
                retry_failed=retry_failed,
                command=TRAIN_COMMAND,
                tell=lambda text: typer.echo(text, err=True),
            )
        _require_joined(codes, machine, interrupted=sequence.interrupted)
        return
    with directory.locked(), sequence.stopping_at_signals():
        state = directory.read(plan) if resume else directory.begin(plan, file)
        to_do = state.select(retry_failed=retry_failed)
        with (
            leading(machine, plan) if machine is not None else nullcontext() as leader,
            directory.at_work(state),
            suite_overview(state, directory) as overview,
        ):
            execute(to_do, state, directory, sequence, overview, command=TRAIN_COMMAND, leader=leader)
        summaries = directory.summarize(state)
    if as_json:
        print_json({name: repeats.model_dump(mode="json") for name, repeats in summaries.items()})
    else:
        _print_summary(summaries)
    _require_completed(state, file, directory, machine, interrupted=sequence.interrupted)


def _machine(
    context: typer.Context, plan: SuitePlan, node_rank: int | None, rendezvous: str | None, *, dry_run: bool
) -> Machine | None:
    """Return this machine as one of the suite's machines. A dry run may omit the options."""
    if rendezvous is None and "node_rank" not in [parameter.name for parameter in typed_parameters(context)]:
        if dry_run:
            return None
        if plan.nnodes == 1:
            # Slurm sets the number of the machine for every program, even for one that runs alone.
            node_rank = None
    return machine_from_options(plan.nnodes, node_rank, rendezvous)


def _print_plan(
    state: SuiteState, left: list[SuiteRun], directory: SuiteDirectory, machine: Machine | None, *, as_json: bool
) -> None:
    node_rank = machine.node_rank if machine else 0
    to_do = [run for run in left if run.planned.nnodes > node_rank]
    if as_json:
        print_json([_plan_data(run, directory, machine) | {"runs_now": run in to_do} for run in state.runs])
        return
    for run in state.runs:
        text = f"{run.state}, not run again"
        if run in to_do:
            text = _plan_data(run, directory, machine)["command"]
        elif run in left:
            text = "does not need this machine"
        typer.echo(f"{run.planned.name}: {text}")
    typer.echo(f"{len(to_do)} of {len(state.runs)} runs would be started")


def _plan_data(run: SuiteRun, directory: SuiteDirectory, machine: Machine | None) -> dict[str, Any]:
    command = ["perf", "train", *directory.arguments(run.planned, directory.next_attempt(run))]
    if machine is not None and run.planned.nnodes > 1:
        command += machine.options(machine.port)
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


def _require_joined(codes: list[int], machine: Machine, *, interrupted: bool) -> None:
    """Check that all runs completed on this machine.

    Raises:
        TrainingError: A joined run did not complete on this machine, or a signal came.
    """
    completed = codes.count(0)
    if interrupted or completed < len(codes):
        how = "stopped by a signal: " if interrupted else ""
        raise TrainingError(
            f"{how}machine {machine.node_rank} completed {completed} of {len(codes)} runs that it joined",
            hint=f"what each run printed here is beside it, in *.node{machine.node_rank}.log",
        )


def _require_completed(
    state: SuiteState, file: Path, directory: SuiteDirectory, machine: Machine | None, *, interrupted: bool
) -> None:
    """Check that all runs completed.

    Raises:
        TrainingError: A run did not complete. The message names the runs, and the hint how to continue.
    """
    rest = [run for run in state.runs if run.state != "completed"]
    if not rest:
        return
    for run in rest:
        if run.state in ("failed", "interrupted"):
            typer.echo(f"{run.planned.name} {run.state} {describe(run)}".rstrip(), err=True)
    how = "stopped by a signal: " if interrupted else ""
    only_failed = all(run.state == "failed" for run in rest)
    place = machine.options(machine.port) if machine else []
    again = shlex.join(["perf", "suite", str(file), f"--out={directory.path}", *place, "--resume"])
    raise TrainingError(
        f"{how}{state.count('completed')} of {len(state.runs)} runs completed, {state.count('failed')} failed",
        hint=f"{again} --retry-failed" if only_failed else again,
    )
