"""``perf train``: train a case on a vendor's devices and record what was measured."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import typer

from chipperf.cases.config import contradicting_values, parse_assignments
from chipperf.cli.command_options import (
    complete_cases,
    complete_runs,
    precision_option,
    typed_parameters,
    vendor_option,
)
from chipperf.cli.live import counting_progress, run_progress
from chipperf.cli.output import print_error, tell
from chipperf.durations import format_duration, parse_duration
from chipperf.errors import UsageError
from chipperf.launch.job import Job, JobResult, plan_job, plan_resumed_job, process_start_s, run_job
from chipperf.launch.launcher_info import LauncherInfo, find_launcher
from chipperf.launch.options import TrainOptions
from chipperf.plugin.selection import Selection
from chipperf.precisions import precision_of
from chipperf.records.columns import columns_of
from chipperf.records.convergence import lower_is_better, quality_text
from chipperf.records.schema import Failure, Limits, Missing, Record, Setting, TimeToTarget
from chipperf.run.directory import RunDirectory
from chipperf.run.plan import DEFAULT_HANG_TIMEOUT_S, RunPlan

_PLACE_OPTIONS = ("--nnodes", "--nproc", "--node-rank", "--rdzv")
"""Options that are needed again to resume a run on several machines, because they tell where the launchers meet."""


_TRAINED, _MACHINES, _LENGTH = "What is trained", "Where it runs", "How long it trains"
_SAFETY = "Evaluations, checkpoints and failures"
"""Titles of the sections of the help."""


def train(
    context: typer.Context,
    case: str = typer.Argument(
        None, help="What to train; 'perf cases' lists it.", show_default=False, autocompletion=complete_cases
    ),
    data: Path | None = typer.Option(
        None, "--data", rich_help_panel=_TRAINED, help="Dataset directory. [the generated sample]"
    ),
    vendor: str | None = vendor_option(rich_help_panel=_TRAINED),
    precision: str = precision_option(rich_help_panel=_TRAINED),
    preset: str = typer.Option(
        "full", "--preset", rich_help_panel=_TRAINED, help="A preset of the case; 'full' is the benchmark."
    ),
    nproc: int = typer.Option(
        1, "--nproc", rich_help_panel=_MACHINES, min=1, help="Worker processes on each machine, one per device."
    ),
    nnodes: int = typer.Option(
        1, "--nnodes", rich_help_panel=_MACHINES, min=1, help="Machines; start the same command on each."
    ),
    node_rank: int | None = typer.Option(
        None,
        "--node-rank",
        rich_help_panel=_MACHINES,
        min=0,
        envvar="SLURM_NODEID",
        help="Rank of this machine, counted from 0.",
    ),
    rendezvous: str | None = typer.Option(
        None,
        "--rdzv",
        rich_help_panel=_MACHINES,
        metavar="HOST:PORT",
        help="Where the machines meet: the first one and a free port there.",
    ),
    max_epochs: int | None = typer.Option(
        None, "--max-epochs", rich_help_panel=_LENGTH, min=1, help="Stop after this number of epochs."
    ),
    max_steps: int | None = typer.Option(
        None, "--max-steps", rich_help_panel=_LENGTH, min=1, help="Stop after this number of optimizer steps."
    ),
    budget: str | None = typer.Option(
        None,
        "--budget",
        rich_help_panel=_LENGTH,
        help="Stop training after this time, for example 90s, 30m or 2h; measuring passes follow.",
    ),
    assignments: list[str] = typer.Option(
        [], "--set", rich_help_panel=_TRAINED, metavar="KEY=VALUE", help="A hyperparameter; repeatable."
    ),
    config: Path | None = typer.Option(
        None, "--config", rich_help_panel=_TRAINED, help="TOML file with [hyperparameters] and [environment]."
    ),
    seed: int | None = typer.Option(None, "--seed", rich_help_panel=_TRAINED, min=0, help="The same as --set seed=N."),
    repeat: int = typer.Option(
        1,
        "--repeat",
        rich_help_panel=_LENGTH,
        min=1,
        help="Run this number of times, with the seed and the numbers after it, in OUT/repeat-1, ...",
    ),
    device_check: bool = typer.Option(
        True,
        "--device-check/--no-device-check",
        rich_help_panel=_SAFETY,
        help="First let every card finish a small kernel; not needed on a CPU.",
    ),
    evaluate_every: int | None = typer.Option(
        None,
        "--evaluate-every",
        rich_help_panel=_SAFETY,
        min=0,
        help="Evaluate every N steps too, not only after epochs; --set evaluate_every_steps=N.",
    ),
    checkpoint_every: int | None = typer.Option(
        None,
        "--checkpoint-every",
        rich_help_panel=_SAFETY,
        min=0,
        help="Write a checkpoint every N steps too, not only after epochs; --set checkpoint_every_steps=N.",
    ),
    keep_checkpoints: int | None = typer.Option(
        None,
        "--keep-checkpoints",
        rich_help_panel=_SAFETY,
        min=1,
        help="Number of checkpoints to keep; --set keep_checkpoints=N. [2]",
    ),
    max_restarts: int = typer.Option(
        0,
        "--max-restarts",
        rich_help_panel=_SAFETY,
        min=0,
        help="If processes die, restart them from the newest checkpoint, at most this number of times.",
    ),
    hang_timeout_s: float = typer.Option(
        DEFAULT_HANG_TIMEOUT_S,
        "--hang-timeout",
        rich_help_panel=_SAFETY,
        min=0,
        metavar="SECONDS",
        help="End a run without progress after this time, with the stacks of all ranks in their logs; 0 means never.",
    ),
    resume: Path | None = typer.Option(
        None,
        "--resume",
        rich_help_panel=_SAFETY,
        metavar="RUN",
        autocompletion=complete_runs,
        help="Directory of a run that stopped; continue it as planned. If its data have moved, use --data.",
    ),
    out: Path | None = typer.Option(
        None, "--out", rich_help_panel=_TRAINED, help="Directory of this run; must not contain a run yet."
    ),
) -> None:
    """Train a case and write its record, or continue a run that stopped.

    Example: perf train mobilenetv2 --vendor cpu --preset demo --out runs/demo

    Example: perf train resnet50 --data /data/imagenet --repeat 3 --budget 30m

    Example: perf train --resume runs/demo

    This starts one process per device. Under torchrun, or as several tasks of srun, those processes train instead.
    """
    started_s = process_start_s()
    typed = [each.opts[0] for each in typed_parameters(context) if each.name not in ("case", "resume")]
    launcher = find_launcher(nnodes=nnodes, nproc=nproc, node_rank=node_rank, rendezvous=rendezvous, typed=typed)
    if resume is not None:
        _resume(resume, case, data, typed, launcher, started_s)
        return
    if case is None:
        raise UsageError(
            "no case is named", hint="perf train CASE, or perf train --resume RUN; 'perf cases' lists cases"
        )
    settings: dict[str, Setting] = parse_assignments(assignments)
    for option, key, value in (
        ("--seed", "seed", seed),
        ("--evaluate-every", "evaluate_every_steps", evaluate_every),
        ("--checkpoint-every", "checkpoint_every_steps", checkpoint_every),
        ("--keep-checkpoints", "keep_checkpoints", keep_checkpoints),
    ):
        if value is not None and settings.setdefault(key, value) != value and str(settings[key]) != str(value):
            raise contradicting_values(option, value, "--set", settings[key], key)
    options = TrainOptions(
        case=case,
        precision=precision_of(precision),
        preset=preset,
        data=data,
        vendor=vendor,
        config=config,
        settings=settings,
        limits=Limits(
            max_epochs=max_epochs,
            max_steps=max_steps,
            budget_s=parse_duration(budget, "--budget") if budget is not None else None,
        ),
        nproc=nproc,
        launcher=launcher,
        device_check=device_check,
        max_restarts=max_restarts,
        hang_timeout_s=hang_timeout_s or None,
        out=out,
    )
    if repeat == 1:
        job = plan_job(options, started_s=started_s, observer=_Terminal())
        _warn_of_full_sample(options, job)
        _run(job)
        return
    # Imported here, because the end-to-end time of a single run includes its imports.
    from chipperf.cli.repeat import repeat_training

    repeat_training(context, options, count=repeat)


def _warn_of_full_sample(options: TrainOptions, job: Job) -> None:
    """Warn of long training whose result nobody can use: the benchmark's whole schedule on the small sample."""
    if options.data is not None or options.preset != "full" or options.limits.shortened:
        return
    epochs, presets = job.plan.hyperparameters.values["epochs"], [name for name in job.case.presets if name != "full"]
    short = f", {' or '.join(f'--preset {name}' for name in presets)} trains for minutes" if presets else ""
    typer.echo(
        f"warning: {epochs} epochs on a generated sample give no benchmark result: --data DIR names the dataset{short}",
        err=True,
    )


def _resume(
    path: Path, case: str | None, data: Path | None, typed: list[str], launcher: LauncherInfo | None, started_s: float
) -> None:
    allowed = ("--data", *(_PLACE_OPTIONS if launcher else ()))
    changing = [option for option in typed if option not in allowed]
    if changing:
        raise UsageError(
            f"{', '.join(changing)} cannot change a run that has begun",
            hint=f"{shlex.join(['perf', 'train', '--resume', str(path)])} is enough",
        )
    job = plan_resumed_job(path, case=case, data=data, launcher=launcher, started_s=started_s)
    if job is None:
        typer.echo(f"the run in {path} is complete: there is nothing to resume")
    else:
        _run(job)


class _Terminal:
    """Shows the progress of a job on standard error."""

    def vendor_selected(self, selection: Selection) -> None:
        if selection.origin == "auto":
            tell(f"using {selection.entry}: {selection.probe.reason}")

    def notice(self, text: str) -> None:
        tell(text)

    def preparing_sample(self) -> AbstractContextManager[Callable[[int, int], None]]:
        return counting_progress("no --data given: preparing the sample dataset")

    def started(self, plan: RunPlan, directory: RunDirectory) -> None:
        tell(f"run {plan.run_id} in {directory.path}")

    def resumed(self, plan: RunPlan, directory: RunDirectory, warnings: Sequence[str]) -> None:
        for warning in warnings:
            typer.echo(f"warning: {warning}", err=True)
        tell(f"run {plan.run_id} in {directory.path}, resumed from {plan.checkpoint}")

    def training(self, plan: RunPlan, directory: RunDirectory) -> AbstractContextManager[None]:
        return run_progress(directory.progress, plan.case)


def _run(job: Job) -> None:
    result = run_job(job, _Terminal())
    if result.status.failure:
        _print_failure(result, result.status.failure)
        raise typer.Exit(result.exit_code)
    if result.record is not None:
        _print_summary(result.record)
        typer.echo(f"record: {result.directory.record}")
        typer.echo(f"report: {shlex.join(['perf', 'report', str(result.directory.path), '--lang', 'zh'])}")


def _print_failure(result: JobResult, failure: Failure) -> None:
    who = "" if failure.rank is None else f"rank {failure.rank}: "
    if result.record is None:
        print_error(f"{who}{failure.message}")
        lines = ["  the record is written by the first machine"]
    else:
        print_error(f"{who}{failure.message}", failure.hint)
        lines = []
        lines.append(f"  the record of the {result.status.state} run is {result.directory.record}")
        if result.checkpoint_step is not None:
            again = shlex.join(["perf", "train", "--resume", str(result.directory.path)])
            lines.append(f"  to continue after step {result.checkpoint_step}: {again}")
    typer.echo("\n".join(lines), err=True)


def _print_summary(record: Record) -> None:
    from chipperf.cases.recorded_settings import check_with_case
    from chipperf.cli.values import shown_unit
    from chipperf.documents.document_identity import installed_cases

    typer.echo(f"{'ended':>12}  {_why_ended(record)}")
    for column in columns_of("summary"):
        value, windows = column.value(record), column.throughput(record)
        if isinstance(value, Missing):
            text = f"{value.missing}: {value.reason}"
        elif column.unit == "fraction":
            text = quality_text(value, lower=lower_is_better(record.case))
        else:
            unit = shown_unit(column.unit, record.case.name)
            spread = f", IQR {windows.iqr:.2g} {unit}, {len(windows.windows)} windows" if windows else ""
            text = f"{value:.4g} {unit}{spread}"
        name = record.case.metric if column.unit == "fraction" else column.field.rpartition(".")[2].removesuffix("_s")
        typer.echo(f"{name:>12}  {text}")
    for warning in record.warnings:
        typer.echo(f"warning: {warning}", err=True)
    for finding in check_with_case(record, installed_cases().get(record.case.name)):
        typer.echo(f"warning: implausible: {finding.text}", err=True)


def _why_ended(record: Record) -> str:
    """Return why a completed run trained no further, and whether it met its target."""
    metrics, limits, target = record.metrics, record.limits, record.case.target
    wanted = "" if isinstance(target, Missing) else quality_text(target, lower=lower_is_better(record.case))
    if isinstance(target, Missing):
        verdict = "there is no target on this dataset"
    elif isinstance(metrics.time_to_target, TimeToTarget):
        met = metrics.time_to_target
        return f"target {wanted} met in epoch {round(met.epoch, 3):g}, after {met.seconds:.4g} s of training"
    else:
        verdict = f"target {wanted} not met"
    if limits.budget_s is not None and not isinstance(metrics.projected_train_seconds, Missing):
        cause = f"the budget of {format_duration(limits.budget_s)} is used up"
    elif limits.max_steps is not None and metrics.steps == limits.max_steps:
        cause = f"--max-steps {limits.max_steps} reached"
    elif (
        limits.max_epochs is not None
        and not isinstance(metrics.epochs, Missing)
        and metrics.epochs >= limits.max_epochs
    ):
        cause = f"--max-epochs {limits.max_epochs} reached"
    else:
        cause = "all epochs trained"
    return f"{cause}; {verdict}"
