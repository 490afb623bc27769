"""Counters and measurements of a run so far."""

from dataclasses import dataclass, field

import torch
from pydantic import TypeAdapter

from chipperf.plugin.types import MemoryStats
from chipperf.records.schema import EvaluationPoint, Number, RankStep, StepBreakdown, Throughput, TimeToTarget, Window
from chipperf.train.checkpoint import State
from chipperf.train.windows import LocalWindow

_COUNTED = {"steps", "samples", "skipped_steps", "elapsed_s"}
_MEASURED = {"windows", "restart_windows", "curve", "time_to_target", "warnings"}
_OWN = {"closed_windows", "partial_window"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PartialWindow:
    """One rank's part of a window in which training stopped; a resumed run completes it."""

    first_step: int
    steps: int
    samples: int = 0
    nanoseconds: int = 0
    loss_sum: float = 0.0


@dataclass(slots=True, kw_only=True)
class RunState:
    """Counters and measurements of a run so far. They go to the record even if training fails.

    A checkpoint holds the state between two steps, without the measurements after training.

    Attributes:
        steps: Completed optimizer steps.
        samples: Samples of all ranks in the combined windows.
        windows: Measured windows, combined over ranks.
        restart_windows: Warm-up windows of a resumed run, combined over ranks.
        data_waits_s: Waiting time of this rank for each of its batches.
        elapsed_s: Training time of this run when the newest checkpoint was written.
        closed_windows: This rank's windows that are not yet combined over ranks.
        partial_window: The window in which training stopped, until it is resumed.
        saved_step: Step of the newest checkpoint.
        finished_step: Step at which this session last announced the end of an epoch.
        train_seconds: Duration of training; ``None`` before training ends.
        memory: Memory that training needed: the highest over all ranks.
        core: Throughput with batches that are already on the device.
        rank_steps: Each rank's own part of a step.
        skipped_steps: Steps that the gradient scaler skipped, by epoch from 1; epochs without one are left out.
        forward_flops: Arithmetic of one sample's forward pass; ``None`` before it was counted, as ``gradient_bytes``.
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
    skipped_steps: dict[int, int] = field(default_factory=dict)
    forward_flops: Number | None = None
    gradient_bytes: int | None = None

    @property
    def epochs(self) -> int | float:
        """Passes over the training data, including the fraction of an unfinished pass."""
        whole, rest = divmod(self.steps, self.steps_per_epoch)
        return self.steps / self.steps_per_epoch if rest else whole

    def state(self) -> tuple[State, State]:
        """Return the shared state and the state of this rank only, for a checkpoint."""
        waits_s = torch.tensor(self.data_waits_s, dtype=torch.float64)
        shared = _STATE.dump_python(self, include=_COUNTED | _MEASURED) | {"data_waits_s": waits_s}
        return {"outcome": shared}, {"windows": _STATE.dump_python(self, include=_OWN)}

    @classmethod
    def from_state(cls, shared: State, own: State, steps_per_epoch: int) -> "RunState":
        """Return the run state of a :meth:`state`."""
        saved = {**shared["outcome"], **own["windows"]}
        waits_s = saved["data_waits_s"].tolist()
        known = {"data_waits_s": waits_s, "saved_step": saved["steps"], "steps_per_epoch": steps_per_epoch}
        return _STATE.validate_python(saved | known)


_STATE = TypeAdapter(RunState)
