"""How a run tells whoever watches how far it is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from chipperf.run import progress as progress_module
from chipperf.run.progress import ProgressFile

if TYPE_CHECKING:
    from pathlib import Path


def test_progress_of_an_evaluation_is_written_once_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter((10.0, 10.1, 11.1, 11.5, 12.2))
    monkeypatch.setattr(progress_module, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    file = tmp_path / "progress.json"
    progress = ProgressFile(file, 1)

    written = []
    for _ in range(4):
        progress.evaluating()
        written.append(file.exists())
        file.unlink(missing_ok=True)

    assert written == [False, True, False, True]


@pytest.mark.parametrize(("epoch", "shown"), [(1 / 83, "0.012"), (4.0, "4"), (300.0, "300"), (12.5, "12.5")])
def test_evaluation_names_its_epoch_in_few_digits(tmp_path: Path, epoch: float, shown: str) -> None:
    ProgressFile(tmp_path / "progress.json", 1).evaluated(epoch, "top1", 0.155)

    written = progress_module.read_progress(tmp_path / "progress.json")
    assert written is not None
    assert written.evaluation == f"epoch {shown}: top1 15.50%"
