"""Checks that the values of a record are consistent with each other.

Every check compares values that were measured independently, and is skipped if one of them is missing. A finding means
that one of the values is wrong; it does not say which.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any

from chipperf.languages import Phrase, phrase
from chipperf.records.columns import WINDOWED
from chipperf.records.consistency import ORDER_SLACK, contradictions, first_contradictions
from chipperf.records.limit_shares import Peak, model_flops_utilization, share_of_bus, share_of_products
from chipperf.records.machine_limits import SAME_DAY, above_peak
from chipperf.records.rows import aware
from chipperf.records.scaling import MAX_EFFICIENCY, pair_efficiency, scaling_identity
from chipperf.records.schema import Missing, Throughput

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Sequence

    from chipperf.records.consistency import Check, Relation
    from chipperf.records.schema import Number, Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Implausibility:
    """Values of a record that contradict each other, as the check found them. ``text`` has no full stop."""

    check: Check
    text: Phrase


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A throughput with the interquartile range of its windows. A single value has the range 0."""

    value: float
    iqr: float = 0.0


def check_record(
    record: Record,
    of_case: Iterable[Relation] = (),
    *,
    forward_flops: float | None = None,
    peak: Peak | None = None,
) -> tuple[Implausibility, ...]:
    """Return the contradictions in a completed run. Other runs are not checked.

    ``of_case`` are the relations to the installed case, see :func:`chipperf.cases.recorded_settings.check_with_case`.
    ``forward_flops`` is the arithmetic of one sample's forward pass in the run's model.
    """
    if record.status.state != "completed":
        return ()
    used = () if forward_flops is None or peak is None else _mfu(record, forward_flops, peak)
    settings: Iterator[tuple[Check, Phrase]] = (("settings", text) for text in first_contradictions(of_case))
    found = chain(contradictions(record), settings, _order(record), used, _limits(record))
    return tuple(Implausibility(check=check, text=_with_short_numbers(text)) for check, text in found)


def check_scaling(records: Sequence[Record]) -> Iterator[tuple[Record, Implausibility]]:
    """Yield each run whose throughput is too high relative to a scaling pair with fewer devices."""
    groups: dict[Hashable, dict[int, Record]] = {}
    for record in records:
        if record.status.state == "completed" and rate(record.metrics.p_train) is not None:
            groups.setdefault(scaling_identity(record), {}).setdefault(record.topology.world_size, record)
    for record in records:
        devices = record.topology.world_size
        for fewer, base in sorted(groups.get(scaling_identity(record), {}).items()):
            reached = pair_efficiency(base, record) if fewer < devices else None
            if reached is not None and reached > MAX_EFFICIENCY:
                text = phrase(
                    "p_train on %(more)s cards is %(efficiency)s of what %(fewer)s cards allow (run %(base)s)",
                    more=devices,
                    fewer=fewer,
                    efficiency=f"{reached:.0%}",
                    base=base.run_id,
                )
                yield record, Implausibility(check="scaling", text=text)
                break


def in_order(upper: Rate, lower: Rate) -> bool:
    """Return whether ``upper`` can be at least as high as ``lower``, given the spread of their windows.

    It cannot if their interquartile ranges are apart by more than :data:`ORDER_SLACK`. A short run on a busy machine
    has wide ranges.
    """
    return upper.value + upper.iqr >= (lower.value - lower.iqr) * (1 - ORDER_SLACK)


def rate(throughput: Throughput | Number) -> Rate | None:
    """Return a throughput with its spread, or ``None`` if it is missing."""
    if isinstance(throughput, Missing):
        return None
    if isinstance(throughput, Throughput):
        # If windows differ much, their mean may lie outside the range around their median.
        deviation = abs(throughput.mean_of_totals - throughput.median)
        return Rate(value=throughput.median, iqr=max(throughput.iqr, deviation))
    return Rate(value=throughput)


def _with_short_numbers(text: Phrase) -> Phrase:
    values = ((name, f"{value:g}" if isinstance(value, float) else value) for name, value in text.values)
    return replace(text, values=tuple(values))


def _order(record: Record) -> Iterator[tuple[Check, Phrase]]:
    metrics = record.metrics
    names = ("p_core", "p_train", "p_whole")
    known = [(name, found) for name in names if (found := rate(getattr(metrics, name)))]
    for (upper, upper_rate), (lower, lower_rate) in pairwise(known):
        if not in_order(upper_rate, lower_rate):
            numbers: dict[str, Any] = {
                "upper": upper,
                "upper_rate": upper_rate.value,
                "lower": lower,
                "lower_rate": lower_rate.value,
            }
            less = phrase("%(upper)s %(upper_rate)s is less than %(lower)s %(lower_rate)s", **numbers)
            beyond = phrase(
                "%(upper)s %(upper_rate)s is less than %(lower)s %(lower_rate)s, by more than their windows spread",
                **numbers,
            )
            yield "order", less if record.kind == "imported" else beyond


def _mfu(record: Record, forward_flops: float, peak: Peak) -> Iterator[tuple[Check, Phrase]]:
    if peak.flops_per_s <= 0:
        return
    for name in reversed(WINDOWED):
        if not (measured := rate(getattr(record.metrics, name))):
            continue
        share = model_flops_utilization(measured.value, record.topology.world_size, forward_flops, peak)
        if share > 1:
            yield (
                "mfu",
                phrase(
                    "%(name)s %(rate)s is %(mfu)s of the peak (%(peak)s TFLOP/s, %(source)s)",
                    name=name,
                    rate=measured.value,
                    peak=peak.flops_per_s / 1e12,
                    source=peak.source,
                    mfu=f"{share:.0%}",
                ),
            )


def _limits(record: Record) -> Iterator[tuple[Check, Phrase]]:
    """Yield limits above their data sheet, and what the run did beyond a limit of its machine."""
    limits = record.machine_limits
    if isinstance(limits, Missing):
        return
    if abs(aware(record.created_at) - aware(limits.created_at)) > SAME_DAY:
        yield "limits", phrase("the limits %(name)s are of another day than the run", name=limits.limits_id)
    precision = record.precision.requested
    if text := above_peak(limits.products_flops_per_s, limits.peak_flops_per_s, limits.peak_source, precision):
        yield "limits", text
    for share, what in (
        (share_of_products(record), phrase("the machine's measured products")),
        (share_of_bus(record), phrase("the machine's measured bus bandwidth")),
    ):
        if not isinstance(share, Missing) and share > 1:
            yield "limits", phrase("p_core uses %(share)s of %(limit)s", share=f"{share:.0%}", limit=what)
