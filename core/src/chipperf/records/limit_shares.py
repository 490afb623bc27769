"""Shares of a machine's limits that a run uses: its products of the measured and the data sheet's, and its bus."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from chipperf.records.schema import Missing, Throughput

if TYPE_CHECKING:
    from collections.abc import Callable

    from chipperf.records.schema import Number, Record

_PASSES: Final = 3
"""Arithmetic of a training step in forward passes: one forward pass, and a backward pass that counts as two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """Peak rate of one device at a run's effective precision, and the source of the figure."""

    flops_per_s: float
    source: str


def model_flops_utilization(rate: float, devices: int, forward_flops: float, peak: Peak) -> float:
    """Return the fraction of the peak of all devices that a throughput uses, without recomputed arithmetic.

    ``rate`` is samples per second of all devices, ``forward_flops`` the arithmetic of one sample's forward pass.
    """
    return rate * forward_flops * _PASSES / (peak.flops_per_s * devices)


def bus_bytes(size_bytes: float, ranks: int) -> float:
    """Return the bytes that an all-reduce moves over the bus of each rank, by nccl-tests' definition."""
    return size_bytes * 2 * (ranks - 1) / ranks


def share_of_products(record: Record) -> Number:
    """Return ``p_core`` as a fraction of the machine's measured products: MFU with the measured limit below it."""
    return _utilization(record, "products_flops_per_s")


def share_of_peak(record: Record) -> Number:
    """Return ``p_core`` as a fraction of the data sheet's peak."""
    return _utilization(record, "peak_flops_per_s")


def share_of_bus(record: Record) -> Number:
    """Return the bus bandwidth that the gradients need at ``p_core`` as a fraction of the measured one."""

    def share(limit: float, rate: float, size_bytes: float, batch: float) -> float:
        return bus_bytes(size_bytes, record.topology.world_size) * rate / batch / limit

    batch = _above_0(record.hyperparameters.global_batch_size, "global batch")
    return _known(share, _limit(record, "bus_bytes_per_s"), _p_core(record), record.metrics.gradient_bytes, batch)


def _utilization(record: Record, limit: str) -> Number:
    def share(limit: float, rate: float, flops: float) -> float:
        return model_flops_utilization(rate, 1, flops, Peak(flops_per_s=limit, source=""))

    return _known(share, _limit(record, limit), _p_core(record), record.metrics.forward_flops)


def _limit(record: Record, name: str) -> Number:
    limits = record.machine_limits
    found: Number = limits if isinstance(limits, Missing) else getattr(limits, name)
    return _above_0(found, "limit")


def _above_0(value: Number, name: str) -> Number:
    """Return what divides. In an edited record, it may be anything."""
    is_wrong = not isinstance(value, Missing) and value <= 0
    return Missing(missing="failed", reason=f"the {name} is not above 0") if is_wrong else value


def _p_core(record: Record) -> Number:
    p_core = record.metrics.p_core
    return p_core.median if isinstance(p_core, Throughput) else p_core


def _known(compute: Callable[..., float], *values: Number) -> Number:
    """Return what is computed from the values, or the first of them that is missing."""
    missing = next((value for value in values if isinstance(value, Missing)), None)
    result = math.nan if missing else compute(*values)
    return missing or (
        result if math.isfinite(result) else Missing(missing="failed", reason="the share is no finite number")
    )
