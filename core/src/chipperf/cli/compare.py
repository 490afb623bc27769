"""``perf compare``: runs side by side and their curves in one picture."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import typer

from chipperf.cli.command_options import JSON_OPTION, complete_runs, language_option
from chipperf.cli.output import note, note_fonts, print_json, print_table, print_wrapped, require_file, write_file
from chipperf.compare.comparison import Comparison, compare_columns, compare_curves
from chipperf.compare.comparison_formats import (
    as_csv,
    as_github,
    as_markdown,
    headers,
    json_text,
    json_value,
    legend,
    notes,
    rows,
)
from chipperf.compare.footnotes import DOUBTS, installed_peak
from chipperf.compare.gate import judge
from chipperf.compare.requirements import describe_judgment, parse_requirements
from chipperf.compare.sides import Side, read_columns
from chipperf.documents.format import number, quality, text_or_marker
from chipperf.errors import CheckFailed, Undecided, UsageError
from chipperf.languages import Language
from chipperf.records.schema import Missing
from chipperf.report.comparability import differences
from chipperf.report.curve_files import draw_curves, points_csv
from chipperf.report.curves import Axis, Curve, Curves, common_places, median_at
from chipperf.report.figures import PictureFormat, require_matplotlib
from chipperf.verify.evidence import examine

ComparisonFormat = Literal["table", "markdown", "csv", "json", "github"]

_RUNS_BESIDE = 3
_LARGEST_TABLE = 20
"""Largest number of points of a curve on the terminal. The file has all points."""

_PICTURES: dict[str, PictureFormat] = {".png": "png", ".svg": "svg"}
_FORMATS: dict[str, ComparisonFormat] = {".md": "markdown", ".csv": "csv", ".json": "json"}
_WRITERS: dict[str, Callable[[Comparison], str]] = {
    "markdown": as_markdown,
    "csv": as_csv,
    "json": json_text,
    "github": as_github,
}


def compare(
    paths: list[Path] = typer.Argument(
        ...,
        help="Directories of runs or of their repeats, record.json files, and reports (README.md).",
        metavar="RUN...",
        autocompletion=complete_runs,
    ),
    output: ComparisonFormat | None = typer.Option(
        None, "--format", help="Format of the comparison. [by the extension of --out, otherwise a table]"
    ),
    topology: str | None = typer.Option(
        None, "--topology", help="Only runs and rows on this topology, for example 1x8."
    ),
    precision: str | None = typer.Option(None, "--precision", help="Only runs and rows that requested this precision."),
    at_least: list[str] = typer.Option(
        [],
        "--at-least",
        help="Lowest ratio to the first run, the baseline: p_core=0.97.",
        metavar="METRIC=RATIO",
    ),
    at_most: list[str] = typer.Option(
        [],
        "--at-most",
        help="Highest ratio to the first run: mem=1.05. Both options are repeatable.",
        metavar="METRIC=RATIO",
    ),
    curve: Literal["accuracy", "loss"] | None = typer.Option(
        None,
        "--curve",
        help="Compare the course of training: accuracy (the case's quality, for example mAP) or training loss.",
    ),
    axis: Axis | None = typer.Option(
        None, "--axis", help="Unit of the curve's axis. [epoch for accuracy, step for loss, if all runs can be on it]"
    ),
    lang: str = language_option("Language of the picture."),
    out: Path | None = typer.Option(
        None, "--out", help="File to write: .md, .csv, .json or text; for a curve .svg or .png, or .csv for its points."
    ),
    as_json: bool = JSON_OPTION,
) -> None:
    """Compare runs of one case on one dataset: vendors, precisions, topologies.

    A directory of repeats is one column with its spread, and a report has a column for each of its rows. Ratios are
    relative to the first column, with a confidence interval if there are windows or repeats. Footnotes say what
    differs. Runs whose results mean different things are refused.

    --at-least and --at-most make the comparison a gate: exit code 0 if the intervals of the ratios lie within all
    bounds, 4 if one lies beyond its bound, 5 if more repeats are needed to decide one.

    Example: perf compare runs/a runs/b --format markdown --out comparison.md

    Example: perf compare baseline nightly --at-least p_core=0.97 --at-most mem=1.05 --format github
    """
    requirements = parse_requirements(at_least, at_most)
    if requirements and curve is not None:
        raise UsageError("--at-least and --at-most do not apply to a curve", hint="leave --curve out")
    if output == "github" and not requirements:
        raise UsageError("--format github annotates requirements", hint="add --at-least or --at-most")
    if curve is None:
        if axis is not None:
            raise UsageError("--axis belongs to a curve", hint="add --curve accuracy, or loss")
        chosen = _choose_format(output, out, as_json=as_json)
        require_file(out, (*_FORMATS, ".txt"))
        sides = _read(paths, topology, precision)
        comparison = compare_columns(sides, peak_of=installed_peak)
        if requirements:
            _require_evidence(sides, paths[0])
            comparison = replace(comparison, judgments=judge(comparison, requirements))
        _write_comparison(comparison, chosen, out)
        _require_met(comparison)
        return
    if output not in (None, "json"):
        raise UsageError(f"--format {output} does not apply to a curve", hint="write its points: --out FILE.csv")
    if out is not None and out.suffix not in (*_PICTURES, ".csv"):
        raise UsageError(
            f"--out {out} does not end in .svg, .png or .csv", hint="name a file with one of these endings"
        )
    require_file(out)
    if out is not None and out.suffix in _PICTURES:
        require_matplotlib("plot")
    comparison = compare_columns(_read(paths, topology, precision))
    for footnote in comparison.footnotes:
        if footnote.text.startswith(DOUBTS):
            note(f"column {', '.join(map(str, footnote.columns))}: {footnote.text}")
    curves = compare_curves(comparison, "loss" if curve == "loss" else "quality", axis=axis)
    if out is not None:
        _write_curves(curves, comparison, lang, out)
    if curves.not_on:
        note(f"the axis is the {curves.axis}, because {curves.not_on}")
    if as_json or output == "json":
        print_json(_curves_data(curves, comparison))
    else:
        _print_curves(curves, comparison)


def _read(paths: Sequence[Path], topology: str | None, precision: str | None) -> list[Side]:
    columns = read_columns(paths)
    chosen = [
        column
        for column in columns
        if topology in (None, column.first.topology.label) and precision in (None, column.first.precision.requested)
    ]
    if not chosen:
        there = {f"{each.first.topology.label} {each.first.precision.requested}" for each in columns}
        raise UsageError(
            "no run or row is on this topology and precision", hint=f"there are {', '.join(sorted(there))}"
        )
    return chosen


def _require_evidence(sides: Sequence[Side], baseline: Path) -> None:
    """Check that the baseline was not filtered out, and that no run contradicts itself or its events and logs."""
    if sides[0].source != str(baseline):
        raise UsageError(
            f"the baseline, {baseline}, is not on the requested topology and precision",
            hint="name a baseline that is",
        )
    for side in sides:
        # A row of a document has no file.
        for record, file in zip(side.records, side.files, strict=False):
            examined = examine(record, file if file.is_dir() else file.parent)
            for text in examined.notes:
                note(f"run {record.run_id}: {text}")
            if examined.contradictions:
                raise UsageError(
                    f"run {record.run_id} contradicts what was measured: {examined.contradictions[0]}",
                    hint="no verdict can be based on such a record: run it again",
                )


def _require_met(comparison: Comparison) -> None:
    """Raise an error if a requirement is not met or not decidable. A bound on what is better is noted."""
    for requirement in dict.fromkeys(each.requirement for each in comparison.judgments):
        measure = next(each for each in comparison.measures if each.name == requirement.measure)
        if measure.higher_is_better != (requirement.bound == "at_least"):
            better = "higher" if measure.higher_is_better else "lower"
            note(f"{requirement}: it is better when it is {better}, and no bound limits how much worse it gets")
    texts = {
        verdict: [str(each.requirement) for each in comparison.judgments if each.verdict == verdict]
        for verdict in ("not_met", "undecided")
    }
    if texts["not_met"]:
        raise CheckFailed(f"not met: {', '.join(texts['not_met'])}", hint="perf compare lists what differs")
    if texts["undecided"]:
        raise Undecided(
            f"not decidable: {', '.join(texts['undecided'])}", hint="more repeats decide: perf train --repeat N"
        )


def _choose_format(output: ComparisonFormat | None, out: Path | None, *, as_json: bool) -> ComparisonFormat:
    suffix = out.suffix.casefold() if out else ""
    if suffix in _PICTURES:
        raise UsageError(f"--out {out}: only a curve has a picture", hint="add --curve accuracy, or loss")
    if as_json:
        if output not in (None, "json"):
            raise UsageError(f"--json contradicts --format {output}", hint="give one of the two")
        return "json"
    return output or _FORMATS.get(suffix, "table")


def _write_comparison(comparison: Comparison, output: ComparisonFormat, out: Path | None) -> None:
    text = io.StringIO()
    # On a terminal, a table has its width and styles.
    with redirect_stdout(text) if out else nullcontext():
        if output == "table":
            _print_comparison(comparison)
        else:
            typer.echo(_WRITERS[output](comparison), nl=False)
    if out:
        write_file(out, text.getvalue())


def _print_comparison(comparison: Comparison) -> None:
    for line in legend(comparison):
        print_wrapped(line, "    ")
    typer.echo()
    _print_beside(headers(comparison), rows(comparison))
    for text in notes(comparison):
        typer.echo()
        print_wrapped(text)
    if comparison.judgments:
        typer.echo("\nRequirements")
        for judgment in comparison.judgments:
            print_wrapped(f"  {describe_judgment(judgment)}", "    ")
    if comparison.footnotes:
        typer.echo("\nFootnotes")
        for place, footnote in enumerate(comparison.footnotes, start=1):
            print_wrapped(f"  [{place}] {footnote.text}", "      ")
    if comparison.settings:
        typer.echo("\nSettings that differ")
        places = [str(place) for place in range(1, len(comparison.columns) + 1)]
        _print_beside(places, {f"{each.group} {each.name}": each.values for each in comparison.settings})


def _print_beside(columns: Sequence[str], cells: Mapping[str, Sequence[str]]) -> None:
    """Print rows with a column for each run, in tables of a few runs that fit on a terminal."""
    for start in range(0, len(columns), _RUNS_BESIDE):
        part = slice(start, start + _RUNS_BESIDE)
        print_table(["", *columns[part]], [[title, *values[part]] for title, values in cells.items()])


def _write_curves(curves: Curves, comparison: Comparison, lang: Language, out: Path) -> None:
    if out.suffix == ".csv":
        write_file(out, points_csv(curves))
        return
    kind = _PICTURES[out.suffix]
    picture = draw_curves(curves, comparison.case.report, lang, [kind])
    note_fonts(picture.language, lang, picture.unwritten)
    write_file(out, picture.files[kind])


def _print_curves(curves: Curves, comparison: Comparison) -> None:
    is_loss = curves.quantity == "loss"

    def shown(value: float) -> str:
        return text_or_marker(number(value), "en") if is_loss else _quality(value, comparison)

    numbers = [str(curve.number) for curve in curves.curves]
    titles = ["", "curve", "runs", "seeds", "points", f"last {'time (s)' if curves.axis == 'time' else curves.axis}"]
    print_table(
        # The target is a quality, so only quality curves show it.
        [*titles, *(["lowest"] if is_loss else ["best", "target"])],
        [
            [
                curve.number,
                curve.name if curve.finished else f"{curve.name}, not completed",
                len(curve.runs),
                ", ".join(text_or_marker(seed, "en") for seed in curve.seeds),
                curve.points,
                number(curve.last_place),
                *([shown(curve.lowest)] if is_loss else [shown(curve.best), _target(curve, comparison)]),
            ]
            for curve in curves.curves
        ],
    )
    different = differences([curve.runs[0].record for curve in curves.curves], comparison.case)
    if different:
        typer.echo("\nThe curves differ in")
        _print_beside(numbers, {difference.name: difference.values for difference in different})
    places = common_places(curves)
    if not places:
        typer.echo(f"\nThere is no {curves.axis} at which all curves have a value.")
        return
    count, last = len(places), len(places) - 1
    if count > _LARGEST_TABLE:
        # Evenly spaced, including the first and the last.
        places = [places[round(index * last / (_LARGEST_TABLE - 1))] for index in range(_LARGEST_TABLE)]
    which = "all" if count == len(places) else f"{len(places)} of {count}"
    typer.echo(f"\nMedians at {which} {curves.axis}s that all curves have")
    print_table(
        [curves.axis, *numbers],
        [[number(place), *(shown(median_at(curve, place)) for curve in curves.curves)] for place in places],
    )


def _target(curve: Curve, comparison: Comparison) -> str:
    if isinstance(curve.target, Missing):
        return "none"
    reached = "reached" if len(curve.runs) == 1 else f"reached by {curve.reached} of {len(curve.runs)}"
    return f"{_quality(curve.target, comparison)} {reached if curve.reached else 'not reached'}"


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
                "seeds": [json_value(seed) for seed in curve.seeds],
                "reached_target": curve.reached,
                "positions": [asdict(position) for position in curve.positions],
            }
            for curve in curves.curves
        ],
        "common_places": common_places(curves),
    }


def _quality(value: float | Missing, comparison: Comparison) -> str:
    case = comparison.case
    return text_or_marker(
        quality(value, as_percent=case.report.quality_as_percent, round_up=case.lower_is_better), "en"
    )
