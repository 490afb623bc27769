"""Progress of a run, from the main rank to whoever watches: a small file that is overwritten about once a second.

The launcher draws it. Writing a file keeps terminals and pipes out of the training process.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_INTERVAL_S = 1.0


@dataclass(slots=True)
class Progress:
    """Latest state of a run.

    Attributes:
        phase: What the main rank is doing.
        step: Optimiser steps done.
        steps: Optimiser steps planned.
        samples_per_s: Global throughput since the previous report; not a measurement.
        loss: Mean training loss of the last window; ``None`` before the first.
        evaluation: Latest evaluation, ready to print.
    """

    phase: str = "starting"
    step: int = 0
    steps: int = 0
    samples_per_s: float | None = None
    loss: float | None = None
    evaluation: str = ""


class ProgressFile:
    """Writes progress; on ranks other than the main one it does nothing.

    Args:
        path: File to overwrite; ``None`` to write nothing.
        world_size: Number of ranks, each of which consumes as many samples as this one.
    """

    def __init__(self, path: Path | None, world_size: int) -> None:
        self._path = path
        self._world_size = world_size
        self._progress = Progress()
        self._samples = 0
        self._reported_s = time.monotonic()

    @property
    def loss(self) -> float | None:
        """Mean training loss of the last window."""
        return self._progress.loss

    @loss.setter
    def loss(self, value: float) -> None:
        self._progress.loss = value

    def phase(self, name: str) -> None:
        """Say what begins now."""
        self._progress.phase = name
        self._write()

    def report(self, step: int, steps: int, samples: int) -> None:
        """Count a step of ``samples`` local samples; written at most once a second."""
        self._progress.step, self._progress.steps = step, steps
        self._samples += samples
        now_s = time.monotonic()
        elapsed_s = now_s - self._reported_s
        if elapsed_s < _INTERVAL_S:
            return
        self._progress.samples_per_s = self._samples * self._world_size / elapsed_s
        self._samples, self._reported_s = 0, now_s
        self._write()

    def evaluating(self) -> None:
        """Say that an evaluation is going on: a long one is no hang. Written at most once a second."""
        now_s = time.monotonic()
        if now_s - self._reported_s >= _INTERVAL_S:
            self._reported_s = now_s
            self._write()

    def evaluated(self, epoch: float, metric: str, value: float) -> None:
        """Tell the result of an evaluation."""
        self._progress.evaluation = f"epoch {epoch:g}: {metric} {value:.2%}"
        self._samples, self._reported_s = 0, time.monotonic()
        self._write()

    def _write(self) -> None:
        if self._path is None:
            return
        temporary = self._path.with_suffix(".tmp")
        try:
            temporary.write_text(json.dumps(asdict(self._progress)), encoding="utf-8")
            os.replace(temporary, self._path)
        except OSError:
            # Progress is a courtesy: a full disk stops the run where results are written, with an error of its own.
            return


def read_progress(path: Path) -> Progress | None:
    """Return the latest progress, or ``None`` if there is none yet."""
    try:
        return Progress(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
