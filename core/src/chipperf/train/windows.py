"""Measurement windows: when they open and close, and what is computed from them.

A window's edges are the only places where the device is synchronized. Warm-up steps are in no window.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from chipperf.records.schema import Spread, Throughput, Window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chipperf.run.collectives import Collectives

MINIMUM_WINDOWS = 5
"""Below this many windows a median and its spread say little, and no throughput is reported."""


WindowKind = Literal["measured", "warmup", "restart"]
"""``warmup`` is that of the run, ``restart`` that of a resumed one; only other times say how fast it trains."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalWindow:
    """One rank's view of a window: its own samples and its own time, in nanoseconds."""

    epoch: int
    first_step: int
    steps: int
    samples: int
    nanoseconds: int
    loss: float
    kind: WindowKind = "measured"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedWindow:
    """A window before it runs: the optimizer steps that are done when it opens, and when it closes."""

    start: int
    end: int
    is_warmup: bool


def segment_around(step: int, *, steps_per_epoch: int, last_step: int, every: Sequence[int]) -> tuple[int, int]:
    """Return between which steps training is not interrupted by anything else, around the step after ``step``.

    Windows are planned within it, so that they end where an epoch does, or before an evaluation or a checkpoint. It
    depends on the schedule alone: a resumed run finds the windows of the one that stopped.

    Args:
        step: Optimizer steps that are done.
        steps_per_epoch: Steps of an epoch.
        last_step: Steps of the whole run.
        every: Intervals in steps after which something happens; 0 is never.
    """
    intervals = [steps_per_epoch, *(interval for interval in every if interval)]
    start = max(step // interval * interval for interval in intervals)
    end = min(step // interval * interval + interval for interval in intervals)
    return start, min(end, last_step)


def plan_windows(start: int, end: int, *, warmup_steps: int, window_steps: int) -> list[PlannedWindow]:
    """Divide the steps from ``start`` to ``end`` into windows, with one of its own for the first ``warmup_steps``.

    Args:
        start: Optimizer steps that are done at its beginning.
        end: Optimizer steps that are done at its end.
        warmup_steps: Steps at the beginning of the run that are not measured.
        window_steps: Largest length of a window.
    """
    warm = min(max(start, warmup_steps), end)
    windows = [PlannedWindow(start=start, end=warm, is_warmup=True)] if warm > start else []
    for length in plan_window_lengths(end - warm, window_steps):
        windows.append(PlannedWindow(start=warm, end=warm + length, is_warmup=False))
        warm += length
    return windows


def plan_window_lengths(steps: int, window_steps: int) -> list[int]:
    """Split ``steps`` consecutive steps into windows of nearly equal length, at most ``window_steps`` each.

    Every step is in exactly one window, so that total samples over total time can check the median.
    """
    if steps <= 0:
        return []
    # Rounded up: fewer windows than fitting_window_steps counted on could be too few for a median.
    count = math.ceil(steps / window_steps)
    shortest, longer = divmod(steps, count)
    return [shortest + (index < longer) for index in range(count)]


def fitting_window_steps(wanted: int, total_steps: int, warmup_steps: int) -> int:
    """Return the window length, at most ``wanted``, with which :data:`MINIMUM_WINDOWS` fit into a short run."""
    return max(1, min(wanted, (total_steps - warmup_steps) // MINIMUM_WINDOWS))


def combine_windows(windows: Sequence[LocalWindow], collectives: Collectives) -> list[Window]:
    """Combine windows over ranks: samples add up, the slowest rank's time counts, losses are averaged."""
    samples = collectives.sum_counts([window.samples for window in windows])
    nanoseconds = collectives.max_counts([window.nanoseconds for window in windows])
    losses = collectives.mean([window.loss for window in windows])
    return [
        Window(
            epoch=window.epoch,
            first_step=window.first_step,
            steps=window.steps,
            samples=total,
            seconds=slowest / 1e9,
            loss=loss if math.isfinite(loss) else None,
        )
        for window, total, slowest, loss in zip(windows, samples, nanoseconds, losses, strict=True)
    ]


def throughput(windows: Sequence[Window]) -> Throughput | None:
    """Return the median throughput with its interquartile range, or ``None`` for too few windows.

    Rates are never averaged: the cross-check ``mean_of_totals`` is total samples over total time.
    """
    if len(windows) < MINIMUM_WINDOWS:
        return None
    rates = sorted(window.samples_per_s for window in windows)
    first, _, third = statistics.quantiles(rates, n=4, method="inclusive")
    return Throughput(
        median=statistics.median(rates),
        iqr=third - first,
        mean_of_totals=sum(window.samples for window in windows) / sum(window.seconds for window in windows),
        windows=list(windows),
    )


def spread(durations_s: Sequence[float]) -> Spread | None:
    """Return percentiles and coefficient of variation of step durations, or ``None`` if there are none."""
    if not durations_s:
        return None
    ordered = sorted(durations_s)
    mean_s = statistics.fmean(ordered)
    deviation_s = statistics.pstdev(ordered)
    return Spread(
        p50_s=_percentile(ordered, 0.50),
        p90_s=_percentile(ordered, 0.90),
        p99_s=_percentile(ordered, 0.99),
        cv=deviation_s / mean_s if mean_s > 0 else 0.0,
    )


def _percentile(ordered: Sequence[float], fraction: float) -> float:
    """Return the nearest-rank percentile."""
    return ordered[max(0, math.ceil(fraction * len(ordered)) - 1)]
