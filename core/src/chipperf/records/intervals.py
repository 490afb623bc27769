"""Bootstrap confidence intervals over repeats and their measurement windows; deterministic, without numpy.

The bootstrap is hierarchical: it draws repeats with replacement, and then windows within each drawn repeat. Intervals
are percentile intervals (Efron and Tibshirani, *An Introduction to the Bootstrap*, 1993, chapter 13). Windows that
follow each other are alike, so only as many are drawn as independent windows would give the same information; few
repeats and few windows are moved apart. docs/compare.md has the method with its sources, and
``benchmarks/interval_coverage.py`` its coverage.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Final

LEVEL: Final = 0.95
RESAMPLES: Final = 2000

_HIGHEST_AUTOCORRELATION: Final = 0.97
_FEWEST_INDEPENDENT: Final = 1.5
"""Least number of independent windows: with fewer, a run would have no interval that says anything."""
_LARGEST_RATIO: Final = 1e50
"""Bound of a ratio to a median, so that its fourth power is a number. Higher powers do not occur."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A confidence interval: its ends, its level as a fraction, and its number of resamples."""

    low: float
    high: float
    level: float = LEVEL
    resamples: int = RESAMPLES


def varies(repeats: Sequence[Sequence[float]]) -> bool:
    """Return whether there is more than one value to draw from."""
    return len(repeats) > 1 or any(len(windows) > 1 for windows in repeats)


def resample(
    repeats: Sequence[Sequence[float]], combine: Callable[[Sequence[float]], float], *, seed: str
) -> list[float]:
    """Return :data:`RESAMPLES` bootstrap resamples of the result; the same seed gives the same values.

    Args:
        repeats: For each repeat, the values of its windows in the order of time, or its single value; none is empty.
        combine: Combines the medians of the drawn repeats into one result.
    """
    rng = random.Random(seed)
    drawn_from = [_drawn_from(windows) for windows in repeats]
    medians = [[_median(*each, rng) for _ in range(RESAMPLES)] for each in drawn_from]
    if len(medians) == 1:
        return medians[0]
    middles = [median(windows) for windows in repeats]
    moved = _move_apart(medians, middles, combine(middles))
    return [combine([rng.choice(rng.choice(moved)) for _ in moved]) for _ in range(RESAMPLES)]


def ratio_interval(values: Sequence[float], base: Sequence[float]) -> Interval | None:
    """Return the interval of the ratio of two results from their resamples, or ``None`` if an end is not finite."""
    if not all(base):
        return None
    ratios = sorted(value / other for value, other in zip(values, base, strict=True))
    outside = round(len(ratios) * (1 - LEVEL) / 2)
    low, high = ratios[outside], ratios[-outside - 1]
    return Interval(low=low, high=high) if math.isfinite(low) and math.isfinite(high) else None


def independent_windows(windows: Sequence[float]) -> float:
    """Return how many independent windows say as much about the median as these, which are in the order of time.

    The windows count as a Gaussian AR(1) process. The variance of its median depends on the autocorrelation of the
    signs of its deviations, which is ``2 / pi * asin(r ** lag)``.
    """
    n, mean = len(windows), fmean(windows)
    deviations = [value - mean for value in windows]
    variance = sum(each * each for each in deviations)
    if not 0 < variance < math.inf:
        return n
    found = sum(one * following for one, following in zip(deviations, deviations[1:], strict=False)) / variance
    # The estimate is too low by (1 + 3 r) / n (Kendall 1954).
    r = max(0, min((n * found + 1) / max(1, n - 3), _HIGHEST_AUTOCORRELATION))
    return n / (1 + 4 / math.pi * sum(math.asin(r**lag) for lag in range(1, n)))


def _drawn_from(windows: Sequence[float]) -> tuple[list[float], int]:
    """Return the windows of a repeat in ascending order, and how many of them to draw.

    If the windows are alike, few of them count as independent. They are then moved away from their median: by ratios,
    so that rates stay positive.
    """
    n, middle = len(windows), median(windows)
    if n == 1 or not 0 < middle < math.inf:
        return sorted(windows), n
    ratios = [_bounded(value / middle) if value > 0 else 0.0 for value in windows]
    independent = max(_FEWEST_INDEPENDENT, independent_windows(ratios))
    if independent == n:
        return sorted(windows), n
    draws = min(n, max(2, round(independent)))
    # Few independent windows make their own number uncertain, and few draws differ too little.
    power = 1 + 1 / (independent - 0.5) - 1 / (n - 0.5)
    if draws < n:
        power *= math.sqrt((draws + 1) / (draws - 1))
    return [middle * ratio**power for ratio in sorted(ratios)], draws


def _move_apart(medians: list[list[float]], middles: Sequence[float], center: float) -> list[list[float]]:
    """Return the drawn medians of each repeat with the repeats' distances from ``center`` put right.

    The distances are partly those of the windows, which the drawn medians have already; the rest is moved apart as far
    as few values need.
    """
    if not (0 < center < math.inf and min(middles) > 0):
        return medians
    ratios = [_bounded(middle / center) for middle in middles]
    others = len(ratios) - 1
    found = _variance(ratios) * len(ratios) / others
    if not found:
        return medians
    within = fmean(_variance([min(value / center, _LARGEST_RATIO) for value in drawn]) for drawn in medians)
    # Draws of so few values differ too little, and so few values make their own variance uncertain.
    power = math.sqrt(max(0, 1 - within / found) * len(ratios) / others) * (1 + 0.6 / others)
    return [[value * ratio ** (power - 1) for value in drawn] for drawn, ratio in zip(medians, ratios, strict=True)]


def _bounded(ratio: float) -> float:
    return max(1 / _LARGEST_RATIO, min(ratio, _LARGEST_RATIO))


def _variance(values: Sequence[float]) -> float:
    mean = fmean(values)
    return fmean((value - mean) ** 2 for value in values)


def _median(ordered: Sequence[float], draws: int, rng: random.Random) -> float:
    """Return the median of values drawn with replacement from the n values of ``ordered``.

    A draw is ``ordered[floor(n * u)]`` with u uniform. So the m-th smallest of the draws comes from the m-th smallest
    u, which has the Beta(m, draws + 1 - m) distribution. This takes the same time for five windows and for ten
    thousand.
    """
    n = len(ordered)
    if n == 1:
        return ordered[0]
    middle = (draws + 1) // 2
    lower = rng.betavariate(middle, draws + 1 - middle)
    first = ordered[min(int(n * lower), n - 1)]
    if draws % 2:
        return first
    # The next uniform is the smallest of the draws - middle uniforms above it.
    upper = 1 - (1 - lower) * rng.random() ** (1 / (draws - middle))
    return first / 2 + ordered[min(int(n * upper), n - 1)] / 2
