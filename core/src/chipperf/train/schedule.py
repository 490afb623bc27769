"""Schedule of a run: its measurement windows, and the optimizer steps after which it evaluates, saves and ends.

With a time budget, the main rank's clock decides which step is the last: the clocks of ranks differ, and ranks that
stop at different steps would wait for each other forever. It decides at edges where all ranks wait for each other in
any case, so this adds nothing to a measurement window.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chipperf.records.schema import MINIMUM_WINDOWS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chipperf.cases.base import Hyperparameters
    from chipperf.plugin.types import Rank
    from chipperf.records.schema import Limits
    from chipperf.run.collectives import Collectives
    from chipperf.train.run_state import RunState


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedWindow:
    """A planned window: the number of completed optimizer steps when it opens and when it closes."""

    start: int
    end: int
    is_warmup: bool


class Schedule:
    """The steps at which a run evaluates, writes checkpoints or ends; they are the same on all ranks.

    If neither the target nor the budget ends it earlier, a run has ``scheduled_steps``.
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
        """Return start and end of the uninterrupted segment that contains the step after ``step``.

        Windows are planned within a segment, so that they end with an epoch, or before an evaluation or a checkpoint.
        The segment depends only on the schedule, so a resumed run gets the same windows.
        """
        every = (self._steps_per_epoch, self._h.evaluate_every_steps, self._h.checkpoint_every_steps)
        intervals = [interval for interval in every if interval]
        start = max(step // interval * interval for interval in intervals)
        end = min(step // interval * interval + interval for interval in intervals)
        return start, min(end, self.planned_steps)

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


def plan_windows(start: int, end: int, *, warmup_steps: int, window_steps: int) -> list[PlannedWindow]:
    """Divide a segment into windows of at most ``window_steps``; the run's warm-up steps get a separate window."""
    warm = min(max(start, warmup_steps), end)
    windows = [PlannedWindow(start=start, end=warm, is_warmup=True)] if warm > start else []
    for length in plan_window_lengths(end - warm, window_steps):
        windows.append(PlannedWindow(start=warm, end=warm + length, is_warmup=False))
        warm += length
    return windows


def plan_window_lengths(steps: int, window_steps: int) -> list[int]:
    """Split ``steps`` consecutive steps into windows of nearly equal length, at most ``window_steps`` each.

    Every step is in exactly one window, so that total samples over total time can check the median.
    """
    if steps <= 0:
        return []
    # Rounded up, because fewer windows than fitting_window_steps expects could be too few for a median.
    count = math.ceil(steps / window_steps)
    shortest, longer = divmod(steps, count)
    return [shortest + (index < longer) for index in range(count)]


def fitting_window_steps(wanted: int, total_steps: int, warmup_steps: int) -> int:
    """Return a window length of at most ``wanted``, so that :data:`MINIMUM_WINDOWS` fit into a short run."""
    return max(1, min(wanted, (total_steps - warmup_steps) // MINIMUM_WINDOWS))


class StepBudget:
    """The optimizer steps that fit into a run's training time, which includes evaluations; ``None`` is no budget."""

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
        """Return the state for a checkpoint."""
        return {"step_s": self._step_s, "last_step": self._last_step}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore a :meth:`state`."""
        self._step_s, self._last_step = state["step_s"], state["last_step"]

    def update(self, steps: int, *, elapsed_s: float, step_s: float | None = None, settled: bool = True) -> None:
        """Update the last step after ``steps``; every rank must call this at the same edges.

        ``elapsed_s`` is this rank's time since training began, and ``step_s`` the duration of a step since the last
        update. While steps are not ``settled``, they are slower than later ones, and if time is left, one more is
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
