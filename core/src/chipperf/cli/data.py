"""``perf data``: sample datasets, and checks of real ones before hours are spent."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from chipperf.cli.live import counting_progress
from chipperf.cli.output import JSON_OPTION, print_json
from chipperf.errors import CheckFailed, UsageError, did_you_mean

if TYPE_CHECKING:
    from chipperf.data.check import CheckReport

app = typer.Typer(help="Generate sample datasets and check real ones.", no_args_is_help=True, rich_markup_mode=None)

_PROGRESS_TITLE = "generating the sample dataset"


@app.command()
def sample(
    out: Path | None = typer.Option(None, "--out", help="Directory that holds datasets; the cache if not given."),
    case: str = typer.Option("resnet50", "--case", help="Case that the data is for."),
    classes: int | None = typer.Option(None, min=2, help="Classification: number of classes, 10 if not given."),
    train_per_class: int | None = typer.Option(
        None, min=1, help="Classification: training images of each class, 100 if not given."
    ),
    val_per_class: int | None = typer.Option(
        None, min=1, help="Classification: evaluation images of each class, 20 if not given."
    ),
    size: str | None = typer.Option(None, "--size", help="Detection: demo or tiny, demo if not given."),
) -> None:
    """Generate the sample dataset of a case and print its directory.

    Example: perf data sample --out data
    """
    per_class = {"classes": classes, "train_per_class": train_per_class, "val_per_class": val_per_class}
    chosen = {name: value for name, value in per_class.items() if value is not None}
    if _is_coco(case):
        _reject(case, [f"--{name.replace('_', '-')}" for name in chosen], "use --size")
        directory = _coco_sample(size or "demo", out)
    else:
        _reject(case, [] if size is None else ["--size"], "use --classes, --train-per-class and --val-per-class")
        directory = _classification_sample(chosen, out)
    typer.echo(directory)


@app.command()
def check(
    case: str = typer.Argument(..., help="Case that the data is for."),
    directory: Path = typer.Argument(..., help="Directory with the training and evaluation split."),
    full: bool = typer.Option(False, "--full", help="Decode every image, not only its header."),
    any_size: bool = typer.Option(False, "--any-size", help="Accept another size than the case's own dataset."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Check a dataset directory: layout, annotations, counts, and files that cannot be read.

    Exits with 4 if there are faults. Example: perf data check resnet50 /data/imagenet
    """
    report = _check(case, directory, full=full, any_size=any_size)
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


def _is_coco(case: str) -> bool:
    from chipperf.cases.registry import find_case
    from chipperf.data.identity import COCO2017

    return find_case(case).base.dataset == COCO2017.name


def _reject(case: str, options: list[str], hint: str) -> None:
    if options:
        raise UsageError(f"{', '.join(options)} does not apply to the sample dataset of {case}", hint=hint)


def _classification_sample(chosen: dict[str, int], out: Path | None) -> Path:
    from chipperf.data.sample import SampleOptions, ensure_sample_dataset

    with counting_progress(_PROGRESS_TITLE) as advance:
        return ensure_sample_dataset(SampleOptions(**chosen), out, advance)


def _coco_sample(size: str, out: Path | None) -> Path:
    from chipperf.data.coco_sample import SIZES, ensure_coco_sample

    if size not in SIZES:
        raise UsageError(f"unknown size {size!r}{did_you_mean(size, SIZES)}", hint=f"sizes: {', '.join(SIZES)}")
    with counting_progress(_PROGRESS_TITLE) as advance:
        return ensure_coco_sample(SIZES[size], out, advance)


def _check(case: str, directory: Path, *, full: bool, any_size: bool) -> CheckReport:
    from chipperf.cases.registry import find_case
    from chipperf.data.check import check_imagefolder
    from chipperf.data.identity import COCO2017, IMAGENET2012

    dataset = find_case(case).base.dataset
    expected = next((known for known in (IMAGENET2012, COCO2017) if known.name == dataset and not any_size), None)
    with counting_progress("reading images") as advance:
        if dataset == COCO2017.name:
            from chipperf.data.coco_check import check_coco

            return check_coco(directory, expected, full=full, progress=advance)
        return check_imagefolder(directory, expected, full=full, progress=advance)
