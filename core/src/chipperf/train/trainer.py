"""The training loop and its measurements.

The loop that is measured is the loop that trains: windows open and close at synchronised edges, and nothing between two
edges reads from the device. What would disturb it (device-resident batches, a synchronise per phase) has passes of its
own after training.
"""

from __future__ import annotations

import hashlib
import math
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.parallel import DistributedDataParallel

from chipperf.errors import DataError, TrainingError
from chipperf.records.schema import EvaluationPoint, Limits, StepBreakdown, Throughput, TimeToTarget, Window
from chipperf.train.preparation import autocast, data_parallel, memory_format_of
from chipperf.train.windows import (
    MINIMUM_WINDOWS,
    LocalWindow,
    fitting_window_steps,
    plan_window_lengths,
    spread,
    throughput,
)
from chipperf.types import EpochFinished, EvaluationFinished, Knob, WindowFinished

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from chipperf.cases.base import Hyperparameters
    from chipperf.records.events import EventLog
    from chipperf.session import Session
    from chipperf.train.collectives import Collectives
    from chipperf.train.progress import ProgressFile
    from chipperf.train.spans import Spans
    from chipperf.train.workload import Batch, Workload
    from chipperf.types import DistributedConfig, MemoryStats, PrecisionPolicy, Rank

POOL_BATCHES = 4
"""Device-resident batches the core pass rotates through, so that no cache keeps a single one warm."""

DIAGNOSTIC_STEPS = 10
"""Steps of the pass that synchronises after every phase."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """What a trainer works with; every field is this rank's."""

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


@dataclass(slots=True)
class Outcome:
    """What a run measured so far; complete even when training fails halfway."""

    steps_per_epoch: int
    windows: list[Window] = field(default_factory=list)
    curve: list[EvaluationPoint] = field(default_factory=list)
    data_waits_s: list[float] = field(default_factory=list)
    samples: int = 0
    steps: int = 0
    train_seconds: float | None = None
    time_to_target: TimeToTarget | None = None
    core: Throughput | None = None
    breakdown: StepBreakdown | None = None
    memory: MemoryStats | None = None

    @property
    def epochs(self) -> float:
        """Passes over the training data, with the fraction of one that was not finished."""
        return self.steps / self.steps_per_epoch


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
        self._model = context.session.prepare_model(model, context.precision, context.device)
        context.workload.memory_format = memory_format_of(self._model)
        self._parallel = data_parallel(self._model, context.distributed, context.device)
        self._optimizer = context.workload.build_optimizer(self._model)
        self._scaler = torch.amp.GradScaler(context.device.type, enabled=context.precision.grad_scaler)
        self._loss_sum = torch.zeros((), dtype=torch.float32, device=context.device)
        self._rates: list[float] = []
        self._train_start_s = 0.0

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
        """Optimiser steps of the whole run, as far as limits allow and unless the target is met earlier."""
        h, limits = self._context.hyperparameters, self._context.limits
        epochs = min(h.epochs, limits.max_epochs or h.epochs)
        steps = epochs * self._workload.steps_per_epoch
        return min(steps, limits.max_steps or steps)

    def train(self) -> None:
        """Train until the target, the last epoch or a limit; ``outcome`` holds the results.

        Raises:
            TrainingError: The loss is not finite, or evaluation changed the model.
        """
        self._train_start_s = self._edge()
        epoch = 0
        while self.outcome.steps < self.planned_steps:
            self._train_epoch(epoch)
            epoch += 1
            finished = self.outcome.steps >= self.planned_steps
            if (epoch % self._context.hyperparameters.evaluate_every_epochs == 0 or finished) and self._evaluate(epoch):
                break
        self.outcome.train_seconds = self._edge() - self._train_start_s
        self.outcome.memory = self._peak_memory()

    def measure_core(self) -> None:
        """Measure throughput with device-resident batches, and break a step down; changes the weights."""
        h = self._context.hyperparameters
        with self._context.spans.measure("core_pass"):
            pool = list(islice(self._workload.epoch_batches(0), POOL_BATCHES))
            batches = cycle([self._workload.to_device(batch) for batch in pool])
            for _ in range(2):
                self._step(batches)
            windows = [
                self._window(batches, epoch=0, steps=h.measure_core_steps, on_device=True)
                for _ in range(MINIMUM_WINDOWS)
            ]
            self.outcome.core = throughput(self._combine(windows))
        with self._context.spans.measure("diagnostic_pass"):
            self.outcome.breakdown = self._break_down(cycle(pool))

    def _train_epoch(self, epoch: int) -> None:
        h, outcome = self._context.hyperparameters, self.outcome
        steps = min(self._workload.steps_per_epoch, self.planned_steps - outcome.steps)
        warmup = min(max(0, h.measure_warmup_steps - outcome.steps), steps)
        self._context.events.write("epoch_start", epoch + 1, step=outcome.steps)
        warmup_windows, windows = [], []
        with self._context.spans.measure("train"):
            batches = self._workload.epoch_batches(epoch)
            if warmup:
                with self._context.spans.measure("warmup"):
                    warmup_windows.append(self._window(batches, epoch=epoch, steps=warmup))
            if warmup or epoch == 0:
                self._context.session.memory_reset_peak(self._device)
            length = fitting_window_steps(h.measure_window_steps, self.planned_steps, h.measure_warmup_steps)
            for window_steps in plan_window_lengths(steps - warmup, length):
                windows.append(self._window(batches, epoch=epoch, steps=window_steps))
        combined = self._combine(windows)
        outcome.windows += combined
        outcome.samples += sum(window.samples for window in (*self._combine(warmup_windows), *combined))
        self._announce(epoch, combined)

    def _window(self, batches: Iterator[Batch], *, epoch: int, steps: int, on_device: bool = False) -> LocalWindow:
        """Run ``steps`` optimiser steps between two synchronised edges."""
        first_step, samples = self.outcome.steps, 0
        self._loss_sum.zero_()
        start_s = self._edge()
        for _ in range(steps):
            if on_device:
                samples += self._step(batches)
            else:
                samples += self._training_step(batches)
        end_s = self._edge()
        loss = float(self._loss_sum) / steps
        if not math.isfinite(loss) and not on_device:
            raise TrainingError(
                f"the training loss is {loss} between steps {first_step + 1} and {first_step + steps}",
                failure_class="non_finite_loss",
                hint="lower lr, add warm-up, or use a wider precision",
            )
        if not on_device:
            self._context.progress.loss = loss
        return LocalWindow(
            epoch=epoch + 1,
            first_step=first_step + 1,
            steps=steps,
            samples=samples,
            nanoseconds=round((end_s - start_s) * 1e9),
            loss=loss,
        )

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

    def _evaluate(self, epoch: int) -> bool:
        """Evaluate, add a point to the curve and return True if the target is met."""
        context, outcome = self._context, self.outcome
        context.events.write("eval_start", epoch, step=outcome.steps)
        with context.spans.measure("eval"):
            self._model.eval()
            # Every rank keeps its own batch statistics; the model that is evaluated is the main rank's.
            context.collectives.broadcast(list(self._model.buffers()))
            before = _hash_buffers(self._model)
            evaluation = self._workload.evaluate(self._model, context.collectives, self.autocast)
            if self._model.training or _hash_buffers(self._model) != before:
                raise TrainingError(
                    "evaluation changed the model: its buffers differ afterwards, or it is in training mode",
                    failure_class="evaluation_changed_model",
                )
            self._model.train()
            elapsed_s = self._edge() - self._train_start_s
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
        if context.target is None or evaluation.value < context.target:
            return False
        outcome.time_to_target = TimeToTarget(seconds=elapsed_s, epoch=epoch)
        return True

    def _peak_memory(self) -> MemoryStats:
        """Return the highest value of every counter over ranks; a counter that a rank does not know stays unknown."""
        local = self._context.session.memory_query(self._device)
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

    def _announce(self, epoch: int, windows: Sequence[Window]) -> None:
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
                ),
            )
        context.events.write("epoch_stop", epoch + 1, step=self.outcome.steps)
        if windows:
            mean_loss = sum((window.loss or 0.0) * window.steps for window in windows) / sum(w.steps for w in windows)
            self._notify(
                "perf_epoch_finished",
                EpochFinished(run_id=context.run_id, epoch=epoch + 1, step=self.outcome.steps, mean_loss=mean_loss),
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
