"""The choice of the peak of memory that is reported.

The device's own peak comes from telemetry (:mod:`chipperf.run.telemetry_process`) and covers all of training. The
allocator's peak (:mod:`chipperf.train.allocator_peak`) leaves out the warm-up and what the allocator does not manage.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from chipperf.records.schema import Missing

if TYPE_CHECKING:
    from chipperf.records.schema import Memory

DEVICE_PEAK: Final = "metrics.memory.device_peak_bytes"
ALLOCATOR_PEAK: Final = "metrics.memory.allocated_peak_bytes"
"""Field of a record that counts if the device's peak is unknown."""


def peak_source(memory: Memory) -> Literal["device", "allocator"]:
    """Return which of the two peaks is reported."""
    return "allocator" if isinstance(memory.device_peak_bytes, Missing) else "device"
