"""The regression gate: whether a run keeps the bounds that are set to its ratios to a baseline.

A bound is kept if the whole confidence interval of the ratio keeps it, and broken if the whole interval lies beyond.
Otherwise nothing is decided, and more repeats are needed. ``benchmarks/gate_error_rates.py`` shows how often that errs.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING, Final

from chipperf.compare.requirements import MOST_REPEATS, SENSIBLE, Judgment
from chipperf.documents.format import text_or_marker
from chipperf.errors import UsageError
from chipperf.records.columns import BY_NAME, completed_value
from chipperf.records.intervals import LEVEL
from chipperf.records.repeats import ENOUGH_REPEATS
from chipperf.records.schema import Missing
from chipperf.report.comparability import SAME_ROW, require_one, require_same
from chipperf.report.row import fix_hp

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from chipperf.cases.base import Case
    from chipperf.compare.comparison import Comparison
    from chipperf.compare.requirements import RequiredRatio, Verdict
    from chipperf.compare.sides import Side
    from chipperf.records.columns import Column
    from chipperf.records.intervals import Interval
    from chipperf.records.schema import Record

POWER: Final = 0.8
"""Probability with which the stated number of repeats decides, if the true ratio is the one that was found."""

_NORMAL: Final = NormalDist()
_END: Final = _NORMAL.inv_cdf((1 + LEVEL) / 2)
_NARROWER: Final = ((_END + _NORMAL.inv_cdf(POWER)) / _END) ** 2
"""Factor of the number of repeats: with only those that bring the end to the bound, half of all gates would decide."""

_MEASURED_PRECISIONS: Final[Mapping[str, Callable[[Record], object]]] = {
    "measured precisions of matrix products": lambda record: record.precision.measured_matmul,
    "measured precisions of convolutions": lambda record: record.precision.measured_convolution,
}


def judge(comparison: Comparison, requirements: Sequence[RequiredRatio]) -> tuple[Judgment, ...]:
    """Return what each requirement's interval says of each column after the first, the baseline.

    Raises:
        UsageError: The columns are not runs of one row, a value is missing, a repeat did not complete, or a value does
            not follow from its windows: no interval would mean anything.
    """
    columns = comparison.columns
    if len(columns) < 2:
        raise UsageError("the baseline and the run are the same record", hint="name the baseline, then another run")
    records = [record for column in columns for record in column.records]
    _require_one_row(records, comparison.case)
    _require_apart(columns)
    for column in columns:
        if len(column.records) < column.planned:
            raise UsageError(
                f"only {len(column.records)} of {column.planned} repeats in {column.source} completed, and those that "
                "did may be the better ones",
                hint="complete them: perf train --resume, or repeat the run",
            )
    for measure in (BY_NAME[requirement.measure] for requirement in requirements):
        _require_one_source(measure, columns)
        _require_own_windows(measure, records)
    return tuple(
        _judge(requirement, comparison, place) for requirement in requirements for place in range(1, len(columns))
    )


def _require_one_row(records: Sequence[Record], case: Case) -> None:
    hint = (
        "compare with a baseline of the same configuration; without --at-least and --at-most, perf compare shows both"
    )
    for fact in SAME_ROW:
        require_same(fact, records, hint=hint)
    require_one(
        "changed hyperparameters", (text_or_marker(fix_hp(record, case), "en") for record in records), hint=hint
    )
    for plural, measured in _MEASURED_PRECISIONS.items():
        # Of an older record it is not known.
        known = (value for record in records if isinstance(value := measured(record), str))
        require_one(plural, known, hint=hint)


def _require_apart(columns: Sequence[Side]) -> None:
    owners: dict[str, int] = {}
    for place, column in enumerate(columns, start=1):
        for record in column.records:
            if owners.setdefault(record.run_id, place) != place:
                raise UsageError(
                    f"run {record.run_id} is on both sides of the comparison",
                    hint="a run says nothing about itself: name other runs",
                )


def _require_own_windows(column: Column, records: Sequence[Record]) -> None:
    """Check that no two runs have the same windows, which chance does not give: one is a copy of the other."""
    owners: dict[tuple[float, ...], str] = {}
    for record in records:
        times = (
            tuple(window.seconds for window in throughput.windows) if (throughput := column.throughput(record)) else ()
        )
        if times and owners.setdefault(times, record.run_id) != record.run_id:
            raise UsageError(
                f"runs {owners[times]} and {record.run_id} have the same windows of {column.name} to the last digit",
                hint="one is a copy of the other: name runs that were measured",
            )


def _require_one_source(column: Column, columns: Sequence[Side]) -> None:
    """Check that all runs have a value, read in one way: a peak of the allocator is not one of the device."""
    sources = set()
    for record in (record for each in columns for record in each.records):
        path, value = column.find(record)
        value = completed_value(record, value)
        if isinstance(value, Missing):
            raise UsageError(
                f"run {record.run_id} has no {column.name}: {text_or_marker(value, 'en')}"
                f"{f' ({value.reason})' if value.reason and value.missing != 'failed' else ''}",
                hint="run it again, or leave the requirement out",
            )
        if value <= 0:
            raise UsageError(
                f"run {record.run_id} has {column.name} {value:g}, for which there is no ratio",
                hint="run it again, or leave the requirement out",
            )
        sources.add(path)
    require_one(f"sources of {column.name}", sources, hint="compare with a baseline that was read in the same way")


def _judge(requirement: RequiredRatio, comparison: Comparison, place: int) -> Judgment:
    measure = next(each for each in comparison.measures if each.name == requirement.measure)
    base, cell = measure.cells[0], measure.cells[place]
    single = any(each.repeats == 1 and each.windows < 2 for each in (base, cell))
    if cell.ratio is None or (cell.interval is None and not single):
        raise UsageError(
            f"the ratio of {measure.name} of column {place + 1} has no interval: {cell.no_interval}",
            hint="run it again: what was measured in windows must follow from them",
        )
    found, repeats = decide(requirement, cell.interval), (base.repeats, cell.repeats)
    if found == "met" and not SENSIBLE[0] <= cell.ratio <= SENSIBLE[1]:
        raise UsageError(
            f"{measure.name} of column {place + 1} is {cell.ratio:.4g} times the baseline's, which cannot be right",
            hint="look at both: perf show RUN",
        )
    return Judgment(
        requirement=requirement,
        column=place + 1,
        ratio=cell.ratio,
        interval=cell.interval,
        verdict=found,
        repeats=repeats,
        enough_repeats=enough_repeats(requirement, cell.ratio, cell.interval, repeats)
        if found == "undecided"
        else None,
    )


def decide(requirement: RequiredRatio, interval: Interval | None) -> Verdict:
    """Return whether a whole interval keeps a bound or lies beyond it; without an interval, nothing is decided."""
    if interval is None:
        return "undecided"
    low, high, bound = interval.low, interval.high, requirement.ratio
    is_met, is_broken = (
        (low >= bound, high < bound) if requirement.bound == "at_least" else (high <= bound, low > bound)
    )
    return "met" if is_met else "not_met" if is_broken else "undecided"


def enough_repeats(
    requirement: RequiredRatio, ratio: float, interval: Interval | None, repeats: tuple[int, int]
) -> tuple[int, int] | None:
    """Return numbers of repeats that are likely to decide, or ``None`` if more than :data:`MOST_REPEATS` would be.

    An interval's half shrinks with the root of the number of repeats. Without an interval, nothing is known about the
    spread, and the numbers are the smallest that show something of it.
    """
    if interval is None:
        return _at_least(repeats, 1.0)
    end = interval.high if ratio < requirement.ratio else interval.low
    distance = abs(ratio - requirement.ratio)
    factor = _NARROWER * ((end - ratio) / distance) ** 2 if distance else math.inf
    return _at_least(repeats, factor) if max(repeats) * factor <= MOST_REPEATS else None


def _at_least(repeats: tuple[int, int], factor: float) -> tuple[int, int]:
    base, other = (max(ENOUGH_REPEATS, math.ceil(count * factor)) for count in repeats)
    return base, other
