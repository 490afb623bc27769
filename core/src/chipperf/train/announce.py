"""Announcements of windows, epochs and evaluations to the event log and the observers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chipperf.plugin.types import EpochFinished, EvaluationFinished, WindowFinished

if TYPE_CHECKING:
    from chipperf.plugin.types import Event, MemoryStats
    from chipperf.records.schema import EvaluationPoint, Window
    from chipperf.train.context import RunContext
    from chipperf.train.run_state import RunState


def announce_window(context: RunContext, window: Window) -> None:
    """Announce a window that all ranks have closed."""
    last_step = window.first_step + window.steps - 1
    context.events.write(
        "window_stop",
        {"samples": window.samples, "seconds": window.seconds, "loss": window.loss},
        epoch=window.epoch,
        step=last_step,
    )
    _notify(
        context,
        WindowFinished(
            run_id=context.run_id,
            step=last_step,
            epoch=window.epoch,
            samples=window.samples,
            seconds=window.seconds,
            loss=window.loss or 0.0,
            learning_rate=context.workload.learning_rates(last_step - 1)[0],
        ),
    )


def announce_epoch(context: RunContext, state: RunState, epoch: int, memory: MemoryStats) -> None:
    """Announce the end of an epoch, counted from 1; observers are told only if it has a window."""
    context.events.write("epoch_stop", epoch, step=state.steps)
    windows = [window for window in (*state.restart_windows, *state.windows) if window.epoch == epoch]
    if windows:
        mean_loss = sum((window.loss or 0.0) * window.steps for window in windows) / sum(w.steps for w in windows)
        _notify(
            context,
            EpochFinished(run_id=context.run_id, epoch=epoch, step=state.steps, mean_loss=mean_loss, memory=memory),
        )


def announce_evaluation(context: RunContext, point: EvaluationPoint) -> None:
    """Announce the result of an evaluation."""
    context.events.write("eval_accuracy", point.value, metric=context.metric, epoch=point.epoch, step=point.step)
    context.events.write("eval_stop", point.epoch, step=point.step)
    context.progress.evaluated(point.epoch, context.metric, point.value)
    _notify(
        context,
        EvaluationFinished(
            run_id=context.run_id, epoch=point.epoch, step=point.step, metric=context.metric, value=point.value
        ),
    )


def _notify(context: RunContext, event: Event) -> None:
    """Call the observers while no window is open; the span shows the time that they add to the run."""
    with context.spans.measure("observers"):
        context.session.notify(event)
