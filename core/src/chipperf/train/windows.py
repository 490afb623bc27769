"""Measurement windows: combination over ranks, and statistics.

The device is synchronized only at the edges of windows. Warm-up steps are not measured.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from chipperf.records.schema import MINIMUM_WINDOWS, Spread, Throughput, Window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chipperf.run.collectives import Collectives

WindowKind = Literal["measured", "warmup", "restart"]
"""``warmup``: warm-up of a run. ``restart``: warm-up of a resumed run. Only ``measured`` counts for the throughput."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalWindow:
    """One rank's part of a window, with its own samples and its own time in nanoseconds."""

    epoch: int
    first_step: int
    steps: int
    samples: int
    nanoseconds: int
    loss: float
    kind: WindowKind = "measured"


def combine_windows(windows: Sequence[LocalWindow], collectives: Collectives) -> list[Window]:
    """Combine windows over ranks: sum of samples, time of the slowest rank, average of losses."""
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

    The cross-check ``mean_of_totals`` is total samples over total time, not an average of rates.
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
    return Spread(
        p50_s=_percentile(ordered, 0.50),
        p90_s=_percentile(ordered, 0.90),
        p99_s=_percentile(ordered, 0.99),
        cv=statistics.pstdev(ordered) / mean_s if mean_s > 0 else 0.0,
    )


def _percentile(ordered: Sequence[float], fraction: float) -> float:
    """Return the nearest-rank percentile."""
    return ordered[max(0, math.ceil(fraction * len(ordered)) - 1)]
