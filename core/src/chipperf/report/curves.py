"""Convergence curves: the points of runs on one axis, and repeats of a configuration as one curve.

Nothing is interpolated: curves are compared only where they have points.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

from chipperf.errors import UsageError
from chipperf.records.convergence import best_of, lower_is_better, meets_target
from chipperf.records.schema import Missing, Throughput
from chipperf.report.tracing import TrackedValue, track_each

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from chipperf.records.schema import Record

Quantity = Literal["quality", "loss"]
Axis = Literal["epoch", "step", "time"]

MINIMUM_POINTS = 2
"""Minimum number of points of a curve."""

_AXES: dict[Quantity, tuple[Axis, ...]] = {"quality": ("epoch", "step"), "loss": ("step", "epoch")}
"""The axes to try, in order, if the user names none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A value and the point in training where it was measured.

    Attributes:
        epoch: Passes over the training data until then; ``None`` if unknown.
        step: Optimizer steps until then.
        elapsed_s: Time since the start of training; ``None`` for a loss, because its time is not recorded.
        value: Quality as a fraction, or mean training loss since the previous point.
    """

    epoch: float | None
    step: int
    elapsed_s: float | None
    value: float

    def place(self, axis: Axis) -> float:
        """Return the place on an axis that :func:`build_curves` found usable."""
        return cast("float", {"epoch": self.epoch, "step": self.step, "time": self.elapsed_s}[axis])


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPoints:
    """The points of one run, by step."""

    record: Record
    measured: TrackedValue[tuple[Point, ...]]

    @property
    def points(self) -> tuple[Point, ...]:
        """The points in order."""
        return self.measured.value

    def line(self, axis: Axis) -> tuple[tuple[float, float], ...]:
        """Return the place on the axis and the value of every point."""
        return tuple((point.place(axis), point.value) for point in self.points)


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """The values of all runs of a curve at one place of the axis."""

    place: float
    low: float
    median: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveRuns:
    """Repeats to draw as one curve, with :data:`MINIMUM_POINTS` points or more; others are compared with a baseline."""

    name: str
    baseline: bool
    runs: tuple[RunPoints, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve(CurveRuns):
    """The curve of the repeats of one configuration.

    Attributes:
        number: Number from 1, which identifies the curve in picture, text and table.
        positions: Median, lowest and highest value at every place where all runs have a point.
        last_place: Place of the last point of any run.
        best: Highest value of any run, and ``lowest`` the lowest.
        reached: Number of runs that met the target; 0 for a loss.
    """

    number: int
    positions: tuple[Position, ...]
    last_place: float
    best: float
    lowest: float
    reached: int

    @property
    def seeds(self) -> tuple[int | Missing, ...]:
        """The seed of every run."""
        return tuple(run.record.seed for run in self.runs)

    @property
    def points(self) -> int:
        """The largest number of points of a run."""
        return max(len(run.points) for run in self.runs)

    @property
    def target(self) -> float | Missing:
        """The target quality of the runs."""
        return self.runs[0].record.case.target

    @property
    def finished(self) -> bool:
        """True if all runs completed."""
        return all(run.record.status.state == "completed" for run in self.runs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Meeting:
    """The values of two curves at the last place where both have points."""

    curve: Curve
    baseline: Curve
    place: float
    value: float
    baseline_value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """At least one curve, all on one axis; ``not_on`` is the reason if this is not the usual axis of the quantity."""

    quantity: Quantity
    axis: Axis
    not_on: str | None
    curves: tuple[Curve, ...]

    @property
    def targets(self) -> tuple[float, ...]:
        """The different targets of the runs; none for a loss."""
        if self.quantity == "loss":
            return ()
        return tuple(dict.fromkeys(curve.target for curve in self.curves if not isinstance(curve.target, Missing)))

    @property
    def meetings(self) -> tuple[Meeting, ...]:
        """Every pair of a curve and a baseline that have points at a common place."""
        pairs = [(curve, base) for curve in self.curves for base in self.curves if base.baseline and not curve.baseline]
        return tuple(meeting for curve, base in pairs if (meeting := _meeting(curve, base)))


def read_points(record: Record, quantity: Quantity) -> RunPoints:
    """Return the points of a run: its evaluations, or the mean losses of its measurement windows."""

    def measured() -> list[tuple[Point, ...]]:
        points = _quality_points(record) if quantity == "quality" else _loss_points(record)
        # An imported document may list its points in any order, or twice.
        by_step = {point.step: point for point in points}
        return [tuple(by_step[step] for step in sorted(by_step))]

    (tracked,) = track_each(measured)
    return RunPoints(record=record, measured=tracked)


def build_curves(groups: Sequence[CurveRuns], quantity: Quantity, *, axis: Axis | None = None) -> Curves:
    """Build the curves of at least one group of comparable runs on a common axis.

    By default, qualities are shown over epochs and losses over steps. If a run cannot be on this axis, or if a step is
    not the same amount of training in all runs, the other of the two axes is used.

    Raises:
        UsageError: A run cannot be on the axis, or on any axis; the message says which run and why.
    """
    runs = [run for group in groups for run in group.runs]
    wanted = (axis,) if axis else _AXES[quantity]
    problems = {name: _axis_problem(name, runs) for name in wanted}
    usable = [name for name, problem in problems.items() if problem is None]
    if not usable:
        reasons = "; ".join(f"no {name} axis: {problem}" for name, problem in problems.items())
        raise UsageError(reasons, hint="choose another --axis, or leave a run out")
    chosen = usable[0]
    return Curves(
        quantity=quantity,
        axis=chosen,
        not_on=problems[wanted[0]],
        curves=tuple(_curve(group, chosen, quantity, number=number) for number, group in enumerate(groups, start=1)),
    )


def common_places(curves: Curves) -> list[float]:
    """Return the places at which every curve has a value for all of its runs."""
    return _shared_places([position.place for position in curve.positions] for curve in curves.curves)


def median_at(curve: Curve, place: float) -> float:
    """Return a curve's median at one of its places."""
    return next(position.median for position in curve.positions if position.place == place)


def _curve(group: CurveRuns, axis: Axis, quantity: Quantity, *, number: int) -> Curve:
    lines = [dict(run.line(axis)) for run in group.runs]
    values = [point.value for run in group.runs for point in run.points]
    positions = []
    for place in _shared_places(lines):
        there = [line[place] for line in lines]
        positions.append(Position(place=place, low=min(there), median=statistics.median(there), high=max(there)))
    return Curve(
        number=number,
        name=group.name,
        baseline=group.baseline,
        runs=group.runs,
        positions=tuple(positions),
        last_place=max(run.points[-1].place(axis) for run in group.runs),
        best=best_of(values, lower=lower_is_better(group.runs[0].record.case)),
        lowest=min(values),
        reached=sum(map(_reached_target, group.runs)) if quantity == "quality" else 0,
    )


def _shared_places(places: Iterable[Iterable[float]]) -> list[float]:
    return sorted(set.intersection(*map(set, places)))


def _reached_target(run: RunPoints) -> bool:
    target = run.record.case.target
    lower = lower_is_better(run.record.case)
    return any(meets_target(point.value, target, lower=lower) for point in run.points)


def _meeting(curve: Curve, baseline: Curve) -> Meeting | None:
    values = {position.place: position.median for position in baseline.positions}
    for position in reversed(curve.positions):
        if position.place in values:
            return Meeting(
                curve=curve,
                baseline=baseline,
                place=position.place,
                value=position.median,
                baseline_value=values[position.place],
            )
    return None


def _quality_points(record: Record) -> Iterable[Point]:
    evaluations = record.metrics.curve
    steps_per_epoch = _steps_per_epoch(record)
    # A run that --max-steps ended within an epoch was evaluated at that step, not at the epoch's end.
    within = steps_per_epoch is not None and all(
        math.ceil(point.step / steps_per_epoch) == point.epoch for point in evaluations
    )
    for point in evaluations:
        epoch = point.step / steps_per_epoch if within and steps_per_epoch else float(point.epoch)
        if not isinstance(point.value, Missing):
            yield Point(epoch=epoch, step=point.step, elapsed_s=point.elapsed_s, value=point.value)


def _loss_points(record: Record) -> Iterable[Point]:
    throughput = record.metrics.p_train
    windows = throughput.windows if isinstance(throughput, Throughput) else []
    steps_per_epoch = _steps_per_epoch(record)
    # Windows after a restart count too: their losses are as valid as others.
    for window in (*windows, *record.metrics.restart_windows):
        if window.loss is not None:
            last_step = window.first_step + window.steps - 1
            epoch = last_step / steps_per_epoch if steps_per_epoch else None
            yield Point(epoch=epoch, step=last_step, elapsed_s=None, value=window.loss)


def _steps_per_epoch(record: Record) -> int | None:
    steps, epochs = record.metrics.steps, record.metrics.epochs
    if isinstance(steps, Missing) or isinstance(epochs, Missing) or epochs <= 0:
        return None
    return round(steps / epochs) or None


def _axis_problem(axis: Axis, runs: Sequence[RunPoints]) -> str | None:
    """Return why runs cannot share an axis, or ``None`` if they can."""
    if axis == "time":
        timed = all(point.elapsed_s is not None for run in runs for point in run.points)
        return None if timed else "the time of a training loss is not recorded"
    if axis == "epoch":
        for run in runs:
            epochs = [point.epoch for point in run.points]
            if None in epochs:
                return f"run {run.record.run_id} does not state how many steps an epoch has"
            if len(set(epochs)) < len(epochs):
                return f"run {run.record.run_id} has several points in one epoch"
        return None
    counts: dict[int | None, str] = {}
    for run in runs:
        counts.setdefault(_steps_per_epoch(run.record), run.record.run_id)
    if len(runs) > 1 and None in counts:
        return f"run {counts[None]} does not state how many steps an epoch has"
    if len(counts) > 1:
        return "an epoch has " + ", ".join(f"{count} steps in run {run_id}" for count, run_id in counts.items())
    return None
