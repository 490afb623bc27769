"""The training loop and its measurements.

The loop that is measured is the loop that trains: windows open and close at synchronised edges, and nothing between two
edges reads from the device. What would disturb it (device-resident batches, a synchronise per phase) has passes of its
own after training, and evaluations and checkpoints come between windows.

A run that is interrupted and resumed does what an uninterrupted one does, bit for bit: a window that was cut is kept
with the sum of its losses, and generators are set back after a loader that was opened again has drawn from them.
"""

from __future__ import annotations

import hashlib
import math
import statistics
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from itertools import chain, cycle, islice
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch.nn.parallel import DistributedDataParallel

from chipperf.errors import DataError, TrainingError
from chipperf.plugin.types import EpochFinished, EvaluationFinished, Knob, MemoryStats, WindowFinished
from chipperf.records.schema import (
    EvaluationPoint,
    Limits,
    Missing,
    RankStep,
    StepBreakdown,
    Throughput,
    TimeToTarget,
    Window,
)
from chipperf.train.budget import StepBudget
from chipperf.train.preparation import (
    autocast,
    data_parallel,
    generator_states,
    memory_format_of,
    restore_generators,
    synchronised_batchnorm,
)
from chipperf.train.stop import StopRequest
from chipperf.train.windows import (
    MINIMUM_WINDOWS,
    LocalWindow,
    PlannedWindow,
    fitting_window_steps,
    plan_window_lengths,
    plan_windows,
    segment_around,
    spread,
    throughput,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from chipperf.cases.base import Hyperparameters
    from chipperf.cases.workload import Batch, Workload
    from chipperf.plugin.session import Session
    from chipperf.plugin.types import DistributedConfig, PrecisionPolicy, Rank
    from chipperf.run.collectives import Collectives
    from chipperf.run.events import EventLog
    from chipperf.run.progress import ProgressFile
    from chipperf.train.checkpoint import CheckpointWriter, State
    from chipperf.train.spans import Spans
    from chipperf.train.windows import WindowKind

POOL_BATCHES = 4
"""Device-resident batches the core pass rotates through, so that no cache keeps a single one warm."""

DIAGNOSTIC_STEPS = 10
"""Steps of the pass that synchronises after every phase."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """What a trainer works with; every field is this rank's. Without ``checkpoints`` none are written."""

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


@dataclass(slots=True)
class Outcome:
    """What a run measured so far; complete even when training fails halfway.

    ``restart_windows`` are windows in which a resumed run warmed up.
    """

    steps_per_epoch: int
    windows: list[Window] = field(default_factory=list)
    restart_windows: list[Window] = field(default_factory=list)
    curve: list[EvaluationPoint] = field(default_factory=list)
    data_waits_s: list[float] = field(default_factory=list)
    samples: int = 0
    steps: int = 0
    train_seconds: float | None = None
    time_to_target: TimeToTarget | None = None
    core: Throughput | None = None
    breakdown: StepBreakdown | None = None
    rank_steps: list[RankStep] = field(default_factory=list)
    memory: MemoryStats | None = None
    warnings: list[str] = field(default_factory=list)
    ended_by_budget: bool = False

    @property
    def epochs(self) -> float:
        """Passes over the training data, with the fraction of one that was not finished."""
        return self.steps / self.steps_per_epoch

    def state(self) -> State:
        """Return what is known before training ends, for a checkpoint."""
        return {
            "windows": [window.model_dump() for window in self.windows],
            "restart_windows": [window.model_dump() for window in self.restart_windows],
            "curve": [point.model_dump() for point in self.curve],
            "data_waits_s": torch.tensor(self.data_waits_s, dtype=torch.float64),
            "samples": self.samples,
            "steps": self.steps,
            "time_to_target": self.time_to_target and self.time_to_target.model_dump(),
            "warnings": list(self.warnings),
        }

    @classmethod
    def from_state(cls, state: State, steps_per_epoch: int) -> Outcome:
        """Return the outcome that :meth:`state` described."""
        return cls(
            steps_per_epoch=steps_per_epoch,
            windows=[Window.model_validate(window) for window in state["windows"]],
            restart_windows=[Window.model_validate(window) for window in state["restart_windows"]],
            curve=[EvaluationPoint.model_validate(point) for point in state["curve"]],
            data_waits_s=state["data_waits_s"].tolist(),
            samples=state["samples"],
            steps=state["steps"],
            time_to_target=state["time_to_target"] and TimeToTarget.model_validate(state["time_to_target"]),
            warnings=state["warnings"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CutWindow:
    """One rank's part of a window in which training was stopped: the rest follows when it is resumed."""

    first_step: int
    steps: int
    samples: int
    nanoseconds: int
    loss_sum: float


class Trainer:
    """Trains one case on one rank and measures it.

    Args:
        context: Everything a run needs.
    """

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._workload = context.workload
        self._device = context.device
        self.outcome = Outcome(steps_per_epoch=context.workload.steps_per_epoch)
        model = context.workload.build_model().to(context.device)
        if context.hyperparameters.sync_batchnorm and context.distributed is not None:
            model = synchronised_batchnorm(model, context.device)
        self._model = context.session.prepare_model(model, context.precision, context.device)
        context.workload.memory_format = memory_format_of(self._model)
        self._parallel = data_parallel(self._model, context.distributed, context.device)
        self._optimizer = context.workload.build_optimizer(self._model)
        self._scaler = torch.amp.GradScaler(context.device.type, enabled=context.precision.grad_scaler)
        self._loss_sum = torch.zeros((), dtype=torch.float32, device=context.device)
        self._rates: list[float] = []
        self._train_start_s = 0.0
        self._earlier_s = 0.0
        self._batches: tuple[int, Iterator[Batch]] | None = None
        self._pending: list[LocalWindow] = []
        self._cut: CutWindow | None = None
        self._peak_is_of_warmup = True
        self._memory_before: MemoryStats | None = None
        self._settled_step = 0
        self._saved_step: int | None = None
        self._finished_step: int | None = None
        self._budget = StepBudget(context.limits.budget_s, context.rank, context.collectives)

    @property
    def knobs(self) -> tuple[Knob, ...]:
        """What core chose, or found chosen, that changes speed or numerics."""
        fused = " fused" if self._optimizer.defaults.get("fused") else ""
        layout = str(self._workload.memory_format).removeprefix("torch.")
        deterministic = str(torch.are_deterministic_algorithms_enabled()).lower()
        return (
            Knob(name="memory_format", value=layout, reason="layout of the convolution weights; inputs follow it"),
            Knob(
                name="optimizer", value=f"{type(self._optimizer).__name__}{fused}", reason="the fastest that is there"
            ),
            Knob(name="deterministic_algorithms", value=deterministic, reason="hyperparameter deterministic"),
        )

    @property
    def weight_dtype(self) -> torch.dtype:
        """Type of the weights that products are computed with."""
        return next((p.dtype for p in self._model.parameters() if p.dim() > 1), torch.float32)

    @property
    def planned_steps(self) -> int:
        """Optimiser steps of the whole run, as far as limits allow and unless the target is met earlier.

        Under a budget this is an estimate that becomes the truth; it is the same on all ranks.
        """
        return self._budget.limit(self._scheduled_steps)

    @property
    def _scheduled_steps(self) -> int:
        h, limits = self._context.hyperparameters, self._context.limits
        epochs = min(h.epochs, limits.max_epochs or h.epochs)
        steps = epochs * self._workload.steps_per_epoch
        return min(steps, limits.max_steps or steps)

    def train(self) -> None:
        """Train until the target, the last epoch or a limit; ``outcome`` holds the results.

        Raises:
            TrainingError: The loss is not finite, or evaluation changed the model.
            KeyboardInterrupt: Training was asked to stop; a checkpoint was written if the run writes any.
        """
        self._train_start_s = self._edge() - self._earlier_s
        with self._context.stop.deferred():
            while self.outcome.time_to_target is None:
                if self._evaluation_is_due:
                    self._evaluate()
                elif self.outcome.steps < self.planned_steps:
                    self._train_segment()
                else:
                    break
        self._batches = None
        epoch, rest = divmod(self.outcome.steps, self._workload.steps_per_epoch)
        if rest and self.outcome.steps < self._scheduled_steps and self.outcome.steps != self._finished_step:
            self._finish_epoch(epoch)
        self.outcome.train_seconds = self._edge() - self._train_start_s
        self.outcome.ended_by_budget = (
            self.outcome.time_to_target is None and self.outcome.steps < self._scheduled_steps
        )
        self.outcome.memory = self._peak_memory()

    def state(self) -> tuple[State, State]:
        """Return what all ranks share, and what only this one has, as it is between two steps."""
        shared: State = {
            "model": self._model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "outcome": self.outcome.state(),
            "spans": self._context.spans.state(),
            "elapsed_s": time.perf_counter() - self._train_start_s,
            "budget": self._budget.state(),
        }
        own: State = {
            # Batch statistics are every rank's own until an evaluation.
            "buffers": dict(self._model.named_buffers()),
            "generators": generator_states(self._device),
            "pending": [asdict(window) for window in self._pending],
            "cut": self._cut and asdict(self._cut),
            "memory": self._memory_state(),
        }
        return shared, own

    def restore(self, shared: State, own: State) -> None:
        """Go back to a :meth:`state`, before training begins."""
        self._model.load_state_dict(shared["model"])
        with torch.no_grad():
            for name, buffer in self._model.named_buffers():
                buffer.copy_(own["buffers"][name])
        self._optimizer.load_state_dict(shared["optimizer"])
        self._scaler.load_state_dict(shared["scaler"])
        self.outcome = Outcome.from_state(shared["outcome"], self._workload.steps_per_epoch)
        self._context.spans.restore(shared["spans"])
        self._earlier_s = shared["elapsed_s"]
        self._budget.restore(shared["budget"])
        self._pending = [LocalWindow(**window) for window in own["pending"]]
        self._cut = own["cut"] and CutWindow(**own["cut"])
        self._memory_before = own["memory"] and MemoryStats(**own["memory"])
        self._saved_step = self.outcome.steps
        self._settled_step = self.outcome.steps + self._context.hyperparameters.measure_warmup_steps
        restore_generators(own["generators"], self._device)
        self._context.events.write("run_resume", self.outcome.steps, step=self.outcome.steps)

    def measure_core(self, cards: Sequence[str] = ()) -> None:
        """Measure throughput with device-resident batches, and break a step down; changes the weights.

        Args:
            cards: What to call each rank's device.
        """
        h = self._context.hyperparameters
        with self._context.spans.measure("core_pass"):
            pool = list(islice(self._workload.epoch_batches(0), POOL_BATCHES))
            batches = cycle([self._workload.to_device(batch) for batch in pool])
            for _ in range(2):
                self._step(batches)
            windows = [
                self._window(
                    batches, epoch=0, first_step=self.outcome.steps, steps=h.measure_core_steps, on_device=True
                )
                for _ in range(MINIMUM_WINDOWS)
            ]
            self.outcome.core = throughput(self._combine(windows))
        with self._context.spans.measure("diagnostic_pass"):
            self.outcome.breakdown = self._break_down(cycle(pool))
            if self._context.rank.world_size > 1:
                self.outcome.rank_steps = self._time_ranks(cycle(pool), cards)

    @property
    def _epoch(self) -> int | float:
        """Epochs that are done, a fraction within one."""
        whole, rest = divmod(self.outcome.steps, self._workload.steps_per_epoch)
        return self.outcome.steps / self._workload.steps_per_epoch if rest else whole

    @property
    def _evaluation_is_due(self) -> bool:
        h, steps, curve = self._context.hyperparameters, self.outcome.steps, self.outcome.curve
        if steps == 0 or self._cut is not None or (curve and curve[-1].step == steps):
            return False
        return steps >= self.planned_steps or self._is_multiple(h.evaluate_every_steps, h.evaluate_every_epochs)

    @property
    def _checkpoint_is_due(self) -> bool:
        h = self._context.hyperparameters
        return self._is_multiple(h.checkpoint_every_steps, h.checkpoint_every_epochs)

    def _is_multiple(self, every_steps: int, every_epochs: int) -> bool:
        """Return True if that many steps, or whole epochs, were done since the last time; 0 is never."""
        epochs, rest = divmod(self.outcome.steps, self._workload.steps_per_epoch)
        by_epoch = every_epochs > 0 and rest == 0 and epochs % every_epochs == 0
        return by_epoch or (every_steps > 0 and self.outcome.steps % every_steps == 0)

    def _train_segment(self) -> None:
        """Train to the next place where something else happens, and write a checkpoint there if one is due.

        A checkpoint comes before the evaluation of the same place: a run that is killed then has lost no training.
        """
        h, outcome, per_epoch = self._context.hyperparameters, self.outcome, self._workload.steps_per_epoch
        start, end = segment_around(
            outcome.steps,
            steps_per_epoch=per_epoch,
            last_step=self.planned_steps,
            every=(h.evaluate_every_steps, h.checkpoint_every_steps),
        )
        epoch = start // per_epoch
        if outcome.steps % per_epoch == 0 and self._cut is None:
            self._context.events.write("epoch_start", epoch + 1, step=outcome.steps)
        with self._context.spans.measure("train"):
            batches = self._open_batches(epoch)
            for window in self._windows(start, end):
                self._train_window(window, epoch, batches)
                if window.end < min(end, self.planned_steps) and self._stop_is_reached():
                    self._interrupt()
        self._combine_pending()
        if outcome.steps % per_epoch == 0 or outcome.steps >= self.planned_steps:
            self._finish_epoch(epoch)
        stops = self._stop_is_reached()
        if stops or self._checkpoint_is_due:
            self._save()
        if stops:
            raise KeyboardInterrupt

    def _windows(self, start: int, end: int) -> Iterator[PlannedWindow]:
        """Yield the windows that are left of a segment; each is to be trained before the next one is asked for."""
        h, outcome = self._context.hyperparameters, self.outcome
        if self._context.limits.budget_s is None:
            length = fitting_window_steps(h.measure_window_steps, self.planned_steps, h.measure_warmup_steps)
            planned = plan_windows(start, end, warmup_steps=h.measure_warmup_steps, window_steps=length)
            yield from (window for window in planned if window.end > outcome.steps)
            return
        # By the clock, a window is planned when it opens; a resumed run has to close the one in which it was cut.
        while (step := outcome.steps) < (last := min(end, self.planned_steps)) or self._cut is not None:
            # Every step of the warm-up tells how long a step takes, and can be the last.
            length = fitting_window_steps(h.measure_window_steps, self.planned_steps, h.measure_warmup_steps)
            if self._cut is not None:
                step, steps = self._cut.first_step, self._cut.steps
            elif step < h.measure_warmup_steps:
                steps = 1
            else:
                steps = plan_window_lengths(last - step, length)[0]
            yield PlannedWindow(start=step, end=step + steps, is_warmup=step < h.measure_warmup_steps)

    def _open_batches(self, epoch: int) -> Iterator[Batch]:
        """Return the epoch's batches from the next step on; one that has begun leaves generators as they are."""
        if self._batches is not None and self._batches[0] == epoch:
            return self._batches[1]
        done = self.outcome.steps - epoch * self._workload.steps_per_epoch
        batches = self._workload.epoch_batches(epoch, done * self._context.hyperparameters.accumulate_steps)
        if done:
            # Whoever opens a loader draws a seed for its processes. This epoch's has been drawn before.
            states = generator_states(self._device)
            batches = chain(list(islice(batches, 1)), batches)
            restore_generators(states, self._device)
        self._batches = (epoch, batches)
        return batches

    def _train_window(self, planned: PlannedWindow, epoch: int, batches: Iterator[Batch]) -> None:
        kind: WindowKind = "measured"
        if planned.is_warmup:
            kind = "warmup"
        elif planned.start < self._settled_step:
            kind = "restart"
        elif self._peak_is_of_warmup:
            self._context.session.memory_reset_peak(self._device)
            self._peak_is_of_warmup = False
        before, self._cut = self._cut, None
        with self._context.spans.measure("warmup") if kind == "warmup" else nullcontext():
            window = self._window(
                batches, epoch=epoch, first_step=planned.start, steps=planned.end - planned.start, before=before
            )
        self._pending.append(replace(window, kind=kind))
        self._update_budget(step_s=window.nanoseconds / 1e9 / window.steps, settled=kind != "warmup")

    def _update_budget(self, *, step_s: float | None = None, settled: bool = True) -> None:
        elapsed_s = time.perf_counter() - self._train_start_s
        self._budget.update(self.outcome.steps, elapsed_s=elapsed_s, step_s=step_s, settled=settled)

    def _window(
        self,
        batches: Iterator[Batch],
        *,
        epoch: int,
        first_step: int,
        steps: int,
        before: CutWindow | None = None,
        on_device: bool = False,
    ) -> LocalWindow:
        """Run optimiser steps between two synchronised edges.

        Args:
            batches: This rank's, on the device if ``on_device``.
            epoch: Counted from 0.
            first_step: Optimiser steps that were done when the window opened first.
            steps: Length of the window.
            before: Its part that an earlier session trained.
            on_device: True in the core pass, which trains nothing.
        """
        before = before or CutWindow(first_step=first_step, steps=steps, samples=0, nanoseconds=0, loss_sum=0.0)
        samples, left = before.samples, steps if on_device else first_step + steps - self.outcome.steps
        self._loss_sum.fill_(before.loss_sum)
        start_s = self._edge()
        while left:
            samples += self._step(batches) if on_device else self._training_step(batches)
            left -= 1
            if left and not on_device and self._stop_is_reached():
                break
        nanoseconds = before.nanoseconds + round((self._edge() - start_s) * 1e9)
        loss_sum = float(self._loss_sum)
        loss = loss_sum / (steps - left)
        if not math.isfinite(loss) and not on_device:
            raise TrainingError(
                f"the training loss is {loss} between steps {first_step + 1} and {first_step + steps - left}",
                failure_class="non_finite_loss",
                hint="lower lr, add warm-up, or use a wider precision",
            )
        if left:
            self._cut = replace(before, samples=samples, nanoseconds=nanoseconds, loss_sum=loss_sum)
            self._interrupt()
        if not on_device:
            self._context.progress.loss = loss
        return LocalWindow(
            epoch=epoch + 1, first_step=first_step + 1, steps=steps, samples=samples, nanoseconds=nanoseconds, loss=loss
        )

    def _interrupt(self) -> NoReturn:
        """End training between two steps of a segment."""
        self._save()
        # For the record of this session; in the checkpoint these windows still wait for the end of their segment.
        self._combine_pending()
        raise KeyboardInterrupt

    def _stop_is_reached(self) -> bool:
        return self._context.stop.reached(lambda: self._context.session.synchronize(self._device))

    def _save(self) -> None:
        """Write a checkpoint; if it cannot be written, go on with the ones that are there, and say so."""
        context, steps = self._context, self.outcome.steps
        if context.checkpoints is None:
            return
        context.events.write("checkpoint_start", steps, step=steps)
        with context.spans.measure("checkpoint"):
            self._edge()
            shared, own = self.state()
            fault = context.checkpoints.save(steps, shared if context.rank.is_main else None, own)
            self._edge()
        if fault is None:
            self._saved_step = steps
        elif not any(fault in warning for warning in self.outcome.warnings):
            self.outcome.warnings.append(f"no checkpoint after step {steps}: {fault}; older ones were kept")
        context.events.write("checkpoint_stop", fault or "written", step=steps)

    def _training_step(self, batches: Iterator[Batch]) -> int:
        samples = self._step(self._to_device(batches))
        self.outcome.steps += 1
        self._context.progress.report(self.outcome.steps, self.planned_steps, samples)
        return samples

    def _to_device(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        while True:
            start_s = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration as error:
                raise DataError("the loader ended before the epoch's last step") from error
            self.outcome.data_waits_s.append(time.perf_counter() - start_s)
            yield self._workload.to_device(batch)

    def _step(self, batches: Iterator[Batch]) -> int:
        """Run one optimiser step on batches that are on the device; return this rank's samples."""
        accumulate = self._context.hyperparameters.accumulate_steps
        self._set_learning_rate()
        self._optimizer.zero_grad(set_to_none=True)
        samples = 0
        for micro_step in range(accumulate):
            batch = next(batches)
            with self._synchronised_gradients(micro_step == accumulate - 1):
                with self.autocast():
                    loss = self._workload.loss(self._parallel, batch)
                self._scaler.scale(loss / accumulate if accumulate > 1 else loss).backward()
            self._loss_sum += loss.detach().float() / accumulate
            samples += self._workload.sample_count(batch)
        self._update_weights()
        return samples

    def _update_weights(self) -> None:
        """Clip the gradients if the case wants it, and let the optimiser step."""
        if self._workload.max_gradient_norm is not None:
            self._scaler.unscale_(self._optimizer)
            torch.nn.utils.clip_grad_norm_(self._model.parameters(), self._workload.max_gradient_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        if self._context.session.step_end:
            self._context.session.step_end(self._device)

    def _evaluate(self) -> None:
        """Evaluate, add a point to the curve, and note if the target is met."""
        context, outcome, epoch = self._context, self.outcome, self._epoch
        context.events.write("eval_start", epoch, step=outcome.steps)
        # With a checkpoint of the model that is evaluated nothing is lost by stopping.
        is_saved = self._saved_step == outcome.steps
        with context.stop.immediate() if is_saved else nullcontext(), context.spans.measure("eval"):
            self._model.eval()
            # Every rank keeps its own batch statistics; the model that is evaluated is the main rank's.
            context.collectives.broadcast(list(self._model.buffers()))
            before, states = _hash_buffers(self._model), generator_states(self._device)
            with self._model.register_forward_hook(lambda *_: context.progress.evaluating()):
                evaluation = self._workload.evaluate(self._model, context.collectives, self.autocast)
            if self._model.training or _hash_buffers(self._model) != before:
                raise TrainingError(
                    "evaluation changed the model: its buffers differ afterwards, or it is in training mode",
                    failure_class="evaluation_changed_model",
                )
            self._model.train()
            # Training takes the same course however often it is evaluated.
            restore_generators(states, self._device)
            elapsed_s = self._edge() - self._train_start_s
            self._update_budget()
        point = EvaluationPoint(
            epoch=epoch,
            step=outcome.steps,
            value=evaluation.value,
            elapsed_s=elapsed_s,
            samples=evaluation.samples,
            details=dict(evaluation.details),
        )
        outcome.curve.append(point)
        context.events.write("eval_accuracy", evaluation.value, metric=context.metric, epoch=epoch, step=outcome.steps)
        context.events.write("eval_stop", epoch, step=outcome.steps)
        context.progress.evaluated(epoch, context.metric, evaluation.value)
        self._notify(
            "perf_evaluation_finished",
            EvaluationFinished(
                run_id=context.run_id, epoch=epoch, step=outcome.steps, metric=context.metric, value=evaluation.value
            ),
        )
        if context.target is not None and evaluation.value >= context.target:
            outcome.time_to_target = TimeToTarget(seconds=elapsed_s, epoch=epoch)
        if self._stop_is_reached():
            self._save()
            raise KeyboardInterrupt

    def _memory_state(self) -> State | None:
        known = self._memory_before if self._peak_is_of_warmup else self._local_memory()
        return None if known is None else asdict(known)

    def _local_memory(self) -> MemoryStats:
        """Return this rank's counters, of a resumed run the highest of all its sessions."""
        local, before = self._context.session.memory_query(self._device), self._memory_before
        if before is None:
            return local
        names = [name for name in asdict(local) if name.endswith("_bytes")]
        pairs = {name: (getattr(local, name), getattr(before, name)) for name in names}
        highest: dict[str, Any] = {name: None if None in pair else max(pair) for name, pair in pairs.items()}
        return replace(local, **highest)

    def _peak_memory(self) -> MemoryStats:
        """Return the highest value of every counter over ranks; a counter that a rank does not know stays unknown."""
        local = self._local_memory()
        names = [name for name in asdict(local) if name.endswith("_bytes")]
        values = [getattr(local, name) for name in names]
        known = self._context.collectives.sum_counts([value is not None for value in values])
        highest = self._context.collectives.max_counts([value or 0 for value in values])
        world_size = self._context.rank.world_size
        combined: dict[str, Any] = {
            name: value if count == world_size else None
            for name, value, count in zip(names, highest, known, strict=True)
        }
        return replace(local, **combined)

    def _combine(self, windows: Sequence[LocalWindow]) -> list[Window]:
        """Reduce windows over ranks: samples add up, the slowest rank's time counts, losses are averaged."""
        collectives = self._context.collectives
        samples = collectives.sum_counts([window.samples for window in windows])
        nanoseconds = collectives.max_counts([window.nanoseconds for window in windows])
        losses = collectives.mean([window.loss for window in windows])
        return [
            Window(
                epoch=window.epoch,
                first_step=window.first_step,
                steps=window.steps,
                samples=total,
                seconds=slowest / 1e9,
                loss=loss if math.isfinite(loss) else None,
            )
            for window, total, slowest, loss in zip(windows, samples, nanoseconds, losses, strict=True)
        ]

    def _combine_pending(self) -> None:
        """Add the windows that were closed since the last time to the outcome."""
        outcome, pending, self._pending = self.outcome, self._pending, []
        combined = self._combine(pending)
        outcome.samples += sum(window.samples for window in combined)
        by_kind = {
            kind: [window for window, local in zip(combined, pending, strict=True) if local.kind == kind]
            for kind in ("measured", "restart")
        }
        outcome.windows += by_kind["measured"]
        outcome.restart_windows += by_kind["restart"]
        self._announce([*by_kind["restart"], *by_kind["measured"]])

    def _finish_epoch(self, epoch: int) -> None:
        context, outcome = self._context, self.outcome
        self._finished_step = self.outcome.steps
        context.events.write("epoch_stop", epoch + 1, step=outcome.steps)
        windows = [window for window in (*outcome.restart_windows, *outcome.windows) if window.epoch == epoch + 1]
        if windows:
            mean_loss = sum((window.loss or 0.0) * window.steps for window in windows) / sum(w.steps for w in windows)
            self._notify(
                "perf_epoch_finished",
                EpochFinished(
                    run_id=context.run_id,
                    epoch=epoch + 1,
                    step=outcome.steps,
                    mean_loss=mean_loss,
                    memory=self._local_memory(),
                ),
            )

    def _announce(self, windows: Sequence[Window]) -> None:
        context = self._context
        for window in windows:
            last_step = window.first_step + window.steps - 1
            context.events.write(
                "window_stop",
                {"samples": window.samples, "seconds": window.seconds, "loss": window.loss},
                epoch=window.epoch,
                step=last_step,
            )
            self._notify(
                "perf_window_finished",
                WindowFinished(
                    run_id=context.run_id,
                    step=last_step,
                    epoch=window.epoch,
                    samples=window.samples,
                    seconds=window.seconds,
                    loss=window.loss or 0.0,
                    learning_rate=self._workload.learning_rates(last_step - 1)[0],
                ),
            )

    def _notify(self, hook: str, event: object) -> None:
        """Tell the observers. No window is open then, and the span shows what they add to the whole run."""
        with self._context.spans.measure("observers"):
            self._context.session.notify(hook, event)

    def _break_down(self, batches: Iterator[Batch]) -> StepBreakdown | None:
        """Time the phases of single steps with a synchronise after each; slower than training, and says by how much."""
        phases: dict[str, list[float]] = {"h2d": [], "forward": [], "backward": [], "optimiser": []}
        for _ in range(DIAGNOSTIC_STEPS):
            self._optimizer.zero_grad(set_to_none=True)
            start_s = self._edge()
            batch = self._workload.to_device(next(batches))
            start_s = self._lap(phases["h2d"], start_s)
            with self.autocast():
                loss = self._workload.loss(self._parallel, batch)
            start_s = self._lap(phases["forward"], start_s)
            self._scaler.scale(loss).backward()
            start_s = self._lap(phases["backward"], start_s)
            self._update_weights()
            self._lap(phases["optimiser"], start_s)
        steps_s = [sum(parts) for parts in zip(*phases.values(), strict=True)]
        step = spread(steps_s)
        core = self.outcome.core
        if step is None or core is None:
            return None
        undisturbed_s = sum(w.seconds for w in core.windows) / sum(w.steps for w in core.windows)
        undisturbed_s /= self._context.hyperparameters.accumulate_steps
        mean_s = {name: sum(values) / len(values) for name, values in phases.items()}
        return StepBreakdown(
            step=step,
            h2d_s=mean_s["h2d"],
            forward_s=mean_s["forward"],
            backward_s=mean_s["backward"],
            optimiser_s=mean_s["optimiser"],
            steps=DIAGNOSTIC_STEPS,
            slowdown=(sum(steps_s) / len(steps_s)) / undisturbed_s,
        )

    def _time_ranks(self, batches: Iterator[Batch], cards: Sequence[str]) -> list[RankStep]:
        """Time every rank's own part of a step: no gradients are exchanged, so that none waits for a slower one."""
        durations_s: list[float] = []
        for _ in range(DIAGNOSTIC_STEPS):
            self._optimizer.zero_grad(set_to_none=True)
            start_s = self._edge()
            batch = self._workload.to_device(next(batches))
            with self._synchronised_gradients(last_micro_step=False):
                with self.autocast():
                    loss = self._workload.loss(self._parallel, batch)
                self._scaler.scale(loss).backward()
            self._lap(durations_s, start_s)
        waits_s = self.outcome.data_waits_s
        own = (statistics.median(durations_s), statistics.median(waits_s) if waits_s else None)
        all_ranks = self._context.collectives.gather(own)
        return [
            RankStep(
                rank=rank,
                step_s=step_s,
                data_wait_s=Missing(missing="not_run") if wait_s is None else wait_s,
                card=card,
            )
            for rank, (card, (step_s, wait_s)) in enumerate(zip(cards, all_ranks, strict=True))
        ]

    def _lap(self, durations_s: list[float], start_s: float) -> float:
        self._context.session.synchronize(self._device)
        now_s = time.perf_counter()
        durations_s.append(now_s - start_s)
        return now_s

    def _edge(self) -> float:
        """Wait for all ranks and for all queued work, then read the clock."""
        self._context.collectives.barrier()
        self._context.session.synchronize(self._device)
        return time.perf_counter()

    def _set_learning_rate(self) -> None:
        rates = self._workload.learning_rates(self.outcome.steps)
        if rates != self._rates:
            self._rates = rates
            for group, rate in zip(self._optimizer.param_groups, rates, strict=True):
                group["lr"] = rate

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context that forward passes compute in."""
        return autocast(self._context.precision, self._device)

    def _synchronised_gradients(self, last_micro_step: bool) -> AbstractContextManager[object]:
        if last_micro_step or not isinstance(self._parallel, DistributedDataParallel):
            return nullcontext()
        return self._parallel.no_sync()


def _hash_buffers(model: torch.nn.Module) -> str:
    """Return a digest of all buffers: batch statistics must not move during evaluation."""
    digest = hashlib.sha256()
    for name, buffer in model.named_buffers():
        digest.update(name.encode())
        # As bytes: NumPy has no bfloat16.
        digest.update(buffer.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
