"""Named time spans of the job on the machine's monotonic clock, relative to the launcher's start."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from chipperf.records.schema import Span

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class Spans:
    """Collects spans; spans of one name are added up and keep the start of the first one.

    Args:
        origin_s: ``time.monotonic()`` when the launcher started; all processes of a machine share this clock. For a
            resumed run it is earlier by the duration of the previous sessions, as if there were no gaps between them.
    """

    def __init__(self, origin_s: float) -> None:
        self._origin_s = origin_s
        self._open: dict[str, float] = {}
        self._spans: dict[str, tuple[float, float]] = {}

    def add(self, name: str, start_s: float, end_s: float) -> None:
        """Add the time between two readings of ``time.monotonic()``."""
        first_s, seconds = self._spans.get(name, (start_s, 0.0))
        self._spans[name] = (first_s, seconds + end_s - start_s)

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Add the duration of the block, even if it raises."""
        start_s = self._open[name] = time.monotonic()
        try:
            yield
        finally:
            del self._open[name]
            self.add(name, start_s, time.monotonic())

    def seconds(self, name: str) -> float:
        """Return the time added for ``name`` so far."""
        return self._spans.get(name, (0.0, 0.0))[1]

    def state(self) -> dict[str, tuple[float, float]]:
        """Return start after the origin and seconds of all spans, for a checkpoint; open spans end now."""
        spans, now_s = dict(self._spans), time.monotonic()
        for name, start_s in self._open.items():
            first_s, seconds = spans.get(name, (start_s, 0.0))
            spans[name] = (first_s, seconds + now_s - start_s)
        return {name: (first_s - self._origin_s, seconds) for name, (first_s, seconds) in spans.items()}

    def restore(self, state: Mapping[str, tuple[float, float]]) -> None:
        """Insert the spans of a checkpoint before those added so far."""
        for name, (start_s, seconds) in state.items():
            later = self.seconds(name)
            self._spans[name] = (self._origin_s + start_s, seconds + later)

    def as_records(self) -> list[Span]:
        """Return all spans sorted by start."""
        spans = [
            Span(name=name, start_s=max(0.0, start_s - self._origin_s), seconds=seconds)
            for name, (start_s, seconds) in self._spans.items()
        ]
        return sorted(spans, key=lambda span: span.start_s)
