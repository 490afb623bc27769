"""What a run has counted and measured so far."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import torch

from chipperf.records.schema import EvaluationPoint, TimeToTarget, Window
from chipperf.train.windows import LocalWindow

if TYPE_CHECKING:
    from chipperf.plugin.types import MemoryStats
    from chipperf.records.schema import RankStep, StepBreakdown, Throughput
    from chipperf.train.checkpoint import State


@dataclass(frozen=True, slots=True, kw_only=True)
class PartialWindow:
    """One rank's part of a window in which training was stopped: the rest follows when the run is resumed."""

    first_step: int
    steps: int
    samples: int
    nanoseconds: int
    loss_sum: float


@dataclass(slots=True, kw_only=True)
class RunState:
    """What a run has counted and measured so far; the record says what is in it, also when training fails halfway.

    A checkpoint keeps it as it is between two steps. What is measured after training is in no checkpoint.

    Attributes:
        steps_per_epoch: Optimizer steps of an epoch.
        steps: Optimizer steps done.
        samples: Samples of all ranks, in the windows that were combined.
        windows: Measured windows, combined over ranks.
        restart_windows: Windows in which a resumed run warmed up, combined over ranks.
        curve: Evaluations.
        data_waits_s: How long this rank waited for each of its batches.
        time_to_target: When the target was met; ``None`` before.
        warnings: For the record.
        elapsed_s: Training time of this run when the newest checkpoint was written.
        closed_windows: This rank's windows since ranks combined theirs for the last time.
        partial_window: The window in which training was stopped, until it is resumed.
        saved_step: Step of the newest checkpoint; ``None`` if there is none.
        finished_step: Step after which this session last said that an epoch has ended.
        train_seconds: Duration of training; ``None`` before its end.
        ended_by_budget: True if the budget ended training before its schedule did.
        memory: Memory that training needed, the highest of all ranks.
        core: Throughput with batches that lie on the device.
        breakdown: Phases of a step.
        rank_steps: Every rank's own part of a step.
    """

    steps_per_epoch: int
    steps: int = 0
    samples: int = 0
    windows: list[Window] = field(default_factory=list)
    restart_windows: list[Window] = field(default_factory=list)
    curve: list[EvaluationPoint] = field(default_factory=list)
    data_waits_s: list[float] = field(default_factory=list)
    time_to_target: TimeToTarget | None = None
    warnings: list[str] = field(default_factory=list)
    elapsed_s: float = 0.0
    closed_windows: list[LocalWindow] = field(default_factory=list)
    partial_window: PartialWindow | None = None
    saved_step: int | None = None
    finished_step: int | None = None
    train_seconds: float | None = None
    ended_by_budget: bool = False
    memory: MemoryStats | None = None
    core: Throughput | None = None
    breakdown: StepBreakdown | None = None
    rank_steps: list[RankStep] = field(default_factory=list)

    @property
    def epochs(self) -> int | float:
        """Passes over the training data, with the fraction of one that was not finished."""
        whole, rest = divmod(self.steps, self.steps_per_epoch)
        return self.steps / self.steps_per_epoch if rest else whole

    def state(self) -> tuple[State, State]:
        """Return for a checkpoint what all ranks share, and what only this one has."""
        shared: State = {
            "outcome": {
                "windows": [window.model_dump() for window in self.windows],
                "restart_windows": [window.model_dump() for window in self.restart_windows],
                "curve": [point.model_dump() for point in self.curve],
                "data_waits_s": torch.tensor(self.data_waits_s, dtype=torch.float64),
                "samples": self.samples,
                "steps": self.steps,
                "time_to_target": self.time_to_target and self.time_to_target.model_dump(),
                "warnings": list(self.warnings),
            },
            "elapsed_s": self.elapsed_s,
        }
        own: State = {
            "pending": [asdict(window) for window in self.closed_windows],
            "cut": self.partial_window and asdict(self.partial_window),
        }
        return shared, own

    @classmethod
    def from_state(cls, shared: State, own: State, steps_per_epoch: int) -> RunState:
        """Return the run state that :meth:`state` described."""
        counted = shared["outcome"]
        return cls(
            steps_per_epoch=steps_per_epoch,
            steps=counted["steps"],
            samples=counted["samples"],
            windows=[Window.model_validate(window) for window in counted["windows"]],
            restart_windows=[Window.model_validate(window) for window in counted["restart_windows"]],
            curve=[EvaluationPoint.model_validate(point) for point in counted["curve"]],
            data_waits_s=counted["data_waits_s"].tolist(),
            time_to_target=counted["time_to_target"] and TimeToTarget.model_validate(counted["time_to_target"]),
            warnings=counted["warnings"],
            elapsed_s=shared["elapsed_s"],
            closed_windows=[LocalWindow(**window) for window in own["pending"]],
            partial_window=own["cut"] and PartialWindow(**own["cut"]),
            saved_step=counted["steps"],
        )
