"""Peak of a device's memory that a run reports.

It is the peak after the warm-up, because the warm-up needs additional memory. It is the highest over all ranks and over
all sessions of a resumed run.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from chipperf.plugin.types import MemoryStats

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from chipperf.plugin.session import Session
    from chipperf.run.collectives import Collectives


class PeakMemory:
    """Peak memory of this rank's device.

    Args:
        session: Session of the vendor.
        device: Device of the rank.
    """

    def __init__(self, session: Session, device: torch.device) -> None:
        self._session = session
        self._device = device
        self._earlier: MemoryStats | None = None
        self._is_of_warmup = True

    def end_warmup(self) -> None:
        """Reset the peak after the warm-up; only the first call in a session has an effect."""
        if self._is_of_warmup:
            self._session.memory_reset_peak(self._device)
            self._is_of_warmup = False

    def query(self) -> MemoryStats:
        """Return the device's counters; for a resumed run, the highest over all its sessions."""
        now, earlier = self._session.memory_query(self._device), self._earlier
        if earlier is None:
            return now
        before = _counters(earlier)
        return _with_counters(now, {name: _higher(value, before[name]) for name, value in _counters(now).items()})

    def state(self) -> dict[str, Any] | None:
        """Return the counters for a checkpoint."""
        known = self._earlier if self._is_of_warmup else self.query()
        return None if known is None else asdict(known)

    def restore(self, state: dict[str, Any] | None) -> None:
        """Restore a :meth:`state` as the counters of earlier sessions."""
        self._earlier = None if state is None else MemoryStats(**state)


def highest_of_ranks(own: MemoryStats, collectives: Collectives, world_size: int) -> MemoryStats:
    """Return the highest value of each counter over ranks; a counter that is unknown on a rank stays unknown."""
    counters = _counters(own)
    known = collectives.sum_counts([value is not None for value in counters.values()])
    highest = collectives.max_counts([value or 0 for value in counters.values()])
    combined = {
        name: value if count == world_size else None
        for name, value, count in zip(counters, highest, known, strict=True)
    }
    return _with_counters(own, combined)


def _counters(stats: MemoryStats) -> dict[str, int | None]:
    return {name: value for name, value in asdict(stats).items() if name.endswith("_bytes")}


def _higher(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else max(one, other)


def _with_counters(stats: MemoryStats, counters: Mapping[str, Any]) -> MemoryStats:
    return replace(stats, **counters)
