"""Trends: the throughputs of one row of a report over time, with the steps between its runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from chipperf.documents.format import number
from chipperf.records.columns import WINDOWED
from chipperf.records.ratios import TOLERANCE, ratio_of_windows, verdict

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence
    from datetime import datetime

    from chipperf.records.ratios import Verdict
    from chipperf.web.board import Board, PageCell, RunRow
    from chipperf.web.trend_inputs import Measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A step of one throughput: the ratio to the point before, and the ends of its interval."""

    name: str
    verdict: Verdict
    ratio: float
    low: float
    high: float

    @property
    def text(self) -> str:
        """For example ``▼ p_core 0.92 (0.91 to 0.93)``, in signs that every language has."""
        sign = "▲" if self.verdict == "higher" else "▼"
        return f"{sign} {self.name} ×{self.ratio:.3f} ({self.low:.3f}…{self.high:.3f})"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrendPoint:
    """A run of a trend; ``is_changed`` tells for driver, SDK and plugin whether each it differs from the run before."""

    run: RunRow
    measured: Measured
    values: tuple[str, ...]
    is_changed: tuple[bool, ...]
    steps: tuple[Step, ...]

    @property
    def directions(self) -> tuple[str, ...]:
        """For each of the windowed throughputs ``higher``, ``lower``, or an empty text without a step."""
        verdicts = {step.name: step.verdict for step in self.steps}
        return tuple(verdicts.get(name, "") for name in WINDOWED)


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
    before: list[Measured | None] = [None] * len(WINDOWED)
    for row, measured in sorted(((row, row.measured) for row in rows if row.measured), key=_order):
        former = points[-1].measured.software if points else measured.software
        points.append(
            TrendPoint(
                run=row,
                measured=measured,
                values=tuple("-" if each is None else str(number(each)) for each in measured.medians),
                is_changed=tuple(one != other for one, other in zip(measured.software, former, strict=True)),
                steps=tuple(step for place in range(len(WINDOWED)) if (step := _step(measured, before[place], place))),
            )
        )
        before = [measured if measured.windows[place] else other for place, other in enumerate(before)]
    first = points[0].run
    return Trend(label=first.label, fix_hp=first.cells[-1], points=tuple(points))


def _order(run: tuple[RunRow, Measured]) -> tuple[datetime, str]:
    return run[1].created, run[0].run_id


def _step(measured: Measured, before: Measured | None, place: int) -> Step | None:
    """Return the step of a throughput from the run before, or ``None`` without one, as a comparison finds it."""
    value, base = measured.medians[place], before.medians[place] if before else None
    # The interval contains the ratio, so it cannot lie beyond the tolerance if the ratio does not.
    if before is None or not value or not base or abs(value / base - 1) <= TOLERANCE:
        return None
    interval = ratio_of_windows(measured.windows[place], before.windows[place])
    found = verdict(interval) if interval else "no_difference"
    if interval is None or found == "no_difference":
        return None
    return Step(name=WINDOWED[place], verdict=found, ratio=value / base, low=interval.low, high=interval.high)
