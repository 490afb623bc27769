"""``perf data``: generate sample datasets, and check real datasets before long runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import typer

from chipperf.cases.registry import find_case
from chipperf.cli.command_options import JSON_OPTION, complete_cases
from chipperf.cli.live import counting_progress
from chipperf.cli.output import print_json
from chipperf.data.dataset_files import require_directory
from chipperf.errors import CheckFailed, UsageError
from chipperf.visible import counted

app = typer.Typer(help="Generate sample datasets and check real ones.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def sample(
    out: Path | None = typer.Option(None, "--out", help="Directory for datasets. [the cache]"),
    case: str = typer.Option("resnet50", "--case", autocompletion=complete_cases, help="Case that the data is for."),
    classes: int | None = typer.Option(None, min=2, help="Classification: number of classes. [10]"),
    train_per_class: int | None = typer.Option(None, min=1, help="Classification: training images per class. [100]"),
    val_per_class: int | None = typer.Option(None, min=1, help="Classification: evaluation images per class. [20]"),
    size: str | None = typer.Option(None, "--size", help="Detection and text: demo or tiny. [demo]"),
) -> None:
    """Generate the sample dataset of a case and print its directory.

    Example: perf data sample --out data
    """
    given = {"classes": classes, "train_per_class": train_per_class, "val_per_class": val_per_class, "size": size}
    options = {name: value for name, value in given.items() if value is not None}
    data = find_case(case).data
    if data.ensure_sample is None:
        raise UsageError(
            f"case {case} has no sample dataset", hint="train it with --data DIR, the directory of a dataset"
        )
    if unfit := [name for name in options if name not in data.sample_options]:
        raise UsageError(
            f"{_spelled(unfit)} does not apply to the sample dataset of {case}",
            hint=f"use {_spelled(data.sample_options)}" if data.sample_options else "it takes no options but --out",
        )
    with counting_progress("generating the sample dataset") as advance:
        directory = data.ensure_sample(advance, out, options)
    typer.echo(directory)


@app.command()
def check(
    case: str = typer.Argument(..., help="Case that the data is for.", autocompletion=complete_cases),
    directory: Path = typer.Argument(..., help="Directory with the training and evaluation splits."),
    full: bool = typer.Option(
        False, "--full", help="Read every sample completely, for example a whole image instead of its header."
    ),
    any_size: bool = typer.Option(False, "--any-size", help="Accept sizes other than the reference dataset's."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Check a dataset directory: layout, annotations, counts, and files that cannot be read.

    Exit code 4 if there are faults. Example: perf data check resnet50 /data/imagenet
    """
    data = find_case(case).data
    if data.check is None:
        raise UsageError(
            f"case {case} has no check of its data",
            hint="'perf train' reports the first fault that it finds in the data",
        )
    require_directory(directory, "name the directory of a dataset")
    with counting_progress("reading the data") as advance:
        report = data.check(directory, None if any_size else data.reference, full=full, progress=advance)
    if as_json:
        print_json(asdict(report) | {"ok": report.ok})
    else:
        for finding in report.findings:
            typer.echo(f"{finding.severity}: {finding.message}")
        typer.echo(report.summary)
    if not report.ok:
        faults = sum(finding.severity == "error" for finding in report.findings)
        accepted = "" if any_size else "; --any-size accepts other counts than the benchmark's"
        raise CheckFailed(f"{directory} has {counted(faults, 'fault')}", hint=f"correct them before training{accepted}")


def _spelled(options: Iterable[str]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name in options)
