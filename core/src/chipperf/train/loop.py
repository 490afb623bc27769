"""The training loop.

The training loop itself is measured. Windows open and close at synchronized edges, and nothing between two edges reads
from the device. Evaluations and checkpoints run between windows. Measurements that would disturb the loop follow after
training, in :mod:`chipperf.train.core_pass`.

A resumed run gives bit for bit the results of an uninterrupted run. For this, the checkpoint keeps a window in which
training stopped, with the sum of its losses. After a loader is opened again, the generators that it used are reset.
"""

from __future__ import annotations

import math
import time
from contextlib import nullcontext
from dataclasses import replace
from itertools import chain, islice
from typing import TYPE_CHECKING

from chipperf.errors import DataError, TrainingError
from chipperf.plugin.types import EpochFinished, WindowFinished
from chipperf.run.events import window_value
from chipperf.train.allocator_peak import PeakMemory, highest
from chipperf.train.evaluate import add_evaluation, evaluate
from chipperf.train.preparation import generator_states, restore_generators
from chipperf.train.run_state import PartialWindow, RunState
from chipperf.train.schedule import Schedule, StepBudget
from chipperf.train.windows import LocalWindow, combine_windows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from chipperf.cases.workload import Batch
    from chipperf.records.schema import Window
    from chipperf.train.checkpoint import State
    from chipperf.train.context import RunContext
    from chipperf.train.replica import Replica
    from chipperf.train.schedule import PlannedWindow
    from chipperf.train.windows import WindowKind

_SCALER_STEPS = 100
"""Steps in which the gradient scaler, which halves its scale with each skipped one, finds a scale if there is one."""


class TrainingLoop:
    """Trains one case on one rank and measures it.

    ``replica`` has the model, ``state`` the counters and measurements so far, and ``schedule`` when the run evaluates,
    writes checkpoints and ends.
    """

    def __init__(self, context: RunContext, replica: Replica) -> None:
        self._context = context
        self.replica = replica
        self._budget = StepBudget(context.plan.limits.budget_s, context.rank, context.collectives)
        self._memory = PeakMemory(context.session, context.device)
        self._batches = TrainingBatches(context)
        self._start_s = 0.0
        self._settled_step = 0
        self._unsaved: dict[str, list[int]] = {}
        per_epoch = context.workload.steps_per_epoch
        self.state = RunState(steps_per_epoch=per_epoch)
        self.schedule = Schedule(context.hyperparameters, context.plan.limits, per_epoch, self._budget)

    def train(self) -> bool:
        """Train until the target, the last epoch or a limit; False if a signal stopped training.

        Then all ranks stopped after the same step and wrote a checkpoint, if the run writes any. A signal after the
        last step and evaluation has no effect. One that comes where no work is lost, or after which the ranks cannot
        agree on a step, raises ``TrainingStopped``. A loss that is not finite, or a run without a step, is a
        :class:`TrainingError`.
        """
        context, state = self._context, self.state
        self._start_s = context.edge() - state.elapsed_s
        self._settled_step = state.steps + context.hyperparameters.measure_warmup_steps
        with context.stop.deferred():
            is_complete = self._follow_schedule()
        if not is_complete or context.stop.requested:
            return False
        self._batches.close()
        is_early = state.steps < self.schedule.scheduled_steps
        epoch, rest = divmod(state.steps, state.steps_per_epoch)
        if rest and is_early and state.steps != state.finished_step:
            self._finish_epoch(epoch + 1)
        state.train_seconds = context.edge() - self._start_s
        state.ended_by_budget = state.time_to_target is None and is_early
        state.memory = highest(context.collectives.gather(self._memory.query()))
        return True

    def restore(self, shared: State, own: State) -> None:
        """Restore a checkpoint before training begins."""
        context = self._context
        self.replica.restore(shared, own)
        self.state = RunState.from_state(shared, own, context.workload.steps_per_epoch)
        context.spans.restore(shared["spans"])
        self._budget.restore(shared["budget"])
        self._memory.restore(own["memory"])
        restore_generators(own["generators"], context.device)
        context.events.write("run_resume", self.state.steps, step=self.state.steps)

    def _follow_schedule(self) -> bool:
        """Train and evaluate alternately; return False if all ranks stopped because of a signal."""
        state = self.state
        while state.time_to_target is None:
            evaluated_step = state.curve[-1].step if state.curve else 0
            is_new = state.steps != evaluated_step and state.partial_window is None
            if is_new and self.schedule.evaluates_after(state.steps):
                goes_on = self._evaluate()
            elif state.steps < self.schedule.planned_steps:
                goes_on = self._train_segment()
            else:
                break
            if not goes_on:
                return False
        return True

    def _evaluate(self) -> bool:
        """Evaluate; return False if training stops now."""
        context, state = self._context, self.state
        context.events.write("eval_start", state.epochs, step=state.steps)
        # If the evaluated model has a checkpoint, a stop loses no work.
        is_saved = state.saved_step == state.steps
        with context.stop.immediate() if is_saved else nullcontext(), context.spans.measure("eval"):
            evaluation = evaluate(context, self.replica)
            elapsed_s = context.edge() - self._start_s
            self._update_budget()
        add_evaluation(context, state, evaluation, elapsed_s)
        if self._stop_is_reached():
            self._save()
            return False
        return True

    def _train_segment(self) -> bool:
        """Train to the end of the segment, and write a checkpoint there if one is due; False if training stops now.

        The checkpoint comes before an evaluation at the same step, so that a run killed during it loses no training.
        """
        context, state, schedule = self._context, self.state, self.schedule
        start, end = schedule.segment(state.steps)
        epoch = start // state.steps_per_epoch
        if state.steps % state.steps_per_epoch == 0:
            context.events.write("epoch_start", epoch + 1, step=state.steps)
        with context.spans.measure("train"):
            batches = self._batches.of_epoch(epoch, state)
            for window in schedule.windows(start, end, state):
                goes_on = self._train_window(window, epoch, batches)
                if goes_on and window.end < min(end, schedule.planned_steps):
                    goes_on = not self._stop_is_reached()
                if not goes_on:
                    self._save()
                    # The record of this session needs the combined windows; the checkpoint keeps them uncombined.
                    self._combine_windows()
                    return False
        self._combine_windows()
        if state.steps % state.steps_per_epoch == 0 or state.steps >= schedule.planned_steps:
            self._finish_epoch(epoch + 1)
        stops = self._stop_is_reached()
        if stops or schedule.saves_after(state.steps):
            self._save()
        return not stops

    def _train_window(self, planned: PlannedWindow, epoch: int, batches: Iterator[Batch]) -> bool:
        """Run optimizer steps between two edges; False if training stops between them.

        A resumed run trains the rest of the planned window.
        """
        context, state = self._context, self.state
        kind: WindowKind = "measured"
        if planned.is_warmup:
            kind = "warmup"
        elif planned.start < self._settled_step:
            kind = "restart"
        else:
            self._memory.end_warmup()
        steps, left = planned.end - planned.start, planned.end - state.steps
        before = state.partial_window or PartialWindow(first_step=planned.start, steps=steps)
        state.partial_window = None
        samples = before.samples
        self.replica.loss_sum.fill_(before.loss_sum)
        self.replica.skipped.zero_()
        with context.spans.measure("warmup") if kind == "warmup" else nullcontext():
            start_s = context.edge()
            while left:
                of_step = self.replica.step(batches, state.steps)
                samples += of_step
                state.steps += 1
                if state.steps == 1:
                    context.spans.reach("first_step")
                context.progress.report(state.steps, self.schedule.planned_steps, of_step)
                left -= 1
                if left and self._stop_is_reached():
                    break
            nanoseconds = before.nanoseconds + round((context.edge() - start_s) * 1e9)
        loss_sum = float(self.replica.loss_sum)
        if skipped := int(self.replica.skipped):
            state.skipped_steps[epoch + 1] = state.skipped_steps.get(epoch + 1, 0) + skipped
        loss = loss_sum / (steps - left)
        if not math.isfinite(loss):
            raise TrainingError(
                f"the training loss is {loss} between steps {planned.start + 1} and {planned.end - left}",
                failure_class="non_finite_loss",
                hint="lower lr, add warm-up, or use a wider precision",
            )
        if left:
            state.partial_window = replace(before, samples=samples, nanoseconds=nanoseconds, loss_sum=loss_sum)
            return False
        context.progress.loss = loss
        state.closed_windows.append(
            LocalWindow(
                epoch=epoch + 1,
                first_step=planned.start + 1,
                steps=steps,
                samples=samples,
                nanoseconds=nanoseconds,
                loss=loss,
                kind=kind,
            )
        )
        self._update_budget(step_s=nanoseconds / 1e9 / steps, settled=kind != "warmup")
        return True

    def _stop_is_reached(self) -> bool:
        return self._context.stop.reached(self._context.wait_for_device)

    def _update_budget(self, *, step_s: float | None = None, settled: bool = True) -> None:
        elapsed_s = time.perf_counter() - self._start_s
        self._budget.update(self.state.steps, elapsed_s=elapsed_s, step_s=step_s, settled=settled)

    def _save(self) -> None:
        """Write a checkpoint; if this fails, warn and keep the older checkpoints."""
        context, state = self._context, self.state
        if context.checkpoints is None:
            return
        step = state.steps
        context.events.write("checkpoint_start", step, step=step)
        with context.spans.measure("checkpoint"):
            context.edge()
            shared, own = self._checkpoint()
            fault = context.checkpoints.save(step, shared if context.rank.is_main else None, own)
            context.edge()
        if fault is None:
            state.saved_step = step
        else:
            steps = self._unsaved.setdefault(fault, [])
            if steps:
                state.warnings.remove(_unsaved_warning(steps, fault))
            steps.append(step)
            state.warnings.append(_unsaved_warning(steps, fault))
        context.events.write("checkpoint_stop", fault or "written", step=step)

    def _checkpoint(self) -> tuple[State, State]:
        """Return the shared state and the state of this rank only, as they are between two steps."""
        self.state.elapsed_s = time.perf_counter() - self._start_s
        (model, buffers), (counted, windows) = self.replica.state(), self.state.state()
        shared = {**model, **counted, "spans": self._context.spans.state(), "budget": self._budget.state()}
        generators = generator_states(self._context.device)
        own = {**buffers, **windows, "generators": generators, "memory": self._memory.state()}
        return shared, own

    def _combine_windows(self) -> None:
        """Combine over ranks the windows that were closed since the last call, and announce them."""
        state, closed = self.state, self.state.closed_windows
        state.closed_windows = []
        for window, local in zip(combine_windows(closed, self._context.collectives), closed, strict=True):
            state.samples += window.samples
            if local.kind != "warmup":
                (state.windows if local.kind == "measured" else state.restart_windows).append(window)
                _announce_window(self._context, window, local.kind)

    def _finish_epoch(self, epoch: int) -> None:
        """Announce the end of an epoch, counted from 1; observers are told only if it has a window."""
        context, state = self._context, self.state
        state.finished_step = state.steps
        if context.precision.grad_scaler:
            context.events.write("skipped_steps", state.skipped_steps.get(epoch, 0), epoch=epoch, step=state.steps)
        context.events.write("epoch_stop", epoch, step=state.steps)
        _require_a_step(state, self.schedule.planned_steps)
        windows = [window for window in (*state.restart_windows, *state.windows) if window.epoch == epoch]
        if windows:
            loss, memory = _mean_loss(windows), self._memory.query()
            context.notify(
                EpochFinished(run_id=context.plan.run_id, epoch=epoch, step=state.steps, mean_loss=loss, memory=memory)
            )


def _mean_loss(windows: Sequence[Window]) -> float | None:
    losses = [window.loss * window.steps for window in windows if window.loss is not None]
    return sum(losses) / sum(window.steps for window in windows) if len(losses) == len(windows) else None


def _require_a_step(state: RunState, planned_steps: int) -> None:
    """Fail if every step was skipped, and either no other follows or the gradient scaler has had its time."""
    if sum(state.skipped_steps.values()) == state.steps >= min(planned_steps, _SCALER_STEPS):
        raise TrainingError(
            f"the gradient scaler skipped all {state.steps} optimizer steps, because gradients overflowed",
            failure_class="no_step_taken",
            hint="lower lr, or use a wider precision such as bf16; a run of a few steps may be too short",
        )


def _unsaved_warning(steps: Sequence[int], fault: str) -> str:
    which = str(steps[0])
    if len(steps) > 1:
        which = f"{steps[0]} and {len(steps) - 1} later ones, the last after step {steps[-1]}"
    return f"no checkpoint after step {which}: {fault}; older ones were kept"


def _announce_window(context: RunContext, window: Window, kind: WindowKind) -> None:
    last_step = window.first_step + window.steps - 1
    context.events.write(
        "window_stop",
        window_value(window),
        epoch=window.epoch,
        step=last_step,
        first_step=window.first_step,
        kind=kind,
    )
    context.notify(
        WindowFinished(
            run_id=context.plan.run_id,
            step=last_step,
            epoch=window.epoch,
            samples=window.samples,
            seconds=window.seconds,
            loss=window.loss,
            learning_rate=context.workload.learning_rates(last_step - 1)[0],
        )
    )


class TrainingBatches:
    """Batches of one rank on its device, with the waiting time of each; an epoch's loader stays open until the next."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._open: tuple[int, Iterator[Batch]] | None = None

    def of_epoch(self, epoch: int, state: RunState) -> Iterator[Batch]:
        """Return the batches of an epoch, counted from 0, starting with the next step; ``state`` receives the waits.

        In the middle of an epoch, the random generators of training keep their state.
        """
        if self._open is None or self._open[0] != epoch:
            self._open = (epoch, self._to_device(self._load(epoch, state), state.data_waits_s))
        return self._open[1]

    def close(self) -> None:
        """Drop the open loader."""
        self._open = None

    def _load(self, epoch: int, state: RunState) -> Iterator[Batch]:
        context = self._context
        done = state.steps - epoch * state.steps_per_epoch
        batches = context.workload.epoch_batches(epoch, done * context.hyperparameters.accumulate_steps)
        if not done:
            return batches
        # Opening a loader draws a seed for its processes. The seed of this epoch was already drawn.
        generators = generator_states(context.device)
        batches = chain(list(islice(batches, 1)), batches)
        restore_generators(generators, context.device)
        return batches

    def _to_device(self, batches: Iterator[Batch], waits_s: list[float]) -> Iterator[Batch]:
        while True:
            start_s = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration as error:
                raise DataError("the loader ended before the epoch's last step") from error
            waits_s.append(time.perf_counter() - start_s)
            yield self._context.workload.to_device(batch)
