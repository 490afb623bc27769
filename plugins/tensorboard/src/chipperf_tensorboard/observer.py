"""The observer: what a run reports becomes scalars in ``RUN/tensorboard``.

Nothing happens unless the variable :data:`VARIABLE` asks for it: that the plugin is installed changes no measurement.
Only the main rank has observers, so there is one writer for a run.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from chipperf import hookimpl

if TYPE_CHECKING:
    from chipperf import EpochFinished, EvaluationFinished, RunFailed, RunFinished, RunStarted, WindowFinished

    from chipperf_tensorboard.writer import ScalarWriter

VARIABLE = "PERF_TENSORBOARD"
DIRECTORY = "tensorboard"
_GIB = 2**30

_writers: dict[str, ScalarWriter] = {}
"""The writer of every run that this process trains, by the run's id."""


@hookimpl
def perf_run_started(event: RunStarted) -> None:
    """Open an event file; that of a resumed run replaces what former sessions wrote of later steps."""
    if os.environ.get(VARIABLE, "0") in ("", "0"):
        return
    # Imported here: who lists plugins needs no TensorBoard.
    from chipperf_tensorboard.writer import ScalarWriter

    _writers[event.run_id] = ScalarWriter(Path(event.directory) / DIRECTORY, event.step)


@hookimpl
def perf_window_finished(event: WindowFinished) -> None:
    """Write loss, learning rate and throughput of a measurement window."""
    scalars = {
        "train/loss": event.loss,
        "train/learning_rate": event.learning_rate,
        "train/samples_per_s": event.samples / event.seconds,
    }
    _write(event.run_id, event.step, scalars)


@hookimpl
def perf_epoch_finished(event: EpochFinished) -> None:
    """Write mean loss and peak memory of an epoch."""
    memory = {
        "memory/allocated_peak_gib": event.memory.peak_allocated_bytes,
        "memory/reserved_peak_gib": event.memory.peak_reserved_bytes,
    }
    known = {tag: size_bytes / _GIB for tag, size_bytes in memory.items() if size_bytes is not None}
    _write(event.run_id, event.step, {"epoch/mean_loss": event.mean_loss, "epoch/number": event.epoch, **known})


@hookimpl
def perf_evaluation_finished(event: EvaluationFinished) -> None:
    """Write the quality of an evaluation, under the name of the case's metric."""
    if event.value is not None:
        _write(event.run_id, event.step, {f"evaluation/{event.metric}": event.value})


@hookimpl
def perf_run_finished(event: RunFinished) -> None:
    """Close the event file."""
    _close(event.run_id)


@hookimpl
def perf_run_failed(event: RunFailed) -> None:
    """Close the event file of a run that failed; it keeps what was reported until then."""
    _close(event.run_id)


def _write(run_id: str, step: int, scalars: dict[str, float | None]) -> None:
    if run_id in _writers:
        _writers[run_id].write(step, {tag: value for tag, value in scalars.items() if value is not None})


def _close(run_id: str) -> None:
    writer = _writers.pop(run_id, None)
    if writer:
        writer.close()
