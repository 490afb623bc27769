"""Schedule of a run: the optimizer steps after which it evaluates, writes checkpoints and ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chipperf.train.windows import (
    PlannedWindow,
    fitting_window_steps,
    plan_window_lengths,
    plan_windows,
    segment_around,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chipperf.cases.base import Hyperparameters
    from chipperf.records.schema import Limits
    from chipperf.train.budget import StepBudget
    from chipperf.train.run_state import RunState


class Schedule:
    """The steps at which a run evaluates, writes checkpoints or ends; they are the same on all ranks.

    Args:
        hyperparameters: Resolved values.
        limits: Limits that end the run early.
        steps_per_epoch: Optimizer steps of an epoch.
        budget: Steps that the run's time budget allows.

    Attributes:
        scheduled_steps: Optimizer steps of the whole run, if neither the target nor the budget ends it earlier.
    """

    def __init__(
        self, hyperparameters: Hyperparameters, limits: Limits, steps_per_epoch: int, budget: StepBudget
    ) -> None:
        self._h = hyperparameters
        self._steps_per_epoch = steps_per_epoch
        self._budget = budget
        self._by_the_clock = limits.budget_s is not None
        steps = min(hyperparameters.epochs, limits.max_epochs or hyperparameters.epochs) * steps_per_epoch
        self.scheduled_steps = min(steps, limits.max_steps or steps)

    @property
    def planned_steps(self) -> int:
        """Optimizer steps of the whole run, if the target is not met earlier.

        With a budget this is an estimate, which becomes exact by the end of the run.
        """
        return self._budget.limit(self.scheduled_steps)

    def evaluates_after(self, step: int) -> bool:
        """Return whether the run evaluates after ``step`` steps."""
        return step >= self.planned_steps or self._is_multiple(
            step, self._h.evaluate_every_steps, self._h.evaluate_every_epochs
        )

    def saves_after(self, step: int) -> bool:
        """Return whether the run writes a checkpoint after ``step`` steps."""
        return self._is_multiple(step, self._h.checkpoint_every_steps, self._h.checkpoint_every_epochs)

    def segment(self, step: int) -> tuple[int, int]:
        """Return start and end of the uninterrupted segment that contains the step after ``step``."""
        return segment_around(
            step,
            steps_per_epoch=self._steps_per_epoch,
            last_step=self.planned_steps,
            every=(self._h.evaluate_every_steps, self._h.checkpoint_every_steps),
        )

    def windows(self, start: int, end: int, state: RunState) -> Iterator[PlannedWindow]:
        """Yield the remaining windows of a segment; the caller must train each window before it requests the next."""
        warmup_steps = self._h.measure_warmup_steps
        if not self._by_the_clock:
            planned = plan_windows(start, end, warmup_steps=warmup_steps, window_steps=self._window_steps())
            yield from (window for window in planned if window.end > state.steps)
            return
        # With a time budget, a window is planned when it opens; a resumed run must first complete its partial window.
        while (step := state.steps) < (last := min(end, self.planned_steps)) or state.partial_window is not None:
            if state.partial_window is not None:
                step, steps = state.partial_window.first_step, state.partial_window.steps
            elif step < warmup_steps:
                # Every warm-up step gives a new step time, and can be the last step.
                steps = 1
            else:
                steps = plan_window_lengths(last - step, self._window_steps())[0]
            yield PlannedWindow(start=step, end=step + steps, is_warmup=step < warmup_steps)

    def _window_steps(self) -> int:
        return fitting_window_steps(self._h.measure_window_steps, self.planned_steps, self._h.measure_warmup_steps)

    def _is_multiple(self, step: int, every_steps: int, every_epochs: int) -> bool:
        """Return whether ``step`` is a multiple of ``every_steps`` or ``every_epochs``; 0 is never."""
        epochs, rest = divmod(step, self._steps_per_epoch)
        by_epoch = every_epochs > 0 and rest == 0 and epochs % every_epochs == 0
        return by_epoch or (every_steps > 0 and step % every_steps == 0)
