"""The allocator's peak of memory in training. :mod:`chipperf.records.memory_peak` decides whether it is reported."""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from typing import TYPE_CHECKING, Any

from chipperf.plugin.types import MemoryStats

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from chipperf.plugin.session import Session

_COUNTERS = tuple(each.name for each in fields(MemoryStats) if each.name.endswith("_bytes"))


class PeakMemory:
    """Peak of this rank's memory over a run's sessions, without the warm-up, which needs additional memory."""

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
        """Return the device's counters, the highest over the sessions."""
        now = self._session.memory_query(self._device)
        return now if self._earlier is None else highest([now, self._earlier])

    def state(self) -> dict[str, Any] | None:
        """Return the counters for a checkpoint."""
        known = self._earlier if self._is_of_warmup else self.query()
        return None if known is None else asdict(known)

    def restore(self, state: dict[str, Any] | None) -> None:
        """Restore a :meth:`state` as the counters of earlier sessions."""
        self._earlier = None if state is None else MemoryStats(**state)


def highest(stats: Sequence[MemoryStats]) -> MemoryStats:
    """Return the first, with the highest value of each counter; a counter that is unknown in one stays unknown."""
    counters: dict[str, int | None] = {}
    for name in _COUNTERS:
        values = [getattr(each, name) for each in stats]
        counters[name] = None if None in values else max(values)
    return replace(stats[0], **counters)  # type: ignore[arg-type]  # the counters have one type
