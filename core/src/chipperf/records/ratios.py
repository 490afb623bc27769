"""Ratios of a reported value between groups of repeats, with their confidence intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from chipperf.records.consistency import differing_from_windows
from chipperf.records.intervals import ratio_interval, resample, varies
from chipperf.records.repeats import combine
from chipperf.records.schema import Missing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chipperf.records.columns import Column
    from chipperf.records.intervals import Interval
    from chipperf.records.schema import Record, Throughput

TOLERANCE: Final = 0.02
"""Distance from 1, as a fraction, within which an interval shows no difference."""

Verdict = Literal["higher", "lower", "no_difference"]


def drawn_from(column: Column, record: Record) -> list[float]:
    """Return the values of a run for the bootstrap: the rates of its windows, or its single value."""
    throughput = column.throughput(record)
    if throughput:
        return [window.samples_per_s for window in throughput.timed_windows] or [throughput.median]
    value = column.value(record)
    return [] if isinstance(value, Missing) else [float(value)]


def follows_from_windows(throughput: Throughput | None) -> bool:
    """Return whether a throughput is that of its windows."""
    return throughput is None or not any(differing_from_windows(throughput))


def verdict(interval: Interval) -> Verdict:
    """Return the meaning of an interval for its ratio."""
    if interval.low > 1 + TOLERANCE:
        return "higher"
    return "lower" if interval.high < 1 - TOLERANCE else "no_difference"


def ratio_of_windows(values: Sequence[float], base: Sequence[float]) -> Interval | None:
    """Return the interval of the ratio of two runs from their windows, or ``None`` if a run has only one value."""
    if not (varies([values]) and varies([base])):
        return None
    first, second = (resample([side], combine, seed=str(place)) for place, side in enumerate((base, values)))
    return ratio_interval(second, first)
