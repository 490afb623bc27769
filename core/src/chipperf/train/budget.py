"""How a run ends in time: the last optimizer step that its budget allows, and what the whole schedule would take.

Clocks of ranks differ, and ranks that stop at different steps wait for each other forever. So the main rank's clock
decides, at edges where all ranks meet anyway: nothing is added inside a measurement window.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chipperf.plugin.types import Rank
    from chipperf.run.collectives import Collectives
    from chipperf.train.run_state import RunState


class StepBudget:
    """The optimizer steps that fit into a run's training time.

    Args:
        seconds: Training time, evaluations during training included; ``None`` is no budget, and costs nothing.
        rank: Place of this worker.
        collectives: Over all ranks.
    """

    def __init__(self, seconds: float | None, rank: Rank, collectives: Collectives) -> None:
        self._seconds = seconds
        self._is_main = rank.is_main
        self._collectives = collectives
        self._step_s = 0.0
        self._last_step: int | None = None

    def limit(self, steps: int) -> int:
        """Return how many of a run's ``steps`` the budget allows, as far as is known; the same on all ranks."""
        return steps if self._last_step is None else min(steps, self._last_step)

    def state(self) -> dict[str, float | int | None]:
        """Return what is known of the time of steps, for a checkpoint."""
        return {"step_s": self._step_s, "last_step": self._last_step}

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a :meth:`state`."""
        self._step_s, self._last_step = state["step_s"], state["last_step"]

    def update(self, steps: int, *, elapsed_s: float, step_s: float | None = None, settled: bool = True) -> None:
        """Compute the last step anew; every rank has to call it at the same edges.

        Args:
            steps: Optimizer steps done.
            elapsed_s: This rank's time since training began.
            step_s: Duration of one of the latest steps; ``None`` where none was done since the last time.
            settled: False while the first steps take longer than later ones will: they do not rule another one out.
        """
        if self._seconds is None:
            return
        self._step_s = step_s or self._step_s
        left_s = max(0.0, self._seconds - elapsed_s)
        fitting = math.floor(left_s / self._step_s) if self._step_s > 0 else 0
        if not settled and left_s > 0:
            fitting = max(1, fitting)
        # An int64 counter holds any number of steps that a run can do, and not every duration by another.
        decision = min(steps + fitting, 2**62) if self._is_main else 0
        [self._last_step] = self._collectives.max_counts([decision])


def projected_train_seconds(
    state: RunState, *, steps_per_epoch: int, epochs: int, evaluate_every_epochs: int, evaluations_s: float
) -> float | None:
    """Return how long training would take to the end of its schedule, or ``None`` if no window was measured.

    The steps and evaluations that are left are taken to last as long as those that were measured, on average.

    Args:
        state: What was measured before the run ended.
        steps_per_epoch: Optimizer steps of an epoch.
        epochs: Epochs of the schedule.
        evaluate_every_epochs: Epochs between two evaluations; the last epoch has one always.
        evaluations_s: Time that all evaluations of ``state`` took.
    """
    if state.train_seconds is None or not state.windows:
        return None
    step_s = sum(window.seconds for window in state.windows) / sum(window.steps for window in state.windows)
    evaluation_s = evaluations_s / len(state.curve) if state.curve else 0.0
    epochs_done = state.steps // steps_per_epoch
    evaluations = math.ceil(epochs / evaluate_every_epochs) - epochs_done // evaluate_every_epochs
    return state.train_seconds + (epochs * steps_per_epoch - state.steps) * step_s + evaluations * evaluation_s
