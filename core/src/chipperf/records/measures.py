"""The measures of a run that are put side by side: what each is called, its unit, and where a record has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from chipperf.records.schema import Missing, Power, Throughput, TimeToTarget

if TYPE_CHECKING:
    from collections.abc import Callable

    from chipperf.records.schema import Bytes, Memory, Number, Record


@dataclass(frozen=True, slots=True)
class Measure:
    """One number of a run.

    Attributes:
        unit: Its unit; ``fraction`` for a quality.
        read: Returns it from a record.
    """

    unit: str
    read: Callable[[Record], Number]


def headline(throughput: Throughput | Number) -> Number:
    """Return the one number that stands for a throughput."""
    return throughput.median if isinstance(throughput, Throughput) else throughput


def peak_source(memory: Memory) -> Literal["device", "allocator"]:
    """Return whose peak is that of used memory: the device's, or the allocator's where the device's is not known."""
    return "allocator" if isinstance(memory.device_peak_bytes, Missing) else "device"


def used_peak(memory: Memory | Missing) -> Bytes:
    """Return the peak of used memory; :func:`peak_source` tells whose it is."""
    if isinstance(memory, Missing):
        return memory
    return memory.device_peak_bytes if peak_source(memory) == "device" else memory.allocated_peak_bytes


def _energy_per_sample(record: Record) -> Number:
    power, samples = record.metrics.power, record.metrics.train_samples
    if not isinstance(power, Power):
        return power
    if isinstance(power.energy_j, Missing):
        return power.energy_j
    if isinstance(samples, Missing):
        return samples
    return power.energy_j / samples if samples else Missing(missing="not_run", reason="no sample was trained on")


def _seconds(time_to_target: TimeToTarget | Missing) -> Number:
    return time_to_target.seconds if isinstance(time_to_target, TimeToTarget) else time_to_target


MEASURES = {
    "quality": Measure("fraction", lambda record: record.metrics.quality),
    "best_quality": Measure("fraction", lambda record: record.metrics.best_quality),
    "time_to_target": Measure("s", lambda record: _seconds(record.metrics.time_to_target)),
    "p_whole": Measure("samples/s", lambda record: record.metrics.p_whole),
    "p_train": Measure("samples/s", lambda record: headline(record.metrics.p_train)),
    "p_core": Measure("samples/s", lambda record: headline(record.metrics.p_core)),
    "e2e_time": Measure("s", lambda record: record.metrics.e2e_time_s),
    "mem_peak": Measure("bytes", lambda record: used_peak(record.metrics.memory)),
    "energy_per_sample": Measure("J/sample", _energy_per_sample),
}
"""By name, as in ``docs/metrics.md``."""
