"""``perf data``: sample datasets, and checks of real ones before hours are spent."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import typer

from chipperf.cli.listing import JSON_OPTION, print_json
from chipperf.cli.live import counting_progress
from chipperf.errors import CheckFailed

app = typer.Typer(help="Generate sample datasets and check real ones.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def sample(
    out: Path | None = typer.Option(None, "--out", help="Directory that holds datasets; the cache if not given."),
    classes: int = typer.Option(10, min=2, help="Number of classes."),
    train_per_class: int = typer.Option(100, min=1, help="Training images of each class."),
    val_per_class: int = typer.Option(20, min=1, help="Evaluation images of each class."),
) -> None:
    """Generate the sample classification dataset and print its directory.

    Example: perf data sample --out data
    """
    from chipperf.data.sample import SampleOptions, ensure_sample_dataset

    options = SampleOptions(classes=classes, train_per_class=train_per_class, val_per_class=val_per_class)
    with counting_progress("generating the sample dataset") as advance:
        directory = ensure_sample_dataset(options, out, advance)
    typer.echo(directory)


@app.command()
def check(
    case: str = typer.Argument(..., help="Case that the data is for."),
    directory: Path = typer.Argument(..., help="Directory with train/ and val/."),
    full: bool = typer.Option(False, "--full", help="Decode every image, not only its header."),
    any_size: bool = typer.Option(False, "--any-size", help="Accept another size than the case's own dataset."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Check a dataset directory: layout, counts, and files that cannot be read.

    Exits with 4 if there are faults. Example: perf data check resnet50 /data/imagenet
    """
    from chipperf.cases.registry import find_case
    from chipperf.data.check import IMAGENET2012, check_imagefolder

    expected = IMAGENET2012 if find_case(case).base.dataset == IMAGENET2012.name and not any_size else None
    with counting_progress("reading images") as advance:
        report = check_imagefolder(directory, expected, full=full, progress=advance)
    if as_json:
        print_json(asdict(report) | {"ok": report.ok})
    else:
        for finding in report.findings:
            typer.echo(f"{finding.severity}: {finding.message}")
        how = "decoded" if report.fully_decoded else "read the headers of"
        typer.echo(
            f"{report.train_samples} training and {report.eval_samples} evaluation images in {report.classes} classes; "
            f"{how} {report.images_read}"
        )
    if not report.ok:
        faults = sum(finding.severity == "error" for finding in report.findings)
        raise CheckFailed(f"{directory} has {faults} faults", hint="put them right before training")
