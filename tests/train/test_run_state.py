"""A run that is stopped and resumed does what one does that was never stopped, bit for bit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from chipperf.records.schema import Limits
from tiny_training import StopAt, Training, make_random_training, resume_training, weights

if TYPE_CHECKING:
    from pathlib import Path

    from chipperf.train.run_state import RunState

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


def measured(state: RunState) -> dict[str, Any]:
    """Everything that is not a time."""
    windows = sorted((*state.windows, *state.restart_windows), key=lambda window: window.first_step)
    return {
        "windows": [window.model_dump(exclude={"seconds"}) for window in windows],
        "curve": [point.model_dump(exclude={"elapsed_s"}) for point in state.curve],
        "target": state.time_to_target and state.time_to_target.epoch,
        "counts": (state.steps, state.samples, state.epochs, len(state.data_waits_s)),
    }


def assert_equal(one: Training, other: Training) -> None:
    assert measured(one.state) == measured(other.state)
    for ours, theirs in zip(weights(one), weights(other), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", SCHEDULES)
def test_resumed_training_equals_uninterrupted_training(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    """Stopped once at every edge there is."""
    options = SCHEDULES[name]
    whole = make_random_training(monkeypatch, **options)
    whole.loop.train()
    after = torch.get_rng_state()
    edge = 0
    while True:
        edge += 1
        checkpoints = tmp_path / str(edge)
        first = make_random_training(monkeypatch, checkpoints=checkpoints, stop=StopAt(edge), **options)
        if first.loop.train():
            break
        second = resume_training(monkeypatch, checkpoints, 2, **options)
        second.loop.train()
        assert_equal(whole, second)
        assert torch.equal(torch.get_rng_state(), after)
    assert edge > len(whole.state.curve) + whole.state.steps - 2
    assert_equal(whole, first)


def test_run_may_be_stopped_again_and_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    options = SCHEDULES["everything"]
    whole = make_random_training(monkeypatch, **options)
    whole.loop.train()
    training = make_random_training(monkeypatch, checkpoints=tmp_path, stop=StopAt(1), **options)
    assert not training.loop.train()

    for run_session in range(2, 100):
        training = resume_training(monkeypatch, tmp_path, run_session, stop=StopAt(1), **options)
        if training.loop.train():
            break

    assert run_session > STEPS
    assert_equal(whole, training)
    # No time of such a run says how fast it trains.
    assert training.state.windows == []


def test_killed_run_repeats_what_it_lost(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole = make_random_training(monkeypatch)
    whole.loop.train()
    killed = make_random_training(monkeypatch, checkpoints=tmp_path)
    loss = killed.workload.loss

    def power_cut(model: torch.nn.Module, batch: torch.Tensor) -> Any:
        if killed.state.steps == 20:
            raise RuntimeError("the lights went out")
        return loss(model, batch)

    killed.workload.loss = power_cut
    with pytest.raises(RuntimeError):
        killed.loop.train()

    second = resume_training(monkeypatch, tmp_path, 2)
    assert second.state.steps == 12
    second.loop.train()

    assert_equal(whole, second)


def test_times_of_all_sessions_add_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    options: dict[str, Any] = {"epochs": 1, "target": 2.0}
    first = make_random_training(monkeypatch, checkpoints=tmp_path, stop=StopAt(9), **options)
    assert not first.loop.train()
    second = resume_training(monkeypatch, tmp_path, 2, **options)
    second.session.device.spend(1000)

    second.loop.train()

    state = second.state
    assert state.train_seconds == pytest.approx(12)
    assert state.curve[0].elapsed_s == pytest.approx(12)
    assert sum(window.seconds for window in (*state.windows, *state.restart_windows)) == pytest.approx(10)
    assert {span.name for span in second.context.spans.as_records()} >= {"warmup", "train", "checkpoint", "eval"}


def test_windows_after_a_restart_are_no_throughput(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    options: dict[str, Any] = {"batches_per_epoch": 24, "epochs": 1, "measure_warmup_steps": 4}
    first = make_random_training(monkeypatch, checkpoints=tmp_path, stop=StopAt(11), **options)
    assert not first.loop.train()
    # What was closed is in the record of the session that stopped, too.
    assert [window.first_step for window in first.state.windows] == [5, 9][:1]
    second = resume_training(monkeypatch, tmp_path, 2, **options)

    second.loop.train()

    state = second.state
    assert [(window.first_step, window.steps) for window in state.windows] == [(5, 4), (17, 4), (21, 4)]
    # Stopped within steps 9 to 12, and warmed up again until step 15.
    assert [(window.first_step, window.steps) for window in state.restart_windows] == [(9, 4), (13, 4)]
