"""Time budget of a run: the last optimizer step that it allows, and the projected time of the whole schedule.

The clocks of ranks differ, and ranks that stop at different steps would wait for each other forever. So the main rank's
clock decides, at edges where all ranks wait for each other in any case. This adds nothing to a measurement window.
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
        seconds: Training time, including evaluations during training; ``None`` for no budget, which costs nothing.
        rank: Rank of this worker.
        collectives: Collectives over all ranks.
    """

    def __init__(self, seconds: float | None, rank: Rank, collectives: Collectives) -> None:
        self._seconds = seconds
        self._is_main = rank.is_main
        self._collectives = collectives
        self._step_s = 0.0
        self._last_step: int | None = None

    def limit(self, steps: int) -> int:
        """Return how many of a run's ``steps`` the budget allows by the latest estimate; the same on all ranks."""
        return steps if self._last_step is None else min(steps, self._last_step)

    def state(self) -> dict[str, float | int | None]:
        """Return the state of the budget for a checkpoint."""
        return {"step_s": self._step_s, "last_step": self._last_step}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore a :meth:`state`."""
        self._step_s, self._last_step = state["step_s"], state["last_step"]

    def update(self, steps: int, *, elapsed_s: float, step_s: float | None = None, settled: bool = True) -> None:
        """Update the last step; every rank must call this at the same edges.

        Args:
            steps: Completed optimizer steps.
            elapsed_s: This rank's time since training began.
            step_s: Duration of a recent step; ``None`` if no step was done since the last update.
            settled: False while steps are still slower than later ones will be. Then, if time is left, one more step is
                allowed.
        """
        if self._seconds is None:
            return
        self._step_s = step_s or self._step_s
        left_s = max(0.0, self._seconds - elapsed_s)
        fitting = math.floor(left_s / self._step_s) if self._step_s > 0 else 0
        if not settled and left_s > 0:
            fitting = max(1, fitting)
        # The int64 counter holds every possible number of steps, but not every quotient of two durations.
        decision = min(steps + fitting, 2**62) if self._is_main else 0
        [self._last_step] = self._collectives.max_counts([decision])


def projected_train_seconds(
    state: RunState, *, steps_per_epoch: int, epochs: int, evaluate_every_epochs: int, evaluations_s: float
) -> float | None:
    """Return the projected training time of the whole schedule, or ``None`` if no window was measured.

    Each remaining step and evaluation is assumed to take the average time of the measured ones.

    Args:
        state: State of the run at its end.
        steps_per_epoch: Optimizer steps of an epoch.
        epochs: Epochs of the schedule.
        evaluate_every_epochs: Epochs between two evaluations; the last epoch always has one.
        evaluations_s: Total time of all evaluations of ``state``.
    """
    if state.train_seconds is None or not state.windows:
        return None
    step_s = sum(window.seconds for window in state.windows) / sum(window.steps for window in state.windows)
    evaluation_s = evaluations_s / len(state.curve) if state.curve else 0.0
    epochs_done = state.steps // steps_per_epoch
    evaluations = math.ceil(epochs / evaluate_every_epochs) - epochs_done // evaluate_every_epochs
    return state.train_seconds + (epochs * steps_per_epoch - state.steps) * step_s + evaluations * evaluation_s
