"""When a run evaluates, writes checkpoints and ends, by the number of optimizer steps that are done."""

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
    """The steps after which something other than training happens; they are the same on all ranks.

    Args:
        hyperparameters: Values in force.
        limits: What ends the run early.
        steps_per_epoch: Optimizer steps of an epoch.
        budget: Steps that the run's time allows.

    Attributes:
        scheduled_steps: Optimizer steps of the whole run, unless its target or its budget ends it earlier.
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
        """Optimizer steps of the whole run, unless its target is met earlier.

        Under a budget this is an estimate that becomes the truth.
        """
        return self._budget.limit(self.scheduled_steps)

    def evaluates_after(self, step: int) -> bool:
        """Return True if the run evaluates when ``step`` steps are done."""
        return step >= self.planned_steps or self._is_multiple(
            step, self._h.evaluate_every_steps, self._h.evaluate_every_epochs
        )

    def saves_after(self, step: int) -> bool:
        """Return True if the run writes a checkpoint when ``step`` steps are done."""
        return self._is_multiple(step, self._h.checkpoint_every_steps, self._h.checkpoint_every_epochs)

    def segment(self, step: int) -> tuple[int, int]:
        """Return between which steps nothing else happens, around the step after ``step``."""
        return segment_around(
            step,
            steps_per_epoch=self._steps_per_epoch,
            last_step=self.planned_steps,
            every=(self._h.evaluate_every_steps, self._h.checkpoint_every_steps),
        )

    def windows(self, start: int, end: int, state: RunState) -> Iterator[PlannedWindow]:
        """Yield the windows that are left of a segment; each is to be trained before the next one is asked for."""
        warmup_steps = self._h.measure_warmup_steps
        if not self._by_the_clock:
            planned = plan_windows(start, end, warmup_steps=warmup_steps, window_steps=self._window_steps())
            yield from (window for window in planned if window.end > state.steps)
            return
        # By the clock, a window is planned when it opens; a resumed run has to close the one in which it was stopped.
        while (step := state.steps) < (last := min(end, self.planned_steps)) or state.partial_window is not None:
            if state.partial_window is not None:
                step, steps = state.partial_window.first_step, state.partial_window.steps
            elif step < warmup_steps:
                # Every step of the warm-up tells how long a step takes, and can be the last.
                steps = 1
            else:
                steps = plan_window_lengths(last - step, self._window_steps())[0]
            yield PlannedWindow(start=step, end=step + steps, is_warmup=step < warmup_steps)

    def _window_steps(self) -> int:
        return fitting_window_steps(self._h.measure_window_steps, self.planned_steps, self._h.measure_warmup_steps)

    def _is_multiple(self, step: int, every_steps: int, every_epochs: int) -> bool:
        """Return True if ``step`` is a multiple of that many steps, or of whole epochs; 0 is never."""
        epochs, rest = divmod(step, self._steps_per_epoch)
        by_epoch = every_epochs > 0 and rest == 0 and epochs % every_epochs == 0
        return by_epoch or (every_steps > 0 and step % every_steps == 0)
