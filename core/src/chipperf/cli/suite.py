"""``perf suite``: many runs from one file, one after another."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

import typer

from chipperf.cli.agreement import require_agreement
from chipperf.cli.command_options import JSON_OPTION, typed_parameters
from chipperf.cli.live import describe_end, suite_progress
from chipperf.cli.output import note, print_json, print_table, tell
from chipperf.cli.values import shown, shown_unit
from chipperf.errors import TrainingError, UsageError
from chipperf.launch.sequence import ProcessSequence, require_torch
from chipperf.records.columns import columns_of
from chipperf.records.repeats import Repeats
from chipperf.records.store import read_stored
from chipperf.suites.execution import Follower, Machine, execute, leading, machine_from_options
from chipperf.suites.state import SuiteDirectory, SuiteRun, SuiteState
from chipperf.suites.suite_plan import plan_suite
from chipperf.verify.evidence import examine_evidence
from chipperf.visible import counted

_SHOWN_METRICS = tuple(column.name for column in columns_of("suite"))


def suite(
    context: typer.Context,
    file: Path = typer.Argument(..., help="TOML file with the matrix, or a list of FlagPerf's case keys."),
    out: Path | None = typer.Option(None, "--out", help="Directory of all runs. [runs/ and the file's name]"),
    resume: bool = typer.Option(False, "--resume", help="Continue the suite in --out: completed runs stay."),
    retry_failed: bool = typer.Option(False, "--retry-failed", help="With --resume, also repeat failed runs."),
    node_rank: int | None = typer.Option(
        None, "--node-rank", min=0, envvar="SLURM_NODEID", help="Rank of this machine, counted from 0."
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

    After a run fails, the next one still runs. Exit code 0 if all runs completed, 1 if some did not.

    Example: perf suite nightly.toml --out runs/nightly

    Example: perf suite nightly.toml --out runs/nightly --resume --retry-failed

    Example: perf suite scaling.toml --out /shared/scaling --node-rank 0 --rdzv node0:29500

    The last example is for topologies with several machines: start it on each machine, each with its own --node-rank.
    """
    if retry_failed and not resume:
        raise UsageError("--retry-failed belongs to --resume", hint="a new suite has no failed runs")
    plan = plan_suite(file)
    for text in plan.ignored:
        note(text)
    typed = {parameter.name for parameter in typed_parameters(context)}
    machine = None
    if not dry_run or typed & {"node_rank", "rendezvous"}:
        # Slurm sets the number of the machine for every program, even for one that runs alone.
        is_alone = plan.nnodes == 1 and "node_rank" not in typed
        machine = machine_from_options(plan.nnodes, None if is_alone else node_rank, rendezvous)
    directory = SuiteDirectory(out or Path("runs") / file.stem)
    if dry_run:
        state = directory.read(plan) if resume else directory.begin(plan, file)
        _print_plan(state, state.select(retry_failed=retry_failed), directory, machine, as_json=as_json)
        return
    require_torch()
    sequence = ProcessSequence()
    if machine is not None and machine.node_rank > 0:
        with sequence.stopping_at_signals():
            follower = Follower(machine, plan, directory)
            codes = follower.follow(sequence, resume=resume, retry_failed=retry_failed, tell=tell)
        _require_joined(codes, machine, interrupted=sequence.interrupted)
        return
    with directory.locked(), sequence.stopping_at_signals():
        state = directory.read(plan) if resume else directory.begin(plan, file)
        to_do = state.select(retry_failed=retry_failed)
        with (
            leading(machine, plan) if machine is not None else nullcontext() as announce,
            directory.at_work(state),
            suite_progress(state, directory) as show,
        ):
            execute(to_do, state, directory, sequence, show=show, machine=machine, announce=announce)
        summaries = directory.summarize(state)
    if as_json:
        print_json({name: repeats.model_dump(mode="json") for name, repeats in summaries.items()})
    else:
        _print_summary(summaries)
    completed = [run.attempts[-1].directory for run in state.runs if run.state == "completed"]
    require_agreement(
        [read_stored(directory.path / name) for name in completed],
        examine_evidence,
        hint="the values above are those of the records: move these runs away, and --resume repeats them",
    )
    _require_completed(state, file, directory, machine, interrupted=sequence.interrupted)


def _print_plan(
    state: SuiteState, left: list[SuiteRun], directory: SuiteDirectory, machine: Machine | None, *, as_json: bool
) -> None:
    to_do = [run for run in left if run.planned.nnodes > (machine.node_rank if machine else 0)]
    rows = []
    for run in state.runs:
        name, seed = run.planned.name, run.planned.seed
        place = machine.options() if machine and run.planned.nnodes > 1 else []
        arguments = directory.arguments(run.planned, directory.next_attempt(run), place)
        command = shlex.join(["perf", "train", *arguments])
        rows.append({"name": name, "state": run.state, "seed": seed, "command": command, "runs_now": run in to_do})
    if as_json:
        print_json(rows)
        return
    for run, row in zip(state.runs, rows, strict=True):
        text = row["command"] if run in to_do else f"{run.state}, not run again"
        if run in left and run not in to_do:
            text = "does not need this machine"
        typer.echo(f"{run.planned.name}: {text}")
    typer.echo(f"{len(to_do)} of {counted(len(state.runs), 'run')} would be started")


def _print_summary(summaries: Mapping[str, Repeats]) -> None:
    print_table(
        ["configuration", "runs", *_SHOWN_METRICS],
        [
            [name, f"{repeats.completed}/{repeats.planned}", *(_cell(repeats, metric) for metric in _SHOWN_METRICS)]
            for name, repeats in summaries.items()
        ],
    )
    statistics = {one.statistic.replace("_", " ") for each in summaries.values() for one in each.metrics.values()}
    which = " or ".join(sorted(statistics))
    units = " or ".join(sorted({shown_unit("samples/s", repeats.case) for repeats in summaries.values()}))
    typer.echo(f"values: {which} of completed runs, with lowest and highest; throughput in {units}")


def _cell(repeats: Repeats, metric: str) -> str:
    one = repeats.metrics[metric]
    result, lowest, highest = (shown(value, one.unit, repeats.case) for value in (one.value, one.lowest, one.highest))
    return result if len(one.values) < 2 or result == lowest == highest else f"{result} ({lowest}-{highest})"


def _require_joined(codes: list[int], machine: Machine, *, interrupted: bool) -> None:
    completed = codes.count(0)
    if interrupted or completed < len(codes):
        how = "stopped by a signal: " if interrupted else ""
        raise TrainingError(
            f"{how}machine {machine.node_rank} completed {completed} of {counted(len(codes), 'run')} that it joined",
            hint=f"what each run printed here is beside it, in *.node{machine.node_rank}.log",
        )


def _require_completed(
    state: SuiteState, file: Path, directory: SuiteDirectory, machine: Machine | None, *, interrupted: bool
) -> None:
    rest = [run for run in state.runs if run.state != "completed"]
    if not rest:
        return
    for run in rest:
        if run.state in ("failed", "interrupted"):
            typer.echo(f"{run.planned.name} {run.state} {describe_end(run)}".rstrip(), err=True)
    how = "stopped by a signal: " if interrupted else ""
    only_failed = all(run.state == "failed" for run in rest)
    place = machine.options() if machine else []
    again = shlex.join(["perf", "suite", str(file), f"--out={directory.path}", *place, "--resume"])
    runs = counted(len(state.runs), "run")
    raise TrainingError(
        f"{how}{state.count('completed')} of {runs} completed, {state.count('failed')} failed",
        hint=f"{again} --retry-failed" if only_failed else again,
    )
