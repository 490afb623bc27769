"""``perf launch``: hand runs to a scheduler."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import typer

from chipperf.cases.registry import find_case
from chipperf.cli.command_options import complete_cases, typed_parameters
from chipperf.cli.train import train
from chipperf.errors import PerfError, RecordError, UsageError
from chipperf.launch.slurm import batch_script, submit
from chipperf.records.files import write_atomically

app = typer.Typer(no_args_is_help=True, help="Submit runs to a scheduler.", rich_markup_mode=None)

_OWN = {"nnodes": "--nodes", "nproc": "--nproc", "node_rank": "--nodes", "rendezvous": "--nodes", "out": "--directory"}
"""Parameters of ``perf train`` that the script sets, and the options of ``perf launch`` that determine them."""

_NOT_UNDERSTOOD: type[Exception] = typer.BadParameter.__bases__[0]
"""click's UsageError from the click that typer uses: typer's own copy or the installed package."""


@app.command("slurm")
def slurm(
    words: list[str] = typer.Argument(
        ..., help="Cases; then, after --, options of 'perf train'.", metavar="CASE...", autocompletion=complete_cases
    ),
    nodes: int = typer.Option(1, "--nodes", min=1, help="Machines."),
    nproc: int = typer.Option(1, "--nproc", min=1, help="Worker processes on each machine, one per device."),
    partition: str | None = typer.Option(None, "--partition", help="Slurm's partition."),
    time: str | None = typer.Option(None, "--time", help="Time limit of the job, in sbatch's format."),
    gres: str | None = typer.Option(None, "--gres", help="Devices of each machine, in sbatch's format: gpu:8."),
    sbatch: list[str] = typer.Option(
        [], "--sbatch", metavar="OPTION", help="Any other sbatch option, --sbatch=--account=NAME; repeatable."
    ),
    directory: Path = typer.Option(
        Path("runs"), "--directory", help="Directory for runs and log; shared by all machines."
    ),
    dry_run: bool = typer.Option(False, "--dry-run", help="Print the script, and submit nothing."),
) -> None:
    """Write a batch script that trains cases on several machines, and submit it.

    Example: perf launch slurm resnet50 --nodes 2 --nproc 8 --dry-run -- --vendor cpu --precision bf16
    """
    count = next((place for place, word in enumerate(words) if word.startswith("-")), len(words))
    cases, arguments = words[:count], words[count:]
    if not cases:
        raise UsageError("no case is named", hint="name cases before --; 'perf cases' lists them")
    for case in cases:
        find_case(case)
        _check_arguments(case, arguments)
    named = {"--partition": partition, "--time": time, "--gres": gres}
    options = [f"{name}={value}" for name, value in named.items() if value is not None]
    text = batch_script(
        cases, arguments, nodes=nodes, nproc=nproc, directory=directory.resolve(), options=[*options, *sbatch]
    )
    if dry_run:
        typer.echo(text, nl=False)
        return
    script = directory / f"slurm-{datetime.now(timezone.utc):%Y%m%d-%H%M%S}.sbatch"
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecordError(f"cannot create {directory}: {error.strerror}", hint="choose another --directory") from error
    write_atomically(script, text)
    try:
        job = submit(script)
    except PerfError:
        # Nothing runs it, and it would be in the way of runs/*.
        script.unlink(missing_ok=True)
        raise
    typer.echo(f"job {job}, from {script}")


def _check_arguments(case: str, arguments: list[str]) -> None:
    """Parse the arguments like ``perf train``, because the job would find errors only after hours in the queue."""
    trainer = typer.Typer(add_completion=False, rich_markup_mode=None)
    trainer.command()(train)
    try:
        context = typer.main.get_command(trainer).make_context("perf train", [case, *arguments])
    except _NOT_UNDERSTOOD as error:
        raise UsageError(f"perf train does not take these options: {error}", hint="see perf train --help") from error
    for parameter in typed_parameters(context):
        if parameter.name in _OWN:
            hint = f"leave it out; {_OWN[parameter.name]} sets it here"
            raise UsageError(f"the script sets {parameter.opts[0]} itself", hint=hint)
