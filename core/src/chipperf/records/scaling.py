"""Which runs are a true scaling pair, and how well throughput follows the number of devices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from chipperf.records.columns import BY_NAME
from chipperf.records.schema import Missing

if TYPE_CHECKING:
    from collections.abc import Hashable

    from chipperf.records.schema import Record

MAX_EFFICIENCY: Final = 1.05
"""What caches and noise can add to the ideal; more is a mistake in one of the runs."""

_FOLLOWS_DEVICES: Final = frozenset({"lr", "warmup_epochs", "seed"})
"""Hyperparameters that change with the number of devices, or between repeats, and not how long a step takes."""


def scaling_identity(record: Record) -> Hashable:
    """Return what the runs of a true scaling pair have in common: all but the number of devices and what follows it.

    The batch of each device, precision, kind of device and all versions are among it.
    """
    environment = record.environment
    values = {key: value for key, value in record.hyperparameters.values.items() if key not in _FOLLOWS_DEVICES}
    return (
        (record.kind, record.vendor.name, record.vendor.plugin, environment.card_title, environment.cpu),
        (record.chipperf_version, environment.torch, environment.sdk, environment.driver, environment.collectives),
        (record.case.name, record.case.version, record.case.preset, record.case.metric, record.metrics_version),
        (record.precision.requested, record.precision.effective),
        tuple(sorted(values.items())),
    )


def efficiency(rate: float, devices: int, base_rate: float, base_devices: int) -> float:
    """Return ``p(N) / (N p(1))``: throughput for each device over that of the base."""
    return rate / base_rate * base_devices / devices


def pair_efficiency(base: Record, record: Record) -> float | None:
    """Return the efficiency in ``p_train`` of completed runs that are a scaling pair; ``None`` if one has no value."""
    if {base.status.state, record.status.state} != {"completed"}:
        return None
    p_train = BY_NAME["p_train"]
    rate, base_rate = p_train.value(record), p_train.value(base)
    if isinstance(rate, Missing) or isinstance(base_rate, Missing) or base_rate == 0:
        return None
    return efficiency(rate, record.topology.world_size, base_rate, base.topology.world_size)
