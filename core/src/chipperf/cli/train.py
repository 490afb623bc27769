"""``perf train``: train a case on a vendor's devices and record what was measured."""

from __future__ import annotations

import os
import secrets
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import typer

from chipperf.cases.config import ConfigFile, parse_assignments, read_config_file, resolve
from chipperf.cases.registry import find_case
from chipperf.cli.command_line import typed_parameters
from chipperf.cli.live import counting_progress, run_progress
from chipperf.cli.repeat import repeat_training
from chipperf.durations import parse_duration
from chipperf.errors import DataError, UsageError, did_you_mean
from chipperf.launch.membership import SLURM_TASKS_VARIABLE, Membership, from_environment, from_options
from chipperf.launch.resume import require_same_software
from chipperf.launch.resume import resume as resume_run
from chipperf.plugin import installed
from chipperf.plugin.selection import select_vendor
from chipperf.plugin.session import bind
from chipperf.plugin.types import PRECISIONS, Precision, Rank
from chipperf.records.checkpoints import newest_complete_step
from chipperf.records.schema import Hyperparameters, Limits, Missing, Record, Status, Topology
from chipperf.records.store import read_record
from chipperf.run.assignment import require_free_cards
from chipperf.run.device_check import DEFAULT_TIMEOUT_S
from chipperf.run.directory import RunDirectory
from chipperf.run.plan import DEFAULT_HANG_TIMEOUT_S, RunPlan, read_plan
from chipperf.run.planned_record import planned_record
from chipperf.run.telemetry import read_idle_memory

if TYPE_CHECKING:
    from chipperf.cases.base import Case
    from chipperf.cases.config import Resolved
    from chipperf.launch.group import Group
    from chipperf.plugin.selection import Selection
    from chipperf.plugin.session import Session
    from chipperf.plugin.types import CaseOverrides


def train(
    context: typer.Context,
    case: str = typer.Argument(None, help="What to train; 'perf cases' lists it.", show_default=False),
    data: Path | None = typer.Option(None, "--data", help="Dataset directory; the generated sample if not given."),
    vendor: str | None = typer.Option(None, "--vendor", help="Vendor, or 'auto'; else the variable PERF_VENDOR."),
    precision: str = typer.Option("fp32", "--precision", help="fp32, tf32, amp, fp16 or bf16."),
    preset: str = typer.Option("full", "--preset", help="A preset of the case; 'full' is the benchmark."),
    nproc: int = typer.Option(1, "--nproc", min=1, help="Worker processes on each machine, one per device."),
    nnodes: int = typer.Option(1, "--nnodes", min=1, help="Machines; start the same command on each."),
    node_rank: int | None = typer.Option(
        None, "--node-rank", min=0, envvar="SLURM_NODEID", help="Which of the machines this is, counted from 0."
    ),
    rendezvous: str | None = typer.Option(
        None, "--rdzv", metavar="HOST:PORT", help="Where the machines meet: a free port of the first one."
    ),
    max_epochs: int | None = typer.Option(None, "--max-epochs", min=1, help="Stop after so many epochs."),
    max_steps: int | None = typer.Option(None, "--max-steps", min=1, help="Stop after so many optimiser steps."),
    budget: str | None = typer.Option(
        None, "--budget", help="Stop training in time, for example after 90s, 30m or 2h; measuring passes follow."
    ),
    assignments: list[str] = typer.Option([], "--set", help="Hyperparameter as key=value; repeatable."),
    config: Path | None = typer.Option(None, "--config", help="TOML file with [hyperparameters] and [environment]."),
    seed: int | None = typer.Option(None, "--seed", min=0, help="The same as --set seed=N."),
    repeat: int = typer.Option(
        1, "--repeat", min=1, help="Run so many times, with the seed and the numbers after it, in OUT/repeat-1, ..."
    ),
    device_check: bool = typer.Option(
        True, "--device-check/--no-device-check", help="Let every card finish a small kernel first; a CPU needs none."
    ),
    evaluate_every: int | None = typer.Option(
        None,
        "--evaluate-every",
        min=0,
        help="Evaluate also every so many steps, not only after epochs; --set evaluate_every_steps=N.",
    ),
    checkpoint_every: int | None = typer.Option(
        None,
        "--checkpoint-every",
        min=0,
        help="Write a checkpoint also every so many steps, not only after epochs; --set checkpoint_every_steps=N.",
    ),
    keep_checkpoints: int | None = typer.Option(
        None, "--keep-checkpoints", min=1, help="How many checkpoints stay; --set keep_checkpoints=N. [2]"
    ),
    max_restarts: int = typer.Option(
        0, "--max-restarts", min=0, help="Start processes that died again, from the newest checkpoint, so many times."
    ),
    hang_timeout_s: float = typer.Option(
        DEFAULT_HANG_TIMEOUT_S,
        "--hang-timeout",
        min=0,
        metavar="SECONDS",
        help="End a run in which nothing happens for so long, with the stacks of all ranks in their logs; 0 is never.",
    ),
    resume: Path | None = typer.Option(
        None, "--resume", help="Directory of a run that stopped: continue it, as it was planned, without other options."
    ),
    out: Path | None = typer.Option(None, "--out", help="Directory of this run; must not hold a run yet."),
) -> None:
    """Train a case and write its record, or continue a run that stopped.

    Example: perf train mobilenetv2 --vendor cpu --preset demo --out runs/demo

    Example: perf train resnet50 --data /data/imagenet --repeat 3 --budget 30m

    Example: perf train --resume runs/demo

    One process per device is started here. Under torchrun, or as several tasks of srun, it is these that train.
    """
    started_s = _process_start_s()
    given = _given_options(context)
    membership = _membership(nnodes, nproc, node_rank, rendezvous, given)
    if resume is not None:
        _resume(resume, started_s, case=case, given=given, membership=membership)
        return
    if case is None:
        raise UsageError(
            "no case is named", hint="perf train CASE, or perf train --resume RUN; 'perf cases' lists cases"
        )
    chosen_case = find_case(case)
    chosen_precision = checked_precision(precision)
    file = read_config_file(config) if config else ConfigFile(hyperparameters={}, environment={})
    if data is not None and not data.is_dir():
        raise DataError(f"the dataset directory {data} does not exist", hint="check --data; 'perf data check' explains")
    command_line = parse_assignments(assignments) | {
        key: value
        for key, value in (
            ("seed", seed),
            ("evaluate_every_steps", evaluate_every),
            ("checkpoint_every_steps", checkpoint_every),
            ("keep_checkpoints", keep_checkpoints),
        )
        if value is not None
    }
    limits = Limits(
        max_epochs=max_epochs,
        max_steps=max_steps,
        budget_s=parse_duration(budget, "--budget") if budget is not None else None,
    )
    chosen = resolve(chosen_case, preset=preset, file=file.hyperparameters, command_line=command_line)
    if repeat > 1 and membership is not None:
        raise UsageError(
            "--repeat is for runs on one machine", hint="start each repeat by itself, with --seed and --out of its own"
        )
    if repeat > 1:
        repeat_training(context, case, count=repeat, first_seed=chosen.values.seed, out=out)
        return

    selection = select_vendor(vendor)
    if selection.origin == "auto":
        typer.echo(f"using {selection.entry}: {selection.probe.reason}", err=True)
    session = bind(selection.entry)
    topology = membership.topology if membership else Topology(nnodes=1, nproc_per_node=nproc)
    nproc = topology.nproc_per_node
    # A vendor tunes the benchmark itself; a preset brings values that fit its own, smaller task.
    overrides = _vendor_overrides(session, selection, case, topology) if preset == "full" else None
    resolved = resolve(
        chosen_case,
        preset=preset,
        vendor=selection.entry.name,
        vendor_overrides=overrides,
        file=file.hyperparameters,
        command_line=command_line,
    )
    if data is None:
        # Generating the sample happens once per machine and belongs to no run's end-to-end time.
        generation_start_s = time.monotonic()
        data_root = _sample_dataset(chosen_case)
        started_s += time.monotonic() - generation_start_s
    else:
        data_root = data
    idle_memory_bytes = read_idle_memory(session, selection.probe.devices)
    if device_check:
        require_free_cards(
            session.vendor_info(), selection.probe.devices, idle_memory_bytes, _starts_here(membership, nproc)
        )
    accelerator = session.vendor_info().device_type != "cpu"
    now = datetime.now(timezone.utc)
    run_id = (
        f"{case}-{selection.entry.name}-{chosen_precision}-{topology.label}-{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    )
    plan = RunPlan(
        run_id=run_id,
        created_at=now,
        started_s=started_s,
        vendor=selection.entry.name,
        case=case,
        case_version=chosen_case.version,
        preset=preset,
        precision=chosen_precision,
        hyperparameters=_recorded(resolved, topology),
        limits=limits,
        topology=topology,
        data_root=data_root.resolve(),
        stated_environment=dict(file.environment),
        device_check_timeout_s=DEFAULT_TIMEOUT_S if device_check and accelerator else None,
        idle_memory_bytes=idle_memory_bytes,
        max_restarts=max_restarts,
        hang_timeout_s=hang_timeout_s or None,
        session_started_at=now - timedelta(seconds=time.monotonic() - started_s),
    )
    _run(plan, session, chosen_case, out, membership)


def _starts_here(membership: Membership | None, nproc: int) -> int:
    """Return how many processes this launcher starts on the cards that it sees.

    Under srun each process may see only its own card, and those of the same machine are about to use theirs.
    """
    return nproc if membership is None or membership.worker is None else 0


def _membership(
    nnodes: int, nproc: int, node_rank: int | None, rendezvous: str | None, given: list[str]
) -> Membership | None:
    """Return this launcher's place among several: as the options say, or as torchrun or srun does."""
    counts = [option for option in ("--nnodes", "--nproc", "--rdzv") if option in given]
    if nnodes == 1 and "--node-rank" not in given:
        # Slurm tells every program its machine's number, also one that runs alone.
        node_rank = None
    if counts and SLURM_TASKS_VARIABLE in os.environ:
        # Slurm's tasks are machines then, each with a launcher that starts processes of its own.
        return from_options(nnodes, nproc, node_rank, rendezvous)
    membership = from_environment()
    if membership is not None and counts:
        raise UsageError(
            f"torchrun has started the processes: {counts[0]} is not needed", hint=f"leave {counts[0]} out"
        )
    if membership is not None:
        return membership
    return from_options(nnodes, nproc, node_rank, rendezvous)


def _run(plan: RunPlan, session: Session, case: Case, out: Path | None, membership: Membership | None = None) -> None:
    # Imported before the directory is created: without torch there is no run, and no trace of one.
    import chipperf.launch.local  # noqa: F401
    from chipperf.launch.group import Group

    group = None
    if membership is not None:
        group = Group(membership, origin_s=plan.started_s, idle_memory_bytes=plan.idle_memory_bytes)
    if group is not None and not group.membership.is_first:
        _follow(plan, out, group)
        return
    directory = RunDirectory(out or Path("runs") / plan.run_id)
    if group is None:
        _prepare(plan, session, case, directory)
    else:
        with group.announcing_errors():
            group.gather_requests(plan)
            _prepare(plan, session, case, directory)
            plan = _begin(plan, directory, group)
    typer.echo(f"run {plan.run_id} in {directory.path}", err=True)
    _finish(plan, directory, group)


def _prepare(plan: RunPlan, session: Session, case: Case, directory: RunDirectory) -> None:
    directory.create()
    directory.write_plan(plan.model_dump_json(indent=2) + "\n")
    directory.write_record(planned_record(plan, session, metric=case.metric))


def _begin(plan: RunPlan, directory: RunDirectory, group: Group) -> RunPlan:
    """Let the other launchers find their directories, and begin."""
    group.announce(plan)
    if not group.gather_entered() and plan.shared_directory:
        warning = "the machines share no directory: no checkpoints were written, and the run cannot be resumed"
        plan = plan.model_copy(update={"shared_directory": False, "warnings": [*plan.warnings, warning]})
        directory.write_plan(plan.model_dump_json(indent=2) + "\n")
        record = read_record(directory.path)
        directory.write_record(record.model_copy(update={"warnings": plan.warnings}))
    group.begin(plan)
    return plan


def _follow(plan: RunPlan, out: Path | None, group: Group) -> None:
    """Do as the first launcher plans, with the ranks of this one."""
    from chipperf.launch.local import run_workers

    plan = group.request(plan)
    directory = RunDirectory(out or Path("runs") / plan.run_id)
    plan = group.enter(directory, plan)
    status, code = run_workers(plan, directory, group)
    if status.failure:
        who = "" if status.failure.rank is None else f"rank {status.failure.rank}: "
        typer.echo(f"perf: error: {who}{status.failure.message}", err=True)
        typer.echo("  the record is written by the first machine", err=True)
        raise typer.Exit(code)


def _finish(plan: RunPlan, directory: RunDirectory, group: Group | None = None) -> None:
    """Let the workers train, and say what came of it."""
    from chipperf.launch.local import run_workers

    with run_progress(directory.progress, plan.case):
        status, code = run_workers(plan, directory, group)
    if status.failure:
        _report_failure(status, directory)
        raise typer.Exit(code)
    _print_summary(read_record(directory.record), directory)
    typer.echo(f"record: {directory.record}")
    typer.echo(f"report: perf report {directory.path} --lang zh")


_RESUME_OPTIONS = ("case", "resume")
_PLACE_OPTIONS = ("--nnodes", "--nproc", "--node-rank", "--rdzv")
"""On several machines they are needed again: they say where the launchers meet."""


def _given_options(context: typer.Context) -> list[str]:
    """Return the options on the command line, as they are typed."""
    return [parameter.opts[0] for parameter in typed_parameters(context) if parameter.name not in _RESUME_OPTIONS]


def _resume(path: Path, started_s: float, *, case: str | None, given: list[str], membership: Membership | None) -> None:
    directory = RunDirectory(path)
    changing = [option for option in given if membership is None or option not in _PLACE_OPTIONS]
    if changing:
        raise UsageError(
            f"{', '.join(changing)} cannot change a run that has begun", hint=f"perf train --resume {path} is enough"
        )
    record = read_record(directory.path)
    if case is not None and case != record.case.name:
        raise UsageError(f"the run in {path} is one of {record.case.name}, not of {case}", hint="leave the case out")
    if record.status.state == "completed":
        typer.echo(f"the run in {path} is complete: there is nothing to resume")
        return
    plan = read_plan(directory.plan)
    _require_same_place(plan, membership)
    if membership is None:
        directory.require_ended()
    session = bind(installed.find_vendor(plan.vendor))
    require_same_software(plan, record, find_case(plan.case), session)
    if membership is None:
        _finish(_resumed(plan, directory, started_s), directory)
        return
    from chipperf.launch.group import Group

    group = Group(membership, origin_s=started_s, idle_memory_bytes=plan.idle_memory_bytes)
    if not membership.is_first:
        _follow(plan, path, group)
        return
    with group.announcing_errors():
        group.gather_requests(plan)
        plan = _begin(_resumed(plan, directory, started_s), directory, group)
    _finish(plan, directory, group)


def _require_same_place(plan: RunPlan, membership: Membership | None) -> None:
    topology = membership.topology if membership else Topology(nnodes=1, nproc_per_node=plan.topology.nproc_per_node)
    if topology != plan.topology:
        raise UsageError(
            f"the run was begun as {plan.topology.label}, and this is {topology.label}",
            hint="resume it on as many machines and processes: perf train --resume RUN --nnodes N --nproc M "
            "--node-rank I --rdzv HOST:PORT on each machine",
        )


def _resumed(plan: RunPlan, directory: RunDirectory, started_s: float) -> RunPlan:
    import torch

    resumed = resume_run(directory, torch.__version__, started_s=started_s)
    for warning in resumed.warnings[len(plan.warnings) :]:
        typer.echo(f"warning: {warning}", err=True)
    typer.echo(f"run {resumed.run_id} in {directory.path}, resumed from {resumed.checkpoint}", err=True)
    return resumed


def _report_failure(status: Status, directory: RunDirectory) -> None:
    failure = status.failure
    if failure is None:
        return
    who = "" if failure.rank is None else f"rank {failure.rank}: "
    typer.echo(f"perf: error: {who}{failure.message}", err=True)
    if failure.hint:
        typer.echo(f"  hint: {failure.hint}", err=True)
    typer.echo(f"  the record of the {status.state} run is {directory.record}", err=True)
    step = newest_complete_step(directory.checkpoints)
    if step is not None:
        typer.echo(f"  to continue after step {step}: perf train --resume {directory.path}", err=True)


def _print_summary(record: Record, directory: RunDirectory) -> None:
    metrics = record.metrics
    for name, value in (
        ("p_whole", metrics.p_whole),
        ("p_train", metrics.p_train),
        ("p_core", metrics.p_core),
        (record.case.metric, metrics.quality),
        ("e2e_time_s", metrics.e2e_time_s),
    ):
        if isinstance(value, Missing):
            text = f"{value.missing}: {value.reason}"
        elif isinstance(value, float):
            text = f"{value:.4g}"
        else:
            text = f"{value.median:.4g} samples/s, IQR {value.iqr:.2g}, {len(value.windows)} windows"
        typer.echo(f"{name:>12}  {text}")
    for warning in record.warnings:
        typer.echo(f"warning: {warning}", err=True)


def _recorded(resolved: Resolved, topology: Topology) -> Hyperparameters:
    values = resolved.values
    return Hyperparameters(
        values=values.model_dump(),
        changes=list(resolved.changes),
        notes=list(resolved.notes),
        global_batch_size=values.batch_size * values.accumulate_steps * topology.world_size,
    )


def _vendor_overrides(session: Session, selection: Selection, case: str, topology: Topology) -> CaseOverrides:
    rank = Rank(world_size=topology.world_size, local_world_size=topology.nproc_per_node)
    return session.case_overrides(case, rank, selection.probe.devices[0].name)


def _sample_dataset(case: Case) -> Path:
    if case.ensure_sample is None:
        raise UsageError(f"case {case.name} has no sample dataset", hint="give a dataset's directory with --data")
    with counting_progress("no --data given: preparing the sample dataset") as advance:
        return case.ensure_sample(advance)


def checked_precision(name: str) -> Precision:
    """Return the precision called ``name``; a :class:`UsageError` suggests the nearest one."""
    for precision in PRECISIONS:
        if precision == name:
            return precision
    known = ", ".join(PRECISIONS)
    raise UsageError(f"unknown precision {name!r}{did_you_mean(name, PRECISIONS)}", hint=f"precisions: {known}")


def _process_start_s() -> float:
    """Return ``time.monotonic()`` at the start of this process, before its imports.

    Linux counts it in clock ticks since boot (proc(5), ``starttime``); elsewhere psutil knows it to about a second.
    """
    try:
        ticks = int(Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19])
        age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError):
        age_s = time.time() - psutil.Process().create_time()
    return time.monotonic() - age_s
