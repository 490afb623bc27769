"""Bootstrap of a result over its repeats and, within each, its measurement windows; deterministic, without numpy.

The bootstrap is hierarchical: repeats are drawn with replacement, and of each drawn one its windows. Intervals are
percentile intervals (Efron and Tibshirani, *An Introduction to the Bootstrap*, 1993, chapter 13).
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LEVEL: Final = 0.95
RESAMPLES: Final = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A confidence interval: its ends, its level as a fraction, and how many resamples it is made of."""

    low: float
    high: float
    level: float = LEVEL
    resamples: int = RESAMPLES


def varies(repeats: Sequence[Sequence[float]]) -> bool:
    """Tell whether there is more than one value to draw from."""
    return len(repeats) > 1 or any(len(windows) > 1 for windows in repeats)


def resample(
    repeats: Sequence[Sequence[float]], combine: Callable[[Sequence[float]], float], *, seed: str
) -> list[float]:
    """Return what the result might as well have been, :data:`RESAMPLES` times.

    Args:
        repeats: For each repeat the values of its windows, or its one value; none is empty.
        combine: Makes one result of the medians of as many repeats.
        seed: The same seed gives the same values.
    """
    rng = random.Random(seed)
    ordered = [sorted(windows) for windows in repeats]
    if len(ordered) == 1:
        return [_median(ordered[0], rng) for _ in range(RESAMPLES)]
    return [combine([_median(rng.choice(ordered), rng) for _ in ordered]) for _ in range(RESAMPLES)]


def ratio_interval(values: Sequence[float], base: Sequence[float]) -> Interval | None:
    """Return the interval of the ratio of two results from their resamples; ``None`` if it has no finite ends."""
    if not all(base):
        return None
    ratios = sorted(value / other for value, other in zip(values, base, strict=True))
    outside = round(len(ratios) * (1 - LEVEL) / 2)
    low, high = ratios[outside], ratios[-outside - 1]
    return Interval(low=low, high=high) if math.isfinite(low) and math.isfinite(high) else None


def _median(ordered: Sequence[float], rng: random.Random) -> float:
    """Return the median of as many values drawn from ``ordered`` with replacement.

    A draw is ``ordered[floor(n * u)]`` with u uniform, so the m-th smallest of n draws is that of the m-th smallest u,
    which has the Beta(m, n + 1 - m) distribution. That takes the same time for five windows and for ten thousand.
    """
    n = len(ordered)
    if n == 1:
        return ordered[0]
    middle = (n + 1) // 2
    lower = rng.betavariate(middle, n + 1 - middle)
    first = ordered[min(int(n * lower), n - 1)]
    if n % 2:
        return first
    # The next one is the smallest of the n - middle uniforms above it.
    upper = 1 - (1 - lower) * rng.random() ** (1 / (n - middle))
    return first / 2 + ordered[min(int(n * upper), n - 1)] / 2
