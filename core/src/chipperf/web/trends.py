"""Trends: the throughputs of one row of a report over time, with the steps between its runs."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from chipperf.documents.format import number
from chipperf.records.ratios import TOLERANCE, ratio_of_windows, verdict
from chipperf.web.trend_inputs import RATES

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence
    from datetime import datetime

    from chipperf.records.ratios import Verdict
    from chipperf.web.board import Board, PageCell, RunRow
    from chipperf.web.trend_inputs import Measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A step of one throughput: the ratio to an earlier run, and the ends of its interval.

    ``since`` is the date of that run: the one before, or if there is no step from it, the first since the last step,
    from which many small differences may have led away.
    """

    name: str
    verdict: Verdict
    ratio: float
    low: float
    high: float
    since: datetime

    @property
    def text(self) -> str:
        """For example ``▼ p_core ×0.920 (0.910…0.930) ← 2026-01-01``, in signs that every language has."""
        sign = "▲" if self.verdict == "higher" else "▼"
        return f"{sign} {self.name} ×{self.ratio:.3f} ({self.low:.3f}…{self.high:.3f}) ← {self.since:%Y-%m-%d %H:%M}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrendPoint:
    """A run of a trend; ``is_changed`` tells for driver, SDK and plugin whether it differs from the run before."""

    run: RunRow
    measured: Measured
    values: tuple[str, ...]
    is_changed: tuple[bool, ...]
    steps: tuple[Step, ...]

    @property
    def directions(self) -> tuple[str, ...]:
        """For each throughput ``higher``, ``lower``, or an empty text without a step."""
        verdicts = {step.name: step.verdict for step in self.steps}
        return tuple(verdicts.get(column.name, "") for column in RATES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """The completed runs of one row, the oldest first, with the row's differences from the case's base."""

    label: str
    fix_hp: PageCell
    points: tuple[TrendPoint, ...]

    @property
    def steps(self) -> int:
        """Number of steps."""
        return sum(len(point.steps) for point in self.points)


def find_trends(board: Board) -> tuple[Trend, ...]:
    """Return a trend for each row of a board that has at least two completed runs."""
    groups: dict[Hashable, list[RunRow]] = {}
    for row in board.rows:
        if row.measured:
            groups.setdefault(row.measured.row, []).append(row)
    found = [_trend(group) for group in groups.values() if len(group) > 1]
    return tuple(sorted(found, key=lambda trend: trend.label))


def _trend(rows: Sequence[RunRow]) -> Trend:
    points: list[TrendPoint] = []
    runs = sorted(((row, row.measured) for row in rows if row.measured), key=_order)
    steps = zip(*(_steps(place, [measured for _, measured in runs]) for place in range(len(RATES))), strict=True)
    for place, ((row, measured), found) in enumerate(zip(runs, steps, strict=True)):
        former = runs[max(0, place - 1)][1].software
        points.append(
            TrendPoint(
                run=row,
                measured=measured,
                values=tuple("-" if each is None else str(number(each)) for each in row.throughputs),
                is_changed=tuple(one != other for one, other in zip(measured.software, former, strict=True)),
                steps=tuple(step for step in found if step),
            )
        )
    first = points[0].run
    return Trend(label=first.label, fix_hp=first.cells[-1], points=tuple(points))


def _order(run: tuple[RunRow, Measured]) -> tuple[datetime, str]:
    return run[1].created, run[0].run_id


def _steps(place: int, runs: Sequence[Measured]) -> Iterator[Step | None]:
    """Yield for each run the step of one of :data:`RATES`, or ``None`` without one."""
    start: Measured | None = None
    before: Measured | None = None
    for run in runs:
        step = _step(place, run, before) or (_step(place, run, start) if start is not before else None)
        yield step
        if run.windows[place]:
            start, before = run if step or start is None else start, run


def _step(place: int, run: Measured, base: Measured | None) -> Step | None:
    """Return the step of a throughput from another run, or ``None`` without one, as a comparison finds it."""
    if base is None or not run.windows[place]:
        return None
    values, base_values = run.windows[place], base.windows[place]
    ratio = median(values) / median(base_values)
    # The interval contains the ratio, so it cannot lie beyond the tolerance if the ratio does not.
    interval = ratio_of_windows(values, base_values) if abs(ratio - 1) > TOLERANCE else None
    if interval is None or verdict(interval) == "no_difference":
        return None
    name = RATES[place].name
    return Step(
        name=name, verdict=verdict(interval), ratio=ratio, low=interval.low, high=interval.high, since=base.created
    )
