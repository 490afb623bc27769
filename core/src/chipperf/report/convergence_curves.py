"""The report's convergence curves, and the runs without a curve."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from chipperf.errors import UsageError
from chipperf.report.comparability import RunDifference, differences, require_comparable, require_one
from chipperf.report.curves import MINIMUM_POINTS, CurveRuns, Curves, build_curves, read_points
from chipperf.report.row_identity import choose_rows, curve_names, preference, repeats_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chipperf.cases.base import Case
    from chipperf.records.schema import Record
    from chipperf.report.curve_files import CurveFiles


@dataclass(frozen=True, slots=True, kw_only=True)
class WithoutCurve:
    """A row, baseline or repeat without a curve: the name that its curve would have or, for a repeat, the run."""

    name: str
    reason: Literal["incomplete", "too_few_evaluations"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Convergence:
    """The convergence curves of a report.

    Attributes:
        curves: One for each row and baseline that was evaluated more than once.
        without_curve: The other rows and baselines, and repeats that did not complete.
        differences: Settings that differ between the curves, with values in the order of the curves.
        files: Picture and points; ``None`` if the report is not a file.
    """

    curves: Curves
    without_curve: tuple[WithoutCurve, ...]
    differences: tuple[RunDifference, ...]
    files: CurveFiles | None = None


def build_convergence(
    chosen: Sequence[Record], superseded: Sequence[Record], baseline: Sequence[Record], case: Case
) -> Convergence | None:
    """Return the curves of a report, or ``None`` if no row was evaluated more than once.

    A row's curve shows its run and the superseded runs that repeat it with another seed.

    Args:
        chosen: The records that rows show.
        superseded: The other records of the rows.
        baseline: The records to compare the rows with.
        case: Case of all records.

    Raises:
        UsageError: The baseline cannot be compared with the rows, or one of the two has no curve.
    """
    if baseline:
        _require_comparable(chosen, baseline)
    others, superseded_others = choose_rows(baseline, case)
    shown = [*chosen, *others]
    repeats = sorted((*superseded, *superseded_others), key=preference, reverse=True)
    groups, without_curve = [], []
    for index, (record, name) in enumerate(zip(shown, curve_names(shown, case), strict=True)):
        runs = [read_points(run, "quality") for run in repeats_of(record, repeats, case)]
        drawn = tuple(run for run in runs if len(run.points) >= MINIMUM_POINTS)
        if record.status.state != "completed":
            without_curve.append(WithoutCurve(name=name, reason="incomplete"))
        elif not drawn:
            without_curve.append(WithoutCurve(name=name, reason="too_few_evaluations"))
        else:
            groups.append(CurveRuns(name=name, baseline=index >= len(chosen), runs=drawn))
    # List failed repeats, so that a configuration that sometimes fails does not look like one that never fails.
    without_curve += [
        WithoutCurve(name=record.run_id, reason="incomplete")
        for record in repeats
        if record.status.state != "completed"
    ]
    if baseline and {group.baseline for group in groups} != {True, False}:
        raise UsageError(
            "nothing to compare: a convergence curve takes a completed run with two evaluations or more",
            hint="leave out --baseline, or name other runs",
        )
    if not groups:
        return None
    return Convergence(
        curves=build_curves(groups, "quality"),
        without_curve=tuple(without_curve),
        differences=differences([group.runs[0].record for group in groups], case),
    )


def _require_comparable(chosen: Sequence[Record], baseline: Sequence[Record]) -> None:
    both = [*chosen, *baseline]
    require_comparable(both)
    require_one("kinds", [record.kind for record in both], hint="take a baseline of the same kind")
    shared = {record.run_id for record in chosen} & {record.run_id for record in baseline}
    if shared:
        raise UsageError(
            f"run {min(shared)} is to be both reported and its own baseline", hint="name it once, as one of the two"
        )
