"""Progress of a run: a small file that the main rank overwrites about once a second.

The launcher reads and shows it. With a file, the training process does not depend on terminals and pipes.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter

from chipperf.records.convergence import best_of, quality_text
from chipperf.records.files import read_bounded

FINISHED = "finished"
_INTERVAL_S = 1.0


@dataclass(slots=True)
class Progress:
    """Latest state of a run.

    Attributes:
        phase: Current activity of the main rank.
        step: Finished optimizer steps, of ``steps`` planned ones.
        samples_per_s: Global throughput since the previous report. It is not a measurement.
        samples: What the samples are, in English.
        loss: Mean training loss of the last window; ``None`` before the first window.
        evaluation: Result of the latest evaluation as text.
        steps_per_epoch: Optimizer steps of an epoch; 0 if nothing is trained in epochs.
        best: Best quality so far.
        target: Quality at which training ends; ``None`` if there is none.
        lower_is_better: Whether the smaller of two qualities is the better one; then they are not fractions.
    """

    phase: str = "starting"
    step: int = 0
    steps: int = 0
    samples_per_s: float | None = None
    samples: str = "samples"
    loss: float | None = None
    evaluation: str = ""
    steps_per_epoch: int = 0
    best: float | None = None
    target: float | None = None
    lower_is_better: bool = False

    def shown(self, quality: float) -> str:
        """Return a quality as text."""
        return quality_text(quality, lower=self.lower_is_better)


_PROGRESS = TypeAdapter(Progress)


class ProgressFile:
    """Writes progress. Only the main rank writes.

    Args:
        path: File to overwrite; ``None`` to write no file.
        world_size: Number of ranks. Each uses the same number of samples.

    Attributes:
        loss: Mean training loss of the last window.
    """

    def __init__(self, path: Path | None, world_size: int) -> None:
        self._path = path
        self._world_size = world_size
        self.loss: float | None = None
        self._progress = Progress()
        self._samples = 0
        self._reported_s = time.monotonic()

    def phase(self, name: str) -> None:
        """Report the start of a phase."""
        self._progress.phase = name
        self._write()

    def training(
        self,
        steps_per_epoch: int,
        target: float | None,
        best: float | None,
        *,
        samples: str = "samples",
        lower_is_better: bool = False,
    ) -> None:
        """Report the start of training, with the best quality of former sessions."""
        now = self._progress
        now.steps_per_epoch, now.target, now.best = steps_per_epoch, target, best
        now.samples, now.lower_is_better = samples, lower_is_better
        self.phase("training")

    def report(self, step: int, steps: int, samples: int) -> None:
        """Count a step of ``samples`` local samples. Writes at most once a second."""
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
        """Report that an evaluation is running, so that it is not mistaken for a hang. Writes at most once a second."""
        now_s = time.monotonic()
        if now_s - self._reported_s >= _INTERVAL_S:
            self._reported_s = now_s
            self._write()

    def evaluated(self, epoch: float, metric: str, value: float | None) -> None:
        """Report the result of an evaluation; ``None`` if it has none."""
        now = self._progress
        shown = "not defined" if value is None else now.shown(value)
        known = [each for each in (now.best, value) if each is not None]
        now.best = best_of(known, lower=now.lower_is_better) if known else None
        self._progress.evaluation = f"epoch {round(epoch, 3):g}: {metric} {shown}"
        self._samples, self._reported_s = 0, time.monotonic()
        self._write()

    def _write(self) -> None:
        if self._path is None:
            return
        self._progress.loss = self.loss
        temporary = self._path.with_suffix(".tmp")
        try:
            temporary.write_text(json.dumps(asdict(self._progress)), encoding="utf-8")
            os.replace(temporary, self._path)
        except OSError:
            # Progress is optional. On a full disk, the run stops with an error when it writes results.
            return


def read_progress(path: Path) -> Progress | None:
    """Return the latest progress, or ``None`` if there is none yet."""
    try:
        return _PROGRESS.validate_json(read_bounded(path))
    except (OSError, ValueError):
        return None
