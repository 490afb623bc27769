"""The TensorBoard plugin: found and called like any observer, and what it writes is what the run measured."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from chipperf import (
    EpochFinished,
    EvaluationFinished,
    MemoryStats,
    RunFailed,
    RunFinished,
    RunStarted,
    WindowFinished,
)
from chipperf.plugin.registration import OBSERVER_HOOKS
from chipperf.records.store import read_record
from support import FakeDistributions

if TYPE_CHECKING:
    from support import Perf

pytest.importorskip("tensorboard", reason="tensorboard is not installed: make setup")

SOURCE = Path(__file__).parents[2] / "plugins" / "tensorboard" / "src"
ENTRY_POINT = "[chipperf.observers]\ntensorboard = chipperf_tensorboard.observer\n"
BROKEN = """
from chipperf import hookimpl


@hookimpl
def perf_run_started(event):
    raise OSError("the disk is full")
"""
MEMORY = MemoryStats(source="allocator", peak_allocated_bytes=3 * 2**30)


@pytest.fixture
def observer(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(SOURCE)
    monkeypatch.setenv("PERF_TENSORBOARD", "1")
    from chipperf_tensorboard import observer

    yield observer
    observer._writers.clear()


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """Environment in which the plugin is installed, whether or not it really is, beside one that fails."""
    site = tmp_path / "site"
    distributions = FakeDistributions(site)
    distributions.add("chipperf-tensorboard", ENTRY_POINT, version="0.1.0")
    distributions.add("chipperf-broken", "[chipperf.observers]\nbroken = broken\n")
    (site / "broken.py").write_text(BROKEN, encoding="utf-8")
    return {"PYTHONPATH": os.pathsep.join([str(site), str(SOURCE), *filter(None, sys.path)])}


def scalars(directory: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(directory))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def started(directory: Path, step: int = 0) -> RunStarted:
    return RunStarted(
        run_id="r",
        directory=str(directory),
        case="resnet50",
        vendor="acme",
        precision="fp32",
        world_size=8,
        hyperparameters={},
        step=step,
    )


def window(step: int, loss: float) -> WindowFinished:
    return WindowFinished(run_id="r", step=step, epoch=1, samples=640, seconds=2.0, loss=loss, learning_rate=0.25)


def test_every_observer_hook_is_implemented(observer):
    assert {name for name in vars(observer) if name.startswith("perf_")} == set(OBSERVER_HOOKS)


@pytest.mark.parametrize("end", ["finished", "failed"])
def test_events_become_scalars(observer, tmp_path, end):
    observer.perf_run_started(started(tmp_path))
    observer.perf_window_finished(window(10, 4.0))
    observer.perf_window_finished(window(20, 2.0))
    observer.perf_epoch_finished(EpochFinished(run_id="r", epoch=1, step=25, mean_loss=3.0, memory=MEMORY))
    observer.perf_evaluation_finished(EvaluationFinished(run_id="r", epoch=1, step=25, metric="top1", value=0.5))
    # Before the end: a run that is killed has written what it reported.
    written = scalars(tmp_path / "tensorboard")
    if end == "finished":
        observer.perf_run_finished(RunFinished(run_id="r", record_path="record.json"))
    else:
        observer.perf_run_failed(RunFailed(run_id="r", failure_class="oom", message="full"))

    assert written == {
        "train/loss": [(10, 4.0), (20, 2.0)],
        "train/learning_rate": [(10, 0.25), (20, 0.25)],
        "train/samples_per_s": [(10, 320.0), (20, 320.0)],
        "epoch/mean_loss": [(25, 3.0)],
        "epoch/number": [(25, 1.0)],
        "memory/allocated_peak_gib": [(25, 3.0)],
        "evaluation/top1": [(25, 0.5)],
    }
    assert observer._writers == {}


def test_each_step_stands_once_after_resumes(observer, tmp_path):
    """A checkpoint of step 20 has pending windows, and its evaluation comes again."""
    sessions = [(0, (10, 20, 30, 40)), (20, (10, 20, 30)), (20, (20, 30)), (30, (40,))]
    for number, (resumed, steps) in enumerate(sessions):
        observer.perf_run_started(started(tmp_path, resumed))
        for step in steps:
            observer.perf_window_finished(window(step, float(number)))
        if resumed < 30:
            top1 = EvaluationFinished(run_id="r", epoch=1, step=20, metric="top1", value=0.5)
            observer.perf_evaluation_finished(top1)
        observer.perf_run_failed(RunFailed(run_id="r", failure_class="interrupted", message="stopped"))

    shown = scalars(tmp_path / "tensorboard")
    assert shown["train/loss"] == [(10, 0.0), (20, 0.0), (30, 2.0), (40, 3.0)]
    assert shown["evaluation/top1"] == [(20, 0.5)]


def test_run_that_begins_again_without_a_checkpoint_forgets_everything(observer, tmp_path):
    for loss in (1.0, 2.0):
        observer.perf_run_started(started(tmp_path))
        observer.perf_window_finished(window(10, loss))
        observer.perf_run_failed(RunFailed(run_id="r", failure_class="interrupted", message="stopped"))

    assert scalars(tmp_path / "tensorboard")["train/loss"] == [(10, 2.0)]


@pytest.mark.parametrize("value", [None, "", "0"])
def test_nothing_is_written_unless_asked_for(observer, tmp_path, monkeypatch, value):
    monkeypatch.delenv("PERF_TENSORBOARD")
    if value is not None:
        monkeypatch.setenv("PERF_TENSORBOARD", value)
    observer.perf_run_started(started(tmp_path))
    observer.perf_window_finished(window(10, 4.0))
    observer.perf_run_finished(RunFinished(run_id="r", record_path="record.json"))

    assert list(tmp_path.iterdir()) == []


def test_run_that_failed_before_it_began(observer, tmp_path):
    observer.perf_run_failed(RunFailed(run_id="r", failure_class="config", message="no"))

    assert list(tmp_path.iterdir()) == []


def test_directory_that_cannot_be_written_is_an_error_which_disables_the_observer(observer, tmp_path):
    (tmp_path / "tensorboard").write_text("not a directory")
    with pytest.raises(OSError, match="tensorboard"):
        observer.perf_run_started(started(tmp_path))


@pytest.mark.slow  # Trains.
def test_training(perf: Perf, installed: dict[str, str], image_folder: Path, tmp_path: Path):
    """What a real run writes is what its record has; another observer that fails is named there, and harms neither."""
    run = tmp_path / "run"
    completed = perf(
        *("train", "mobilenetv2", "--vendor", "cpu", "--preset", "tiny", "--set", "measure_window_steps=1"),
        *("--set", "measure_warmup_steps=1", "--set", "batch_size=4", "--data", image_folder, "--out", run),
        **installed,
        PERF_TENSORBOARD="1",
    )
    assert completed.returncode == 0, completed.stderr
    record = read_record(run)

    assert record.status.state == "completed"
    (disabled,) = record.disabled_observers
    assert disabled == "broken (chipperf-broken 1.2): perf_run_started raised OSError: the disk is full"
    written = scalars(run / "tensorboard")
    windows = record.metrics.p_train.windows
    assert [step for step, _ in written["train/loss"]] == [each.first_step + each.steps - 1 for each in windows]
    assert [loss for _, loss in written["train/loss"]] == pytest.approx([each.loss for each in windows], rel=1e-6)
    assert [rate for _, rate in written["train/samples_per_s"]] == pytest.approx(
        [each.samples_per_s for each in windows], rel=1e-6
    )
    curve = {point.step: point.value for point in record.metrics.curve}
    assert dict(written["evaluation/top1"]) == pytest.approx(curve, rel=1e-6)
    base = record.hyperparameters.values["lr"]
    assert all(0 < rate <= base * (1 + 1e-6) for _, rate in written["train/learning_rate"])
    assert all(peak > 0 for _, peak in written["memory/allocated_peak_gib"])
