"""Measurement windows: combination over ranks, and statistics.

The device is synchronized only at the edges of windows. Warm-up steps are not measured.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from chipperf.records.schema import Spread, Window

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


def spread(durations_s: Sequence[float]) -> Spread | None:
    """Return percentiles and coefficient of variation of step durations, or ``None`` if there are none."""
    if not durations_s:
        return None
    ordered = sorted(durations_s)
    mean_s = statistics.fmean(ordered)
    # Nearest ranks.
    p50_s, p90_s, p99_s = (ordered[math.ceil(fraction * len(ordered)) - 1] for fraction in (0.50, 0.90, 0.99))
    cv = statistics.pstdev(ordered) / mean_s if mean_s > 0 else 0.0
    return Spread(p50_s=p50_s, p90_s=p90_s, p99_s=p99_s, cv=cv)
