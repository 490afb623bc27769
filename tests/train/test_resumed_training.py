"""A run that is stopped and resumed does what one does that was never stopped, bit for bit."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from chipperf.cases.workload import Evaluation
from chipperf.errors import TrainingError
from chipperf.plugin.types import MemoryStats
from chipperf.records.checkpoints import list_checkpoints, newest_valid
from chipperf.records.schema import Limits
from chipperf.train.checkpoint import read_checkpoint
from chipperf.train.preparation import generator_states, restore_generators
from tiny_training import DEVICE, FEATURES, FakeSession, StopAt, Training, make_training

if TYPE_CHECKING:
    from pathlib import Path

    from chipperf.train.trainer import Outcome

STEPS = 24
SCHEDULES: dict[str, dict[str, Any]] = {
    "plain": {},
    "everything": {"evaluate_every_steps": 5, "checkpoint_every_steps": 7, "measure_warmup_steps": 4},
    "accumulated": {"batches_per_epoch": 25, "accumulate_steps": 2},
    "no checkpoint but the last": {"checkpoint_every_epochs": 0},
    "one long window": {"measure_window_steps": 100, "measure_warmup_steps": 0, "evaluate_every_epochs": 9},
    "target": {"target": 0.500001, "evaluate_every_steps": 4},
    "limit": {"limits": Limits(max_steps=17)},
    "budget": {"limits": Limits(budget_s=17.5), "evaluate_every_steps": 5},
}


def make(monkeypatch: pytest.MonkeyPatch, **options: Any) -> Training:
    """A training whose losses depend on every generator, and whose quality depends on the weights."""
    random.seed(1)
    np.random.seed(1)
    training = make_training(monkeypatch, **options)
    workload = training.workload

    def loss(model: torch.nn.Module, batch: torch.Tensor) -> torch.Tensor:
        workload.session.device.queued_s += 1.0
        dropped = torch.nn.functional.dropout(batch, 0.5) * (1 + random.random()) + np.random.rand()
        result: torch.Tensor = model(dropped).square().mean()
        return result

    def evaluate(model: torch.nn.Module, *_: object) -> Evaluation:
        torch.rand(1)
        with torch.no_grad():
            value = float(model(torch.ones(1, FEATURES)).sigmoid())
        return Evaluation(value=value, samples=workload.eval_samples, details={"half": value / 2})

    workload.loss = loss
    workload.evaluate = evaluate
    return training


def resumed(monkeypatch: pytest.MonkeyPatch, checkpoints: Path, run_session: int, **options: Any) -> Training:
    training = make(monkeypatch, checkpoints=checkpoints, run_session=run_session, **options)
    found, faults = newest_valid(checkpoints)
    assert found is not None
    assert faults == []
    training.trainer.restore(*read_checkpoint(found[0], 0))
    return training


def weights(training: Training) -> list[torch.Tensor]:
    return [tensor.clone() for tensor in training.trainer._model.state_dict().values()]


def measured(outcome: Outcome) -> dict[str, Any]:
    """Everything that is not a time."""
    windows = sorted((*outcome.windows, *outcome.restart_windows), key=lambda window: window.first_step)
    return {
        "windows": [window.model_dump(exclude={"seconds"}) for window in windows],
        "curve": [point.model_dump(exclude={"elapsed_s"}) for point in outcome.curve],
        "target": outcome.time_to_target and outcome.time_to_target.epoch,
        "counts": (outcome.steps, outcome.samples, outcome.epochs, len(outcome.data_waits_s)),
    }


def assert_equal(one: Training, other: Training) -> None:
    assert measured(one.trainer.outcome) == measured(other.trainer.outcome)
    for ours, theirs in zip(weights(one), weights(other), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", SCHEDULES)
def test_resumed_training_equals_uninterrupted_training(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    """Stopped once at every edge there is."""
    options = SCHEDULES[name]
    whole = make(monkeypatch, **options)
    whole.trainer.train()
    after = torch.get_rng_state()
    edge = 0
    while True:
        edge += 1
        checkpoints = tmp_path / str(edge)
        first = make(monkeypatch, checkpoints=checkpoints, stop=StopAt(edge), **options)
        try:
            first.trainer.train()
        except KeyboardInterrupt:
            second = resumed(monkeypatch, checkpoints, 2, **options)
            second.trainer.train()
            assert_equal(whole, second)
            assert torch.equal(torch.get_rng_state(), after)
        else:
            break
    assert edge > len(whole.trainer.outcome.curve) + whole.trainer.outcome.steps - 2
    assert_equal(whole, first)


def test_run_may_be_stopped_again_and_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    options = SCHEDULES["everything"]
    whole = make(monkeypatch, **options)
    whole.trainer.train()
    training = make(monkeypatch, checkpoints=tmp_path, stop=StopAt(1), **options)
    with pytest.raises(KeyboardInterrupt):
        training.trainer.train()

    for run_session in range(2, 100):
        training = resumed(monkeypatch, tmp_path, run_session, stop=StopAt(1), **options)
        try:
            training.trainer.train()
        except KeyboardInterrupt:
            continue
        break

    assert run_session > STEPS
    assert_equal(whole, training)
    # No time of such a run says how fast it trains.
    assert training.trainer.outcome.windows == []


def test_killed_run_repeats_what_it_lost(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole = make(monkeypatch)
    whole.trainer.train()
    killed = make(monkeypatch, checkpoints=tmp_path)
    loss = killed.workload.loss

    def power_cut(model: torch.nn.Module, batch: torch.Tensor) -> Any:
        if killed.trainer.outcome.steps == 20:
            raise RuntimeError("the lights went out")
        return loss(model, batch)

    killed.workload.loss = power_cut
    with pytest.raises(RuntimeError):
        killed.trainer.train()

    second = resumed(monkeypatch, tmp_path, 2)
    assert second.trainer.outcome.steps == 12
    second.trainer.train()

    assert_equal(whole, second)


def test_times_of_all_sessions_add_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    options: dict[str, Any] = {"epochs": 1, "target": 2.0}
    first = make(monkeypatch, checkpoints=tmp_path, stop=StopAt(9), **options)
    with pytest.raises(KeyboardInterrupt):
        first.trainer.train()
    second = resumed(monkeypatch, tmp_path, 2, **options)
    second.session.device.spend(1000)

    second.trainer.train()

    outcome = second.trainer.outcome
    assert outcome.train_seconds == pytest.approx(12)
    assert outcome.curve[0].elapsed_s == pytest.approx(12)
    assert sum(window.seconds for window in (*outcome.windows, *outcome.restart_windows)) == pytest.approx(10)
    assert {span.name for span in second.spans.as_records()} >= {"warmup", "train", "checkpoint", "eval"}


def test_windows_after_a_restart_are_no_throughput(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    options: dict[str, Any] = {"batches_per_epoch": 24, "epochs": 1, "measure_warmup_steps": 4}
    first = make(monkeypatch, checkpoints=tmp_path, stop=StopAt(11), **options)
    with pytest.raises(KeyboardInterrupt):
        first.trainer.train()
    # What was closed is in the record of the session that stopped, too.
    assert [window.first_step for window in first.trainer.outcome.windows] == [5, 9][:1]
    second = resumed(monkeypatch, tmp_path, 2, **options)

    second.trainer.train()

    outcome = second.trainer.outcome
    assert [(window.first_step, window.steps) for window in outcome.windows] == [(5, 4), (17, 4), (21, 4)]
    # Stopped within steps 9 to 12, and warmed up again until step 15.
    assert [(window.first_step, window.steps) for window in outcome.restart_windows] == [(9, 4), (13, 4)]


def test_peak_memory_is_that_of_all_sessions_without_their_warmup(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"batches_per_epoch": 24, "epochs": 1, "measure_warmup_steps": 4}
    session = FakeSession(memory=MemoryStats(source="fake", peak_allocated_bytes=70, used_bytes=None))
    first = make(monkeypatch, checkpoints=tmp_path, stop=StopAt(11), session=session, **options)
    with pytest.raises(KeyboardInterrupt):
        first.trainer.train()
    session = FakeSession(memory=MemoryStats(source="fake", peak_allocated_bytes=50, used_bytes=9))
    second = resumed(monkeypatch, tmp_path, 2, session=session, **options)

    second.trainer.train()

    assert second.trainer.outcome.memory is not None
    assert second.trainer.outcome.memory.peak_allocated_bytes == 70
    assert second.trainer.outcome.memory.used_bytes is None
    assert session.calls.count("reset") == 1


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({}, [12, 24]),
        ({"checkpoint_every_steps": 10, "keep_checkpoints": 9}, [10, 12, 20, 24]),
        ({"checkpoint_every_steps": 10}, [20, 24]),
        ({"checkpoint_every_epochs": 2}, [24]),
        ({"checkpoint_every_epochs": 0}, []),
        ({"checkpoint_every_steps": 10, "checkpoint_every_epochs": 0, "keep_checkpoints": 1}, [20]),
    ],
)
def test_checkpoints_come_as_often_as_asked_and_only_the_last_stay(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, options: dict[str, int], steps: list[int]
) -> None:
    training = make(monkeypatch, checkpoints=tmp_path, **options)

    training.trainer.train()

    assert [int(path.name.partition("-step")[2]) for path in list_checkpoints(tmp_path)] == steps[::-1]


def test_checkpoints_and_evaluations_lie_between_windows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    training = make(monkeypatch, checkpoints=tmp_path, checkpoint_every_steps=7, evaluate_every_steps=5)
    training.session.device.now_s = 5.0

    training.trainer.train()

    outcome = training.trainer.outcome
    assert [point.step for point in outcome.curve] == [5, 10, 12, 15, 20, 24]
    ends = {window.first_step + window.steps - 1 for window in outcome.windows}
    assert ends >= {5, 7, 10, 12, 14, 15, 20, 21, 24}
    assert {round(window.samples_per_s, 9) for window in outcome.windows} == {5.0}


def test_points_within_an_epoch_have_a_fraction_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    training = make(monkeypatch, evaluate_every_steps=3)

    training.trainer.train()

    points = training.trainer.outcome.curve
    assert [(point.step, point.epoch) for point in points] == [(step, step / 12) for step in range(3, 25, 3)]
    assert [point.model_dump_json()[:12] for point in points[2:4]] == ['{"epoch":0.7', '{"epoch":1,"']


def test_target_may_be_met_within_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    training = make_training(monkeypatch, evaluate_every_steps=5, target=0.7)
    training.workload.qualities = iter([0.6, 0.7])

    training.trainer.train()

    outcome = training.trainer.outcome
    assert outcome.time_to_target is not None
    assert outcome.time_to_target.epoch == pytest.approx(10 / 12)
    assert (outcome.steps, outcome.epochs) == (10, pytest.approx(10 / 12))
    assert [hook for hook, _ in training.session.events].count("perf_epoch_finished") == 1


def test_no_checkpoint_keeps_a_loss_that_is_not_finite(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    training = make(monkeypatch, checkpoints=tmp_path, stop=StopAt(4))
    loss = training.workload.loss
    training.workload.loss = lambda model, batch: loss(model, batch) * float("nan")

    with pytest.raises(TrainingError, match="between steps 1 and 2"):
        training.trainer.train()
    assert list_checkpoints(tmp_path) == []


def test_generators_go_on_where_they_were() -> None:
    def draw() -> list[float]:
        return [random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), float(torch.rand(()))]

    draw()
    states = generator_states(DEVICE)
    drawn = draw()

    restore_generators(states, DEVICE)

    assert draw() == drawn


def test_evaluations_do_not_change_the_course_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    seldom, often = make(monkeypatch, evaluate_every_epochs=9), make(monkeypatch, evaluate_every_steps=1)
    for training in (seldom, often):
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)
        training.trainer.train()

    assert len(often.trainer.outcome.curve) == STEPS
    for one, other in zip(weights(seldom), weights(often), strict=True):
        assert torch.equal(one, other)
