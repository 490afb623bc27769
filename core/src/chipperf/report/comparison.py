"""Runs side by side: what each achieved, and in what ratio to the first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from chipperf.cases.registry import find_case
from chipperf.errors import UsageError
from chipperf.records.measures import MEASURES, headline
from chipperf.records.schema import Missing
from chipperf.report.build import completed_value, record_digest
from chipperf.report.comparability import Difference, differences, require_comparable
from chipperf.report.curves import MINIMUM_POINTS, CurveRuns, build_curves, read_points
from chipperf.report.repeats import curve_names, group_repeats

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chipperf.cases.base import Case
    from chipperf.records.schema import Record
    from chipperf.report.curves import Axis, Curves, Quantity


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedMeasure:
    """One metric of all runs.

    Attributes:
        name: The metric, as in ``docs/metrics.md``.
        unit: Unit of its values; ``fraction`` for a quality.
        values: Its value in every run.
        ratios: Value by the first run's value; ``None`` where one of the two is not there, or the first is 0.
    """

    name: str
    unit: str
    values: tuple[float | Missing, ...]
    ratios: tuple[float | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Runs side by side.

    Attributes:
        case: Case of all of them.
        names: What each run is called.
        records: The runs, in the order in which they were given.
        measures: What they achieved.
        differences: Settings that differ between them.
        scaling: Every run's efficiency against the first; see :func:`scaling_efficiency`.
    """

    case: Case
    names: tuple[str, ...]
    records: tuple[Record, ...]
    measures: tuple[ComparedMeasure, ...]
    differences: tuple[Difference, ...]
    scaling: tuple[float | None, ...]


def compare_runs(records: Sequence[Record]) -> Comparison:
    """Put runs side by side; a record that is given twice counts once.

    Args:
        records: Runs of any vendors, precisions and topologies.

    Raises:
        UsageError: There are none, or their results mean different things; see
            :func:`~chipperf.report.comparability.require_comparable`.
    """
    if not records:
        raise UsageError("there are no runs to compare", hint="name run directories")
    require_comparable(records)
    case = find_case(records[0].case.name)
    distinct = tuple({record_digest(record): record for record in records}.values())
    return Comparison(
        case=case,
        names=tuple(curve_names(distinct, case)),
        records=distinct,
        measures=tuple(_measure(name, distinct) for name in _COMPARED),
        differences=differences(distinct, case),
        scaling=tuple(scaling_efficiency(distinct[0], record) for record in distinct),
    )


def scaling_efficiency(base: Record, record: Record) -> float | None:
    """Return ``p_train`` for each device over that of ``base``; ``None`` if the runs are no true scaling pair.

    They are one if nothing differs but the number of devices and what has to follow it: the batch of each device,
    precision, kind of device and all versions are the same.
    """
    devices, base_devices = record.topology.world_size, base.topology.world_size
    if devices == base_devices or _scaling_identity(record) != _scaling_identity(base):
        return None
    rate = completed_value(record, headline(record.metrics.p_train))
    base_rate = completed_value(base, headline(base.metrics.p_train))
    ratio = _ratio(rate, base_rate)
    return None if ratio is None else ratio * base_devices / devices


_FOLLOWS_DEVICES = frozenset({"lr", "warmup_epochs", "seed"})
"""Hyperparameters that change with the number of devices, or between repeats, and not how long a step takes."""


def _scaling_identity(record: Record) -> tuple[object, ...]:
    environment = record.environment
    values = {key: value for key, value in record.hyperparameters.values.items() if key not in _FOLLOWS_DEVICES}
    return (
        (record.kind, record.vendor.name, record.vendor.plugin, environment.card_title, environment.cpu),
        (record.chipperf_version, environment.torch, environment.sdk, environment.driver, environment.collectives),
        (record.case.name, record.case.version, record.case.preset, record.case.metric, record.metrics_version),
        (record.precision.requested, record.precision.effective),
        tuple(sorted(values.items())),
    )


def compare_curves(comparison: Comparison, quantity: Quantity, *, axis: Axis | None = None) -> Curves:
    """Return the curves of compared runs; repeats of a configuration with other seeds are one curve.

    Runs that did not complete have their curve, too: how a loss diverged is worth seeing.

    Args:
        comparison: The runs.
        quantity: What the curves show.
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


_COMPARED = ("quality", "best_quality", "time_to_target", "p_whole", "p_train", "p_core")


def _measure(name: str, records: Sequence[Record]) -> ComparedMeasure:
    measure = MEASURES[name]
    values = tuple(completed_value(record, measure.read(record)) for record in records)
    ratios = tuple(_ratio(value, values[0]) for value in values)
    return ComparedMeasure(name=name, unit=measure.unit, values=values, ratios=ratios)


def _ratio(value: float | Missing, first: float | Missing) -> float | None:
    if isinstance(value, Missing) or isinstance(first, Missing) or first == 0:
        return None
    return value / first
