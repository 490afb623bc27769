"""Which peak of a device's memory a run reports.

It is the peak after the warm-up, which needs memory of its own; of a resumed run the highest of all its sessions; and
the highest of all ranks.
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
    """The memory that this rank's device needed.

    Args:
        session: The vendor.
        device: The rank's device.
    """

    def __init__(self, session: Session, device: torch.device) -> None:
        self._session = session
        self._device = device
        self._earlier: MemoryStats | None = None
        self._is_of_warmup = True

    def end_warmup(self) -> None:
        """Forget the peak of the warm-up; only the first call in a session does anything."""
        if self._is_of_warmup:
            self._session.memory_reset_peak(self._device)
            self._is_of_warmup = False

    def query(self) -> MemoryStats:
        """Return the device's counters, of a resumed run the highest of all its sessions."""
        now, earlier = self._session.memory_query(self._device), self._earlier
        if earlier is None:
            return now
        before = _counters(earlier)
        return _with_counters(now, {name: _higher(value, before[name]) for name, value in _counters(now).items()})

    def state(self) -> dict[str, Any] | None:
        """Return what a resumed run has to know, for a checkpoint."""
        known = self._earlier if self._is_of_warmup else self.query()
        return None if known is None else asdict(known)

    def restore(self, state: dict[str, Any] | None) -> None:
        """Count what :meth:`state` said as that of earlier sessions."""
        self._earlier = None if state is None else MemoryStats(**state)


def highest_of_ranks(own: MemoryStats, collectives: Collectives, world_size: int) -> MemoryStats:
    """Return the highest value of every counter over ranks; a counter that a rank does not know stays unknown."""
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
