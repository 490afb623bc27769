"""Checks that the values of a record are consistent with each other.

Every check compares values that were measured independently, and is skipped if one of them is missing. A finding means
that one of the values is wrong; it does not tell which.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, replace
from itertools import pairwise
from operator import itemgetter
from typing import TYPE_CHECKING, Final, Literal

from chipperf.languages import Phrase, phrase
from chipperf.records.columns import WINDOWED
from chipperf.records.convergence import meets_target
from chipperf.records.scaling import MAX_EFFICIENCY, pair_efficiency, scaling_identity
from chipperf.records.schema import Missing, Throughput, TimeToTarget

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Sequence

    from chipperf.records.schema import Number, Record

Check = Literal["epochs", "samples", "mfu", "memory", "times", "throughputs", "scaling", "result", "energy"]

ORDER_SLACK: Final = 0.02
"""Tolerance, as a fraction, for the order of two rates or times where one contains the other."""

_EPOCH_TOLERANCE: Final = 0.05
_SAMPLE_TOLERANCE: Final = 0.01
_POWER_SLACK: Final = 0.05
_WINDOW_TOLERANCE: Final = 1e-4
_RESULT_TOLERANCE: Final = 1e-6
_MINIMUM_WINDOWS: Final = 2
"""Fewer windows are not checked against their median and mean."""

_PASSES: Final = 3
"""Arithmetic of a training step in forward passes: one forward pass, and a backward pass that counts as two."""

_GIB: Final = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Implausibility:
    """Values of a record that contradict each other, as the check found them. ``text`` has no full stop."""

    check: Check
    text: Phrase


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """Peak rate of one device at a run's effective precision, and the source of the figure."""

    flops_per_s: float
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A throughput with the interquartile range of its windows. A single value has the range 0."""

    value: float
    iqr: float = 0.0


def check_record(
    record: Record, *, forward_flops: float | None = None, peak: Peak | None = None
) -> tuple[Implausibility, ...]:
    """Return the contradictions in a completed run. Other runs are not checked.

    ``forward_flops`` is the arithmetic of one sample's forward pass in the run's model.
    """
    if record.status.state != "completed":
        return ()
    found: dict[Check, Iterable[Phrase]] = {
        "epochs": _epochs(record),
        "samples": _samples(record),
        "memory": _memory(record),
        "times": _times(record),
        "throughputs": _throughputs(record),
        "result": _result(record),
        "energy": _energy(record),
    }
    if forward_flops is not None and peak is not None:
        found["mfu"] = _mfu(record, forward_flops, peak)
    return tuple(
        Implausibility(check=check, text=_with_short_numbers(text)) for check, texts in found.items() for text in texts
    )


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


def model_flops_utilization(rate: float, devices: int, forward_flops: float, peak: Peak) -> float:
    """Return the fraction of the peak of all devices that a throughput uses, without recomputed arithmetic.

    ``rate`` is samples per second of all devices, ``forward_flops`` the arithmetic of one sample's forward pass.
    """
    return rate * forward_flops * _PASSES / (peak.flops_per_s * devices)


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


def differing_from_windows(throughput: Throughput) -> Iterator[tuple[str, float, float]]:
    """Yield each field of a throughput that differs from its windows: name, value, and value from the windows."""
    rates = [window.samples_per_s for window in throughput.timed_windows]
    seconds = sum(window.seconds for window in throughput.windows)
    if len(rates) < _MINIMUM_WINDOWS or seconds <= 0:
        return
    mean = sum(window.samples for window in throughput.windows) / seconds
    for field, implied in (("median", statistics.median(rates)), ("mean_of_totals", mean)):
        value = getattr(throughput, field)
        if not math.isclose(value, implied, rel_tol=_WINDOW_TOLERANCE):
            yield field, value, implied


def _with_short_numbers(text: Phrase) -> Phrase:
    values = ((name, f"{value:g}" if isinstance(value, float) else value) for name, value in text.values)
    return replace(text, values=tuple(values))


def _epochs(record: Record) -> Iterator[Phrase]:
    metrics, planned = record.metrics, record.hyperparameters.values.get("epochs")
    epochs, steps = metrics.epochs, metrics.steps
    batch, samples = record.hyperparameters.global_batch_size, record.dataset.train_samples
    if isinstance(epochs, Missing):
        return
    if isinstance(planned, int | float) and epochs > planned * (1 + _EPOCH_TOLERANCE):
        yield phrase(
            "it trained for %(epochs)s epochs, its hyperparameters say %(planned)s", epochs=epochs, planned=planned
        )
    if isinstance(steps, Missing) or isinstance(batch, Missing) or isinstance(samples, Missing):
        return
    # An epoch leaves out the samples that do not fill a batch.
    in_epoch = samples // batch if batch > 0 else 0
    if in_epoch and abs(steps / in_epoch - epochs) > _EPOCH_TOLERANCE * max(epochs, steps / in_epoch):
        yield phrase(
            "%(steps)s steps of %(batch)s samples over %(samples)s training samples are %(implied)s epochs, "
            "the record says %(epochs)s",
            steps=steps,
            batch=batch,
            samples=samples,
            implied=f"{steps / in_epoch:.4g}",
            epochs=f"{epochs:.4g}",
        )


def _samples(record: Record) -> Iterator[Phrase]:
    metrics, batch = record.metrics, record.hyperparameters.global_batch_size
    samples, steps, seconds = metrics.train_samples, metrics.steps, metrics.train_seconds
    if isinstance(samples, Missing):
        return
    if not isinstance(steps, Missing) and not isinstance(batch, Missing):
        implied = steps * batch
        if abs(implied - samples) > _SAMPLE_TOLERANCE * max(implied, samples):
            yield phrase(
                "%(steps)s steps of %(batch)s samples are %(implied)s samples, the record says %(samples)s",
                steps=steps,
                batch=batch,
                implied=implied,
                samples=samples,
            )
    if isinstance(seconds, Missing) or isinstance(metrics.p_whole, Missing) or seconds <= 0:
        return
    implied_rate = samples / seconds
    if abs(implied_rate - metrics.p_whole) > _SAMPLE_TOLERANCE * max(implied_rate, metrics.p_whole):
        yield phrase(
            "p_whole is %(rate)s, and %(samples)s samples in %(seconds)s s are %(implied)s",
            rate=metrics.p_whole,
            samples=samples,
            seconds=seconds,
            implied=implied_rate,
        )


def _memory(record: Record) -> Iterator[Phrase]:
    memory = record.metrics.memory
    if isinstance(memory, Missing) or isinstance(memory.total_bytes, Missing):
        return
    for name in ("allocated_peak", "reserved_peak", "device_peak"):
        used = getattr(memory, f"{name}_bytes")
        if not isinstance(used, Missing) and used > memory.total_bytes:
            yield phrase(
                "%(name)s is %(used)s GiB, the device has %(total)s GiB",
                name=name,
                used=f"{used / _GIB:.4g}",
                total=f"{memory.total_bytes / _GIB:.4g}",
            )


def _times(record: Record) -> Iterator[Phrase]:
    """Yield the parts that take longer than their whole."""
    metrics = record.metrics
    windows = metrics.p_train.windows if isinstance(metrics.p_train, Throughput) else []
    reached, train_seconds = metrics.time_to_target, metrics.train_seconds
    spans = [] if isinstance(train_seconds, Missing) else [("train_seconds", train_seconds)]
    spans += [(f"spans.{each.name}", each.seconds) for each in metrics.spans]
    parts: list[tuple[str, float, str, Number]] = []
    if spans:
        parts.append((*max(spans, key=itemgetter(1)), "e2e_time", metrics.e2e_time_s))
    if isinstance(reached, TimeToTarget):
        parts.append(("time_to_target", reached.seconds, "train_seconds", train_seconds))
    if windows:
        parts.append(("p_train.windows", sum(each.seconds for each in windows), "train_seconds", train_seconds))
    for part, part_s, whole, whole_s in parts:
        if not isinstance(whole_s, Missing) and part_s > whole_s * (1 + ORDER_SLACK):
            yield phrase(
                "%(part)s is %(part_s)s s, longer than %(whole)s, which contains it: %(whole_s)s s",
                part=part,
                part_s=part_s,
                whole=whole,
                whole_s=whole_s,
            )


def _throughputs(record: Record) -> Iterator[Phrase]:
    metrics = record.metrics
    for name in WINDOWED:
        throughput = getattr(metrics, name)
        if isinstance(throughput, Throughput):
            for field, value, implied in differing_from_windows(throughput):
                yield phrase(
                    "%(name)s: %(field)s is %(value)s, its windows give %(implied)s",
                    name=name,
                    field=field,
                    value=value,
                    implied=implied,
                )
    rates = [(name, rate(getattr(metrics, name))) for name in ("p_core", "p_train", "p_whole")]
    known = [(name, value) for name, value in rates if value is not None]
    for (upper, upper_rate), (lower, lower_rate) in pairwise(known):
        if not in_order(upper_rate, lower_rate):
            yield phrase(
                "%(upper)s %(upper_rate)s is less than %(lower)s %(lower_rate)s, by more than their windows spread",
                upper=upper,
                upper_rate=upper_rate.value,
                lower=lower,
                lower_rate=lower_rate.value,
            )


def _result(record: Record) -> Iterator[Phrase]:
    metrics, target = record.metrics, record.case.target
    last, best = metrics.quality, metrics.best_quality
    for name, value in (("quality", last), ("best_quality", best)):
        if not isinstance(value, Missing) and not 0 <= value <= 1:
            yield phrase("%(name)s %(value)s is no fraction between 0 and 1", name=name, value=value)
    points = [point.value for point in metrics.curve if not isinstance(point.value, Missing)]
    if points:
        for name, value, implied in (("quality", last, points[-1]), ("best_quality", best, max(points))):
            if not isinstance(value, Missing) and not math.isclose(value, implied, abs_tol=_RESULT_TOLERANCE):
                yield phrase(
                    "%(name)s is %(value)s, the evaluations give %(implied)s", name=name, value=value, implied=implied
                )
    if isinstance(best, Missing):
        return
    if not isinstance(last, Missing) and last > best:
        yield phrase(
            "the last evaluation's result %(last)s is higher than the best one, %(best)s", last=last, best=best
        )
    if (
        isinstance(metrics.time_to_target, TimeToTarget)
        and not isinstance(target, Missing)
        and not meets_target(best, target)
    ):
        yield phrase(
            "the target %(target)s is said to have been met, the best result is %(best)s", target=target, best=best
        )


def _energy(record: Record) -> Iterator[Phrase]:
    power, seconds, devices = record.metrics.power, record.metrics.e2e_time_s, record.topology.world_size
    if isinstance(power, Missing) or isinstance(power.max_w, Missing):
        return
    if not isinstance(power.mean_w, Missing) and power.mean_w > power.max_w:
        yield phrase(
            "mean power %(mean)s W is higher than the highest, %(power)s W", mean=power.mean_w, power=power.max_w
        )
    if isinstance(power.energy_j, Missing) or isinstance(seconds, Missing):
        return
    if power.energy_j > power.max_w * devices * seconds * (1 + _POWER_SLACK):
        yield phrase(
            "energy is %(energy)s J, more than %(devices)s devices take in %(seconds)s s at their highest power, "
            "%(power)s W",
            energy=power.energy_j,
            devices=devices,
            seconds=seconds,
            power=power.max_w,
        )


def _mfu(record: Record, forward_flops: float, peak: Peak) -> Iterator[Phrase]:
    if peak.flops_per_s <= 0:
        return
    for name in reversed(WINDOWED):
        measured = rate(getattr(record.metrics, name))
        if measured is None:
            continue
        share = model_flops_utilization(measured.value, record.topology.world_size, forward_flops, peak)
        if share > 1:
            yield phrase(
                "%(name)s %(rate)s is %(mfu)s of the peak (%(peak)s TFLOP/s, %(source)s)",
                name=name,
                rate=measured.value,
                peak=peak.flops_per_s / 1e12,
                source=peak.source,
                mfu=f"{share:.0%}",
            )
