"""Comparing runs: the values of each, their ratios to the first, and confidence intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final

from chipperf.cases.registry import find_case
from chipperf.compare.footnotes import Footnote, footnotes
from chipperf.compare.setting_differences import DifferentSetting, different_settings
from chipperf.errors import UsageError
from chipperf.records.columns import columns_of, completed_value
from chipperf.records.convergence import Outcome, convergence_outcome, lower_is_better
from chipperf.records.intervals import Interval, ratio_interval, resample, varies
from chipperf.records.ratios import drawn_from, follows_from_windows, verdict
from chipperf.records.repeats import aggregate, combine
from chipperf.records.scaling import efficiency, scaling_identity
from chipperf.records.schema import Missing
from chipperf.report.comparability import require_comparable
from chipperf.report.curves import MINIMUM_POINTS, CurveRuns, build_curves, read_points
from chipperf.report.row import curve_names, group_repeats
from chipperf.report.tracing import record_digest

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping, Sequence

    from chipperf.cases.base import Case
    from chipperf.compare.footnotes import PeakOf
    from chipperf.compare.requirements import Judgment
    from chipperf.compare.sides import Side
    from chipperf.records.columns import Column, Unit
    from chipperf.records.ratios import Verdict
    from chipperf.records.schema import Number
    from chipperf.report.curves import Axis, Curves, Quantity

_TOO_FEW: Final[Mapping[Quantity, tuple[str, str]]] = {
    "quality": ("evaluations", ""),
    "loss": ("measurement windows with a loss", ", or see docs/metrics.md on measurement windows"),
}
"""Name of the points of a quantity, and what to do besides leaving a run with too few of them out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedValue:
    """One metric of one column.

    Attributes:
        value: Value of the run, or the result of its repeats.
        lowest: Lowest value of the repeats; ``None`` for a single run, as ``highest``.
        repeats: Number of runs.
        windows: Number of measurement windows of all repeats.
        ratio: Ratio to the first column's value; ``None`` if one of the two is missing, the first is 0, or the metric
            is a quality or a share, whose ratio has no meaning.
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
    verdict: Verdict | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedMeasure:
    """One metric of all columns, as in :mod:`chipperf.records.columns`, with a cell for every column."""

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
    """A comparison of runs of one case. ``names``, ``outcomes`` and ``scaling`` have an entry for every column.

    ``scaling`` is ``None`` for a column that forms no scaling pair with a column of fewer devices. ``judgments`` are of
    what was required, see :func:`chipperf.compare.gate.judge`.
    """

    case: Case
    columns: tuple[Side, ...]
    names: tuple[str, ...]
    outcomes: tuple[tuple[Outcome, ...], ...]
    measures: tuple[ComparedMeasure, ...]
    scaling: tuple[Scaling | None, ...]
    settings: tuple[DifferentSetting, ...]
    footnotes: tuple[Footnote, ...]
    judgments: tuple[Judgment, ...] = ()


def compare_columns(columns: Sequence[Side], *, peak_of: PeakOf = lambda record: None) -> Comparison:
    """Compare columns. Duplicate columns count once.

    The runs may be of any vendors, precisions and topologies, but must pass
    :func:`~chipperf.report.comparability.require_comparable`. ``peak_of`` returns the peak rate of a run's device.
    """
    if not columns:
        raise UsageError("there are no runs to compare", hint="name run directories")
    require_comparable([record for column in columns for record in column.records])
    case = find_case(columns[0].first.case.name, guarded=True)
    distinct = tuple({tuple(map(record_digest, column.records)): column for column in columns}.values())
    _require_one_content_of_a_run(distinct)
    for column in distinct:
        if len(column.records) > 1 and len(group_repeats(column.records, case)) > 1:
            raise UsageError(
                f"the runs in {column.source} are not repeats: they differ in more than their seed, or share one",
                hint="name the runs themselves; each is then a column",
            )
    has_limits = any(not isinstance(column.first.machine_limits, Missing) for column in distinct)
    shown = (column for column in columns_of("comparison") if has_limits or column.kind != "limit")
    measures = tuple(_measure(measure, distinct) for measure in shown)
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


def _require_one_content_of_a_run(columns: Sequence[Side]) -> None:
    """Check that no two records of one run differ, which no run writes: at most one is as it was written.

    A copy from which values are withheld differs, and says so; each import of a document writes records of its own.
    """
    known: dict[str, tuple[str, str]] = {}
    for column in columns:
        for record in column.records:
            if record.withheld or record.kind == "imported":
                continue
            digest, source = record_digest(record), column.source or "another record"
            first, first_source = known.setdefault(record.run_id, (digest, source))
            if digest != first:
                raise UsageError(
                    f"{first_source} and {source} are records of one run, {record.run_id}, and differ",
                    hint="name one of them: at most one is as the run wrote it; perf show lists what contradicts it",
                )


def _scaling(columns: Sequence[Side], p_train: ComparedMeasure) -> Iterator[Scaling | None]:
    """Yield each column's efficiency relative to the scaling pair with the fewest devices, or ``None`` without one."""
    identities = [scaling_identity(column.first) for column in columns]
    devices = [column.first.topology.world_size for column in columns]
    rates = [cell.value for cell in p_train.cells]
    bases: dict[Hashable, int] = {}
    for place, identity in enumerate(identities):
        if not isinstance(rates[place], Missing) and devices[place] < devices[bases.setdefault(identity, place)]:
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
    values = [[completed_value(record, measure.value(record)) for record in column.records] for column in columns]
    results = [aggregate(each, measure.unit).value for each in values]
    throughputs = [[measure.throughput(record) for record in column.records] for column in columns]
    samples = [[drawn_from(measure, record) for record in column.records] for column in columns]

    @cache
    def resampled(place: int) -> list[float]:
        return resample(samples[place], combine, seed=f"{measure.name} {place}")

    def interval(place: int) -> tuple[Interval | None, str | None]:
        """Return the interval of the ratio to the first column, and the reason if it has none."""
        pair = (0, place)
        single = [str(each + 1) for each in pair if not varies(samples[each])]
        if single:
            return None, f"a single value in column {' and '.join(single)}"
        doubtful = [str(each + 1) for each in pair if not all(map(follows_from_windows, throughputs[each]))]
        if doubtful:
            return None, f"the value in column {' and '.join(doubtful)} is not that of its windows"
        found = ratio_interval(resampled(place), resampled(0))
        return found, None if found else "a value of column 1 is 0"

    cells = []
    for place, (known, result) in enumerate(zip(values, results, strict=True)):
        ratio = None if measure.unit in ("fraction", "share") else _ratio(result, results[0])
        found, reason = interval(place) if place and ratio is not None else (None, None)
        spread = [value for value in known if not isinstance(value, Missing)] if len(known) > 1 else []
        windows = sum(len(each.windows) for each in throughputs[place] if each)
        cells.append(
            ComparedValue(
                value=result,
                lowest=min(spread, default=None),
                highest=max(spread, default=None),
                repeats=len(known),
                windows=0 if isinstance(result, Missing) else windows,
                ratio=ratio,
                interval=found,
                no_interval=reason,
                verdict=verdict(found) if found else None,
            )
        )
    is_inverse = measure.unit == "fraction" and lower_is_better(columns[0].first.case)
    higher_is_better = measure.higher_is_better and not is_inverse
    return ComparedMeasure(name=measure.name, unit=measure.unit, higher_is_better=higher_is_better, cells=tuple(cells))


def _ratio(value: Number, first: Number) -> float | None:
    if isinstance(value, Missing) or isinstance(first, Missing) or first == 0:
        return None
    ratio = value / first
    return ratio if math.isfinite(ratio) else None


def compare_curves(comparison: Comparison, quantity: Quantity, *, axis: Axis | None = None) -> Curves:
    """Return the curves of compared runs. Repeats of a configuration with other seeds are one curve.

    Runs that did not complete have a curve too, for example to show how a loss diverged.
    """
    distinct = {record_digest(record): record for column in comparison.columns for record in column.records}
    groups = group_repeats(distinct.values(), comparison.case)
    names = curve_names([group[0] for group in groups], comparison.case)
    curves = []
    for name, group in zip(names, groups, strict=True):
        runs = tuple(read_points(record, quantity) for record in group)
        for run in runs:
            if (count := len(run.points)) < MINIMUM_POINTS:
                what, more = _TOO_FEW[quantity]
                raise UsageError(
                    f"run {run.record.run_id} has too few {what} for a curve: {count} of at least {MINIMUM_POINTS}",
                    hint=f"leave it out{more}",
                )
        curves.append(CurveRuns(name=name, baseline=False, runs=runs))
    return build_curves(curves, quantity, axis=axis)
