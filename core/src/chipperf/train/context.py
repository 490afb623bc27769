"""Context that the parts of training share: synchronization between ranks, and the time spans of the job."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from chipperf.records.schema import Span
from chipperf.train.stop import StopRequest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import torch

    from chipperf.cases.base import Hyperparameters
    from chipperf.cases.workload import Workload
    from chipperf.plugin.session import Session
    from chipperf.plugin.types import DeviceInfo, DistributedConfig, Event, PrecisionPolicy, Rank
    from chipperf.run.collectives import Collectives
    from chipperf.run.directory import RunDirectory
    from chipperf.run.events import EventLog
    from chipperf.run.plan import RunPlan
    from chipperf.run.progress import ProgressFile
    from chipperf.train.checkpoint import CheckpointWriter


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """Context of one rank's training, with the devices of all ranks; without ``checkpoints``, none are written."""

    plan: RunPlan
    directory: RunDirectory
    session: Session
    workload: Workload
    hyperparameters: Hyperparameters
    target: float | None
    metric: str
    precision: PrecisionPolicy
    distributed: DistributedConfig | None
    device: torch.device
    rank: Rank
    collectives: Collectives
    events: EventLog
    progress: ProgressFile
    spans: Spans
    lower_is_better: bool = False
    samples: str = "samples"
    checkpoints: CheckpointWriter | None = None
    stop: StopRequest = field(default_factory=StopRequest)
    devices: Sequence[DeviceInfo] = ()

    def wait_for_device(self) -> float:
        """Wait until this rank's device has finished all queued work, then return the clock's time."""
        self.session.synchronize(self.device)
        return time.perf_counter()

    def edge(self) -> float:
        """Wait for all ranks and all queued work, then return the clock's time."""
        self.collectives.barrier()
        return self.wait_for_device()

    def notify(self, event: Event) -> None:
        """Call the observers while no window is open; the span shows the time that they add to the run."""
        with self.spans.measure("observers"):
            self.session.notify(event)


class Spans:
    """Named time spans of the job on the machine's monotonic clock, relative to the launcher's start.

    Spans of one name are added up and keep the start of the first one.

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

    def reach(self, name: str) -> None:
        """Add the time from the origin until now."""
        self.add(name, self._origin_s, time.monotonic())

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
