"""``perf compare``: runs side by side, and their curves in one picture."""

from __future__ import annotations

from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from chipperf.cli.language import Language, note_fonts
from chipperf.cli.listing import JSON_OPTION, print_json, print_table
from chipperf.errors import UsageError
from chipperf.plotting import PictureFormat, require_matplotlib
from chipperf.records.schema import Missing
from chipperf.records.store import read_record, write_atomically
from chipperf.report.comparability import differences
from chipperf.report.comparison import Comparison, compare_curves, compare_runs
from chipperf.report.curve_files import points_csv
from chipperf.report.curves import common_places, median_at
from chipperf.report.format import marker, number, quality

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from chipperf.report.comparison import ComparedMeasure
    from chipperf.report.curves import Axis, Curve, Curves, Quantity

_RUNS_BESIDE = 4
_LARGEST_TABLE = 20
"""Places of a curve that the terminal shows; the file has all."""

_PICTURES: dict[str, PictureFormat] = {".png": "png", ".svg": "svg"}


class CurveOf(str, Enum):
    """What a curve shows."""

    ACCURACY = "accuracy"
    LOSS = "loss"


class AxisOf(str, Enum):
    """Unit of a curve's axis."""

    EPOCH = "epoch"
    STEP = "step"
    TIME = "time"


_AXIS_TITLES: dict[Axis, str] = {"epoch": "epoch", "step": "step", "time": "time (s)"}
_EXTREME: dict[Quantity, str] = {"quality": "best", "loss": "lowest"}

_QUANTITIES: dict[CurveOf, Quantity] = {CurveOf.ACCURACY: "quality", CurveOf.LOSS: "loss"}


def compare(
    runs: list[Path] = typer.Argument(..., help="Directories of runs, or their record.json.", metavar="RUN..."),
    curve: CurveOf | None = typer.Option(
        None, "--curve", help="Compare over training: accuracy (the case's quality, mAP for one) or training loss."
    ),
    axis: AxisOf | None = typer.Option(
        None, "--axis", help="Unit of the curve's axis. [epoch for accuracy, step for loss, if all runs can be on it]"
    ),
    lang: Language = typer.Option(Language.ZH, "--lang", help="Language of the picture."),
    out: Path | None = typer.Option(None, "--out", help="File for the curve: .svg or .png, or .csv for its points."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Compare runs of one case on one dataset: vendors, precisions, topologies.

    Ratios are to the first run. Repeats with other seeds become one curve: the median, with a band from the lowest to
    the highest.

    Example: perf compare runs/a runs/b --curve accuracy --lang en --out accuracy.svg
    """
    if curve is None and (out is not None or axis is not None):
        raise UsageError(f"{'--out' if out else '--axis'} belongs to a curve", hint="add --curve accuracy, or loss")
    if out is not None:
        _check_output(out)
    comparison = compare_runs([read_record(path) for path in runs])
    if curve is None:
        if as_json:
            print_json(_comparison_data(comparison))
        else:
            _print_comparison(comparison)
        return
    curves = compare_curves(comparison, _QUANTITIES[curve], axis=axis.value if axis else None)
    if out is not None:
        _write(curves, comparison, lang, out)
    if curves.not_on:
        typer.echo(f"note: the axis is the {curves.axis}, because {curves.not_on}", err=True)
    if as_json:
        print_json(_curves_data(curves, comparison))
    else:
        _print_curves(curves, comparison)


def _check_output(out: Path) -> None:
    if out.suffix not in (*_PICTURES, ".csv"):
        raise UsageError(f"--out {out} is neither .svg, .png nor .csv", hint="name a file with one of these endings")
    if not out.parent.is_dir():
        raise UsageError(f"{out.parent} is not a directory", hint="create it, or choose another --out")
    if out.suffix in _PICTURES:
        require_matplotlib("plot")


def _write(curves: Curves, comparison: Comparison, lang: Language, out: Path) -> None:
    if out.suffix == ".csv":
        write_atomically(out, points_csv(curves))
    else:
        from chipperf.report.curve_figure import draw_curves

        kind = _PICTURES[out.suffix]
        picture = draw_curves(curves, comparison.case.report, lang.value, [kind])
        write_atomically(out, picture.files[kind])
        note_fonts(picture.language, lang, picture.unwritten)
    typer.echo(f"wrote {out}", err=True)


def _print_comparison(comparison: Comparison) -> None:
    for place, (record, name) in enumerate(zip(comparison.records, comparison.names, strict=True), start=1):
        typer.echo(f"{place}: {name}, {record.run_id}")
    typer.echo()
    rows = {_title(measure): _cells(measure, comparison) for measure in comparison.measures}
    if any(efficiency is not None for efficiency in comparison.scaling):
        rows["scaling efficiency"] = ["-" if each is None else f"{each:.1%}" for each in comparison.scaling]
    _print_beside(rows)
    if comparison.differences:
        typer.echo("\nThe runs also differ in")
        _print_beside({difference.name: difference.values for difference in comparison.differences})


def _print_beside(rows: Mapping[str, Sequence[str]]) -> None:
    """Print rows with a column for each run, a few runs at a time: the table has to fit into a terminal."""
    count = max(map(len, rows.values()))
    for start in range(0, count, _RUNS_BESIDE):
        part = slice(start, start + _RUNS_BESIDE)
        columns = [str(place) for place in range(1, count + 1)][part]
        print_table(["", *columns], [[title, *cells[part]] for title, cells in rows.items()])


def _title(measure: ComparedMeasure) -> str:
    return measure.name if measure.unit == "fraction" else f"{measure.name} ({measure.unit})"


def _cells(measure: ComparedMeasure, comparison: Comparison) -> list[str]:
    cells: list[str] = []
    for value, ratio in zip(measure.values, measure.ratios, strict=True):
        text = _quality(value, comparison) if measure.unit == "fraction" else _known(number(value))
        cells.append(f"{text} ({ratio:.3g}x)" if ratio is not None and cells else text)
    return cells


def _print_curves(curves: Curves, comparison: Comparison) -> None:
    def shown(value: float) -> str:
        return _known(number(value)) if curves.quantity == "loss" else _quality(value, comparison)

    columns = [
        "",
        "curve",
        "runs",
        "seeds",
        "points",
        f"last {_AXIS_TITLES[curves.axis]}",
        _EXTREME[curves.quantity],
        "target",
    ]
    rows = [
        [
            curve.number,
            curve.name if curve.finished else f"{curve.name}, not completed",
            len(curve.runs),
            ", ".join(_seed(seed) for seed in curve.seeds),
            curve.points,
            number(curve.last_place),
            shown(curve.lowest if curves.quantity == "loss" else curve.best),
            _target(curve, comparison),
        ]
        for curve in curves.curves
    ]
    # A target is one of quality.
    count = len(columns) - (curves.quantity == "loss")
    print_table(columns[:count], [row[:count] for row in rows])
    different = differences([curve.runs[0].record for curve in curves.curves], comparison.case)
    if different:
        typer.echo("\nThe curves differ in")
        _print_beside({difference.name: difference.values for difference in different})
    places = common_places(curves)
    if not places:
        typer.echo(f"\nThere is no {curves.axis} at which all curves have a value.")
        return
    typer.echo(f"\nMedians at {_which(places)} {curves.axis}s that all curves have")
    print_table(
        [curves.axis, *(str(curve.number) for curve in curves.curves)],
        [
            [number(place), *(shown(median_at(curve, place)) for curve in curves.curves)]
            for place in _evenly(places, _LARGEST_TABLE)
        ],
    )


def _target(curve: Curve, comparison: Comparison) -> str:
    if isinstance(curve.target, Missing):
        return "none"
    reached = "reached" if len(curve.runs) == 1 else f"reached by {curve.reached} of {len(curve.runs)}"
    return f"{_quality(curve.target, comparison)} {reached if curve.reached else 'not reached'}"


def _which(places: Sequence[float]) -> str:
    return "all" if len(places) <= _LARGEST_TABLE else f"{_LARGEST_TABLE} of {len(places)}"


def _evenly(places: Sequence[float], count: int) -> list[float]:
    """Return at most ``count`` of the places, spread evenly, with the first and the last."""
    if len(places) <= count:
        return list(places)
    return [places[round(index * (len(places) - 1) / (count - 1))] for index in range(count)]


def _comparison_data(comparison: Comparison) -> dict[str, Any]:
    return {
        "case": comparison.case.name,
        "runs": [
            {"run": record.run_id, "name": name, "vendor": record.vendor.name, "seed": _plain(record.seed)}
            for record, name in zip(comparison.records, comparison.names, strict=True)
        ],
        "measures": [
            {**asdict(measure), "values": [_plain(value) for value in measure.values]}
            for measure in comparison.measures
        ],
        "differences": [asdict(difference) for difference in comparison.differences],
        "scaling_efficiency": list(comparison.scaling),
    }


def _curves_data(curves: Curves, comparison: Comparison) -> dict[str, Any]:
    return {
        "case": comparison.case.name,
        "quantity": curves.quantity,
        "axis": curves.axis,
        "curves": [
            {
                "number": curve.number,
                "name": curve.name,
                "runs": [run.record.run_id for run in curve.runs],
                "seeds": [_plain(seed) for seed in curve.seeds],
                "reached_target": curve.reached,
                "positions": [asdict(position) for position in curve.positions],
            }
            for curve in curves.curves
        ],
        "common_places": common_places(curves),
    }


def _quality(value: float | Missing, comparison: Comparison) -> str:
    return _known(quality(value, as_percent=comparison.case.report.quality_as_percent))


def _known(text: str | Missing) -> str:
    return marker(text, "en") if isinstance(text, Missing) else text


def _seed(seed: int | Missing) -> str:
    return marker(seed, "en") if isinstance(seed, Missing) else str(seed)


def _plain(value: float | Missing) -> object:
    """Return a value as JSON has it: a missing one is an object, as in a record."""
    return value.model_dump() if isinstance(value, Missing) else value
