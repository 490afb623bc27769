"""Context that the parts of training share, and synchronization between ranks."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from chipperf.train.stop import StopRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from chipperf.cases.base import Hyperparameters
    from chipperf.cases.workload import Workload
    from chipperf.plugin.session import Session
    from chipperf.plugin.types import DeviceInfo, DistributedConfig, Event, PrecisionPolicy, Rank
    from chipperf.records.schema import Limits
    from chipperf.run.collectives import Collectives
    from chipperf.run.events import EventLog
    from chipperf.run.progress import ProgressFile
    from chipperf.train.checkpoint import CheckpointWriter
    from chipperf.train.spans import Spans


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """Context of one rank's training, with the devices of all ranks.

    If ``checkpoints`` is ``None``, no checkpoints are written.
    """

    run_id: str
    session: Session
    workload: Workload
    hyperparameters: Hyperparameters
    limits: Limits
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
