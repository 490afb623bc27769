"""Comparing runs: the values of each, their ratios to the first, and confidence intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from chipperf.cases.registry import find_case
from chipperf.compare.footnotes import Footnote, footnotes
from chipperf.compare.intervals import Interval, ratio_interval, resample, varies
from chipperf.compare.setting_differences import DifferentSetting, different_settings
from chipperf.compare.sides import Side
from chipperf.errors import UsageError
from chipperf.records.columns import columns_of
from chipperf.records.convergence import Outcome, convergence_outcome
from chipperf.records.plausibility import differing_from_windows
from chipperf.records.repeats import aggregate, combine
from chipperf.records.scaling import efficiency, scaling_identity
from chipperf.records.schema import Missing
from chipperf.report.comparability import require_comparable
from chipperf.report.curves import MINIMUM_POINTS, CurveRuns, build_curves, read_points
from chipperf.report.row import completed_value
from chipperf.report.row_identity import curve_names, group_repeats
from chipperf.report.tracing import record_digest

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

    from chipperf.cases.base import Case
    from chipperf.compare.footnotes import PeakOf
    from chipperf.records.columns import Column, Unit
    from chipperf.records.schema import Number, Record
    from chipperf.report.curves import Axis, Curves, Quantity

TOLERANCE: Final = 0.02
"""Distance from 1, as a fraction, within which an interval shows no difference."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedValue:
    """One metric of one column.

    Attributes:
        value: Value of the run, or the result of its repeats.
        lowest: Lowest value of the repeats; ``None`` for a single run.
        highest: Highest value of the repeats; ``None`` for a single run.
        repeats: Number of runs.
        windows: Number of measurement windows of all repeats; 0 without windows.
        ratio: Ratio to the first column's value; ``None`` if one of the two is missing, the first is 0, or the metric
            is a quality, whose ratio has no meaning.
        interval: Confidence interval of the ratio.
        no_interval: The reason if a ratio to another column has no interval.
        verdict: Meaning of the interval for the ratio.
    """

    value: Number
    lowest: float | None
    highest: float | None
    repeats: int
    windows: int
    ratio: float | None
    interval: Interval | None
    no_interval: str | None
    verdict: Literal["higher", "lower", "no_difference"] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedMeasure:
    """One metric of all columns.

    Attributes:
        name: The metric, as in ``docs/metrics.md``.
        unit: Unit of its values; ``fraction`` for a quality.
        higher_is_better: Whether a higher value is better.
        cells: The value in every column.
    """

    name: str
    unit: Unit
    higher_is_better: bool
    cells: tuple[ComparedValue, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """Scaling efficiency of a column relative to a base column with fewer devices. Columns are counted from 1."""

    efficiency: float
    base: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A comparison of runs.

    Attributes:
        case: Case of all runs.
        columns: The runs, in the given order.
        names: Name of each column.
        outcomes: Outcome of each run of each column.
        measures: The metrics of the columns.
        scaling: Efficiency of every column that is a scaling pair with a column of fewer devices.
        settings: Settings that differ between the columns.
        footnotes: Footnotes.
    """

    case: Case
    columns: tuple[Side, ...]
    names: tuple[str, ...]
    outcomes: tuple[tuple[Outcome, ...], ...]
    measures: tuple[ComparedMeasure, ...]
    scaling: tuple[Scaling | None, ...]
    settings: tuple[DifferentSetting, ...]
    footnotes: tuple[Footnote, ...]

    @property
    def records(self) -> tuple[Record, ...]:
        """The runs of all columns, each once."""
        runs = {record_digest(record): record for column in self.columns for record in column.records}
        return tuple(runs.values())


def compare_runs(records: Sequence[Record]) -> Comparison:
    """Compare single runs, see :func:`compare_columns`."""
    return compare_columns([Side(records=(record,)) for record in records])


def compare_columns(columns: Sequence[Side], *, peak_of: PeakOf = lambda record: None) -> Comparison:
    """Compare columns. Duplicate columns count once.

    Args:
        columns: Runs of any vendors, precisions and topologies, and rows of documents.
        peak_of: Returns the peak rate of a run's device, if known.

    Raises:
        UsageError: There are no columns, their results cannot be compared (see
            :func:`~chipperf.report.comparability.require_comparable`), or repeats differ in more than their seed.
    """
    if not columns:
        raise UsageError("there are no runs to compare", hint="name run directories")
    require_comparable([record for column in columns for record in column.records])
    case = find_case(columns[0].first.case.name)
    distinct = tuple({tuple(map(record_digest, column.records)): column for column in columns}.values())
    for column in distinct:
        _require_repeats(column, case)
    measures = tuple(_measure(measure, distinct) for measure in columns_of("comparison"))
    p_train = next(each for each in measures if each.name == "p_train")
    return Comparison(
        case=case,
        columns=distinct,
        names=tuple(curve_names([column.first for column in distinct], case)),
        outcomes=tuple(tuple(convergence_outcome(record) for record in column.records) for column in distinct),
        measures=measures,
        scaling=tuple(_scaling(distinct, p_train)),
        settings=different_settings([column.first for column in distinct], case),
        footnotes=footnotes(distinct, case, peak_of),
    )


def _require_repeats(column: Side, case: Case) -> None:
    if len(column.records) > 1 and len(group_repeats(column.records, case)) > 1:
        raise UsageError(
            f"the runs in {column.source} are no repeats: they differ in more than their seed, or share one",
            hint="name the runs themselves, each is a column then",
        )


def _scaling(columns: Sequence[Side], p_train: ComparedMeasure) -> Iterator[Scaling | None]:
    """Yield each column's efficiency relative to the scaling pair with the fewest devices, or ``None`` without one."""
    bases: dict[Hashable, int] = {}
    identities = [scaling_identity(column.first) for column in columns]
    devices = [column.first.topology.world_size for column in columns]
    rates = [cell.value for cell in p_train.cells]
    for place, identity in enumerate(identities):
        if isinstance(rates[place], Missing):
            continue
        base = bases.setdefault(identity, place)
        if devices[place] < devices[base]:
            bases[identity] = place
    for place, identity in enumerate(identities):
        base = bases.get(identity, place)
        rate, base_rate = rates[place], rates[base]
        if devices[base] == devices[place] or isinstance(rate, Missing) or isinstance(base_rate, Missing):
            yield None
            continue
        reached = efficiency(rate, devices[place], base_rate, devices[base]) if base_rate else math.inf
        yield Scaling(efficiency=reached, base=base + 1) if math.isfinite(reached) else None


def _measure(measure: Column, columns: Sequence[Side]) -> ComparedMeasure:
    name, unit = measure.name, measure.unit
    values = [[completed_value(record, measure.value(record)) for record in each.records] for each in columns]
    results = [aggregate(each, unit).value for each in values]
    samples = [[_drawn_from(measure, record) for record in column.records] for column in columns]
    follow = [_follows_from_windows(measure, column) for column in columns]
    ratios = [None if unit == "fraction" else _ratio(result, results[0]) for result in results]
    resampled: dict[int, list[float]] = {}

    def interval(place: int) -> Interval | None:
        for each in (0, place):
            if each not in resampled:
                resampled[each] = resample(samples[each], combine, seed=f"{name} {each}")
        return ratio_interval(resampled[place], resampled[0])

    cells = []
    for place, known in enumerate(values):
        found, reason = None, None
        if place and ratios[place] is not None:
            single = [str(each + 1) for each in (0, place) if not varies(samples[each])]
            doubtful = [str(each + 1) for each in (0, place) if not follow[each]]
            if single:
                reason = f"a single value in column {' and '.join(single)}"
            elif doubtful:
                reason = f"the value in column {' and '.join(doubtful)} is not that of its windows"
            elif (found := interval(place)) is None:
                reason = "a value of column 1 is 0"
        spread = [value for value in known if not isinstance(value, Missing)] if len(known) > 1 else []
        cells.append(
            ComparedValue(
                value=results[place],
                lowest=min(spread, default=None),
                highest=max(spread, default=None),
                repeats=len(known),
                windows=0 if isinstance(results[place], Missing) else _windows(measure, columns[place]),
                ratio=ratios[place],
                interval=found,
                no_interval=reason,
                verdict=None if found is None else _verdict(found),
            )
        )
    return ComparedMeasure(name=name, unit=unit, higher_is_better=measure.higher_is_better, cells=tuple(cells))


def _drawn_from(measure: Column, record: Record) -> list[float]:
    """Return the values of a run for the bootstrap: the rates of its windows, or its single value."""
    throughput = measure.throughput(record)
    if throughput:
        rates = [window.samples_per_s for window in throughput.timed_windows]
        return rates or [throughput.median]
    value = measure.value(record)
    return [] if isinstance(value, Missing) else [float(value)]


def _follows_from_windows(measure: Column, column: Side) -> bool:
    throughputs = [measure.throughput(record) for record in column.records]
    return not any(any(differing_from_windows(each)) for each in throughputs if each)


def _windows(measure: Column, column: Side) -> int:
    throughputs = [measure.throughput(record) for record in column.records]
    return sum(len(each.windows) for each in throughputs if each)


def _ratio(value: Number, first: Number) -> float | None:
    if isinstance(value, Missing) or isinstance(first, Missing) or first == 0:
        return None
    ratio = value / first
    return ratio if math.isfinite(ratio) else None


def _verdict(interval: Interval) -> Literal["higher", "lower", "no_difference"]:
    if interval.low > 1 + TOLERANCE:
        return "higher"
    return "lower" if interval.high < 1 - TOLERANCE else "no_difference"


def compare_curves(comparison: Comparison, quantity: Quantity, *, axis: Axis | None = None) -> Curves:
    """Return the curves of compared runs. Repeats of a configuration with other seeds are one curve.

    Runs that did not complete have a curve too, for example to show how a loss diverged.

    Args:
        comparison: The runs.
        quantity: The quantity of the curves.
        axis: Unit of the axis; see :func:`~chipperf.report.curves.build_curves`.

    Raises:
        UsageError: A run has too few points, or cannot be on the axis.
    """
    groups = group_repeats(comparison.records, comparison.case)
    names = curve_names([group[0] for group in groups], comparison.case)
    curves = []
    for name, group in zip(names, groups, strict=True):
        runs = tuple(read_points(record, quantity) for record in group)
        for run in runs:
            _require_enough_points(run.record, len(run.points), quantity)
        curves.append(CurveRuns(name=name, baseline=False, runs=runs))
    return build_curves(curves, quantity, axis=axis)


def _require_enough_points(record: Record, points: int, quantity: Quantity) -> None:
    if points >= MINIMUM_POINTS:
        return
    what = "evaluations" if quantity == "quality" else "measurement windows with a loss"
    raise UsageError(
        f"run {record.run_id} has too few {what} for a curve: {points} of at least {MINIMUM_POINTS}",
        hint="leave it out" if quantity == "quality" else "leave it out, or see docs/metrics.md on measurement windows",
    )
