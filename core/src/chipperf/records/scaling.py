"""Scaling pairs of runs, and how well their throughput follows the number of devices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from chipperf.records.columns import BY_NAME
from chipperf.records.schema import Missing

if TYPE_CHECKING:
    from collections.abc import Hashable

    from chipperf.records.schema import Record

MAX_EFFICIENCY: Final = 1.05
"""Upper limit of the efficiency. Caches and noise can exceed 1 a little; more is a mistake in one of the runs."""

_FOLLOWS_DEVICES: Final = frozenset({"lr", "warmup_epochs", "seed"})
"""Hyperparameters that differ between numbers of devices or between repeats, but do not change the time of a step."""


def scaling_identity(record: Record) -> Hashable:
    """Return a key that is equal for the runs of a scaling pair.

    It has the batch of each device, the precision, the kind of device and all versions. It leaves out the number of
    devices and the settings that follow it.
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
    """Return ``p(N) / (N p(1))``: throughput per device over the base's throughput per device."""
    return rate / base_rate * base_devices / devices


def pair_efficiency(base: Record, record: Record) -> float | None:
    """Return the ``p_train`` efficiency of two completed runs that are a scaling pair, or ``None`` without a value."""
    if {base.status.state, record.status.state} != {"completed"}:
        return None
    p_train = BY_NAME["p_train"]
    rate, base_rate = p_train.value(record), p_train.value(base)
    if isinstance(rate, Missing) or isinstance(base_rate, Missing) or base_rate == 0:
        return None
    return efficiency(rate, record.topology.world_size, base_rate, base.topology.world_size)
