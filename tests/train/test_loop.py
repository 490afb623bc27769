"""What the training loop counts, where it waits, when it stops, and what it refuses."""

from __future__ import annotations

import math
import signal
from typing import TYPE_CHECKING, Any

import pytest
from chipperf.cases.workload import Evaluation
from chipperf.errors import DataError, TrainingError, TrainingStopped
from chipperf.plugin.types import MemoryStats, Rank
from chipperf.records.checkpoints import list_checkpoints
from chipperf.records.schema import Limits
from chipperf.train import loop as loop_module
from chipperf.train.stop import StopRequest
from tiny_training import FakeSession, StopAt, TwoRanks, make_random_training, make_training, resume_training

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import torch
    from tiny_training import Training


@pytest.mark.parametrize(
    ("accumulate", "steps", "samples"),
    [(1, 24, 24 * 5), (2, 12, 24 * 5), (5, 4, 20 * 5)],
)
def test_samples_are_those_an_optimizer_step_consumed(
    monkeypatch: pytest.MonkeyPatch, accumulate: int, steps: int, samples: int
) -> None:
    training = make_training(monkeypatch, accumulate_steps=accumulate)

    training.loop.train()

    state = training.state
    assert (state.steps, state.samples, state.epochs) == (steps, samples, 2)
    assert training.session.calls.count("step") == steps * accumulate


def test_warmup_is_in_no_window_but_in_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    training = make_training(monkeypatch, measure_warmup_steps=4)

    training.loop.train()

    state = training.state
    assert state.windows[0].first_step == 5
    assert sum(window.steps for window in state.windows) == 24 - 4
    assert sum(window.samples for window in state.windows) == (24 - 4) * 5
    assert state.samples == 24 * 5


def test_windows_follow_each_other_without_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    training = make_training(monkeypatch)

    training.loop.train()

    next_step = 3
    for window in training.state.windows:
        assert window.first_step == next_step
        next_step += window.steps
    assert next_step == 24 + 1


def test_warmup_may_reach_into_the_second_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    training = make_training(monkeypatch, measure_warmup_steps=15)

    training.loop.train()

    assert training.state.windows[0].first_step == 16
    assert training.session.calls.count("reset") == 1


def test_first_step_is_that_of_the_first_session(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def spans(training: Training) -> dict[str, tuple[float, float]]:
        return {name: (start_s, start_s + took_s) for name, (start_s, took_s) in training.context.spans.state().items()}

    stopped = make_random_training(monkeypatch, checkpoints=tmp_path, stop=StopAt(3))
    assert "first_step" not in spans(stopped)
    stopped.loop.train()
    start_s, end_s = spans(stopped)["first_step"]
    training_s = spans(stopped)["train"]
    assert start_s == 0
    assert training_s[0] < end_s < training_s[1]

    resumed = resume_training(monkeypatch, tmp_path, 2)
    resumed.loop.train()
    assert spans(resumed)["first_step"] == (start_s, end_s)


def test_device_is_synchronized_at_window_edges_only(monkeypatch: pytest.MonkeyPatch) -> None:
    training = make_training(monkeypatch, epochs=1)

    training.loop.train()

    between_waits = " ".join(training.session.calls).split("synchronize")
    steps = [part.count("step") for part in between_waits if "step" in part]
    assert steps == [2, *(window.steps for window in training.state.windows)]
    # Two edges for each, and those of the start, the evaluation and the end.
    assert training.session.calls.count("synchronize") == 2 * len(steps) + 3


def test_asynchronous_device_gives_its_true_throughput(monkeypatch: pytest.MonkeyPatch) -> None:
    training = make_training(monkeypatch)
    training.workload.device_seconds_per_step = 2.0
    training.workload.host_seconds_per_step = 0.5

    training.loop.train()
    training.measure_core()

    state = training.state
    # The clock of the fake lets host and device work one after the other.
    assert {round(window.samples_per_s, 9) for window in state.windows} == {5 / 2.5}
    assert state.train_seconds == pytest.approx(24 * 2.5)
    assert state.core is not None
    assert state.core.median == pytest.approx(5 / 2.5)


def test_time_of_the_loader_is_in_training_but_not_in_core_throughput(monkeypatch: pytest.MonkeyPatch) -> None:
    training = make_training(monkeypatch)
    loaded = training.workload.epoch_batches

    def slow_batches(epoch: int, first_batch: int = 0) -> Iterator[torch.Tensor]:
        for batch in loaded(epoch, first_batch):
            training.session.device.spend(4.0)
            yield batch

    training.workload.epoch_batches = slow_batches
    training.workload.host_seconds_per_step = 0.0

    training.loop.train()
    training.measure_core()

    state = training.state
    assert state.windows[0].samples_per_s == pytest.approx(5 / 5.0)
    assert state.core is not None
    assert state.core.median == pytest.approx(5 / 1.0)
    assert set(state.data_waits_s) == {4.0}


@pytest.mark.parametrize(
    ("limits", "steps", "epochs"),
    [
        (Limits(max_steps=5), 5, 5 / 12),
        (Limits(max_epochs=1), 12, 1),
        (Limits(max_steps=17, max_epochs=1), 12, 1),
        (Limits(max_steps=17), 17, 17 / 12),
        (Limits(max_steps=1000, max_epochs=1000), 24, 2),
    ],
)
def test_limits_end_training_with_an_evaluation(
    monkeypatch: pytest.MonkeyPatch, limits: Limits, steps: int, epochs: float
) -> None:
    training = make_training(monkeypatch, limits=limits, evaluate_every_epochs=100)

    training.loop.train()

    state = training.state
    assert state.steps == steps
    assert state.epochs == pytest.approx(epochs)
    assert [point.step for point in state.curve] == [steps]


@pytest.mark.parametrize(("every", "evaluated"), [(1, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (9, [5])])
def test_evaluation_interval(monkeypatch: pytest.MonkeyPatch, every: int, evaluated: list[int]) -> None:
    training = make_training(monkeypatch, epochs=5, evaluate_every_epochs=every)

    training.loop.train()

    assert [point.epoch for point in training.state.curve] == evaluated


def test_training_stops_at_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    training = make_training(monkeypatch, epochs=9, target=0.7)
    training.workload.host_seconds_per_step = 0.0
    training.workload.qualities = iter([0.6, 0.6999999, 0.7, 0.9])

    training.loop.train()

    state = training.state
    assert [point.value for point in state.curve] == [0.6, 0.6999999, 0.7]
    assert state.time_to_target is not None
    assert state.time_to_target.epoch == 3
    assert state.time_to_target.seconds == pytest.approx(36)
    assert state.steps == 36


def test_time_to_target_includes_the_evaluation_that_met_it(monkeypatch: pytest.MonkeyPatch) -> None:
    training = make_training(monkeypatch, epochs=1, target=0.1)
    training.workload.host_seconds_per_step = 0.0

    def evaluate(*_: object) -> Evaluation:
        training.session.device.spend(7.0)
        return Evaluation(value=0.5, samples=10)

    training.workload.evaluate = evaluate

    training.loop.train()

    assert training.state.time_to_target is not None
    assert training.state.time_to_target.seconds == pytest.approx(12 + 7)
    assert training.state.train_seconds == pytest.approx(12 + 7)


def test_target_that_is_not_met_has_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    training = make_training(monkeypatch, target=0.99)

    training.loop.train()

    assert training.state.time_to_target is None
    assert training.state.steps == 24


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_loss_that_is_not_finite_ends_training_and_keeps_what_was_measured(
    monkeypatch: pytest.MonkeyPatch, bad: float
) -> None:
    training = make_training(monkeypatch)
    computed = training.workload.loss

    def loss(model: torch.nn.Module, batch: torch.Tensor) -> Any:
        factor = bad if training.state.steps == 15 else 1.0
        return computed(model, batch) * factor

    training.workload.loss = loss

    with pytest.raises(TrainingError, match="between steps 13 and 16") as caught:
        training.loop.train()
    assert caught.value.failure_class == "non_finite_loss"
    assert training.state.epochs == pytest.approx(16 / 12)
    assert len(training.state.curve) == 1
    assert sum(window.steps for window in training.state.windows) == 10


def test_loader_that_ends_early_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    training = make_training(monkeypatch)
    training.workload.batches_per_epoch -= 1

    with pytest.raises(DataError, match="the loader ended before the epoch's last step"):
        training.loop.train()


def test_results_combine_all_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    collectives = TwoRanks()
    session = FakeSession(
        memory=MemoryStats(source="fake", peak_allocated_bytes=10, used_bytes=7, total_bytes=100, reserved_bytes=None)
    )
    rank = Rank(world_size=2, local_world_size=2)
    training = make_training(monkeypatch, collectives=collectives, session=session, rank=rank)
    training.workload.host_seconds_per_step = 0.0

    training.loop.train()

    state = training.state
    assert state.samples == 24 * 5 * 2
    for window in state.windows:
        assert window.samples == window.steps * 5 * 2
        assert window.seconds == pytest.approx(window.steps * 1.0 * 3)
    assert state.memory is not None
    assert (state.memory.peak_allocated_bytes, state.memory.used_bytes, state.memory.total_bytes) == (30, 21, 300)
    assert state.memory.source == "fake"
    assert collectives.barriers == session.calls.count("synchronize")


def test_observers_hear_of_every_window_epoch_and_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    training = make_training(monkeypatch)

    training.loop.train()

    hooks = [hook for hook, _ in training.session.events]
    assert hooks.count("perf_window_finished") == len(training.state.windows)
    assert hooks.count("perf_epoch_finished") == 2
    assert hooks.count("perf_evaluation_finished") == 2
    last_window = [event for hook, event in training.session.events if hook == "perf_window_finished"][-1]
    assert (last_window.step, last_window.epoch) == (24, 2)
    assert last_window.learning_rate == training.replica.optimizer.param_groups[0]["lr"]
    last_epoch = [event for hook, event in training.session.events if hook == "perf_epoch_finished"][-1]
    assert last_epoch.memory == training.session.memory_query(None)


def test_planned_steps_and_knobs_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    training = make_training(monkeypatch, limits=Limits(max_epochs=1))

    assert training.loop.schedule.planned_steps == 12
    in_force = {knob.name: knob.value for knob in training.replica.knobs}
    assert in_force == {"memory_format": "contiguous_format", "optimizer": "SGD", "deterministic_algorithms": "false"}


def test_spans_tell_warmup_training_and_evaluation_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    training = make_training(monkeypatch)

    training.loop.train()
    training.measure_core()

    names = {span.name for span in training.context.spans.as_records()}
    assert {"train", "warmup", "eval", "core_pass", "diagnostic_pass"} <= names


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
    training = make_random_training(monkeypatch, checkpoints=tmp_path, **options)

    training.loop.train()

    assert [int(path.name.partition("-step")[2]) for path in list_checkpoints(tmp_path)] == steps[::-1]


def test_checkpoints_and_evaluations_lie_between_windows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    training = make_random_training(monkeypatch, checkpoints=tmp_path, checkpoint_every_steps=7, evaluate_every_steps=5)
    training.session.device.now_s = 5.0

    training.loop.train()

    state = training.state
    assert [point.step for point in state.curve] == [5, 10, 12, 15, 20, 24]
    ends = {window.first_step + window.steps - 1 for window in state.windows}
    assert ends >= {5, 7, 10, 12, 14, 15, 20, 21, 24}
    assert {round(window.samples_per_s, 9) for window in state.windows} == {5.0}


def test_points_within_an_epoch_have_a_fraction_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    training = make_random_training(monkeypatch, evaluate_every_steps=3)

    training.loop.train()

    points = training.state.curve
    assert [(point.step, point.epoch) for point in points] == [(step, step / 12) for step in range(3, 25, 3)]
    assert [point.model_dump_json()[:12] for point in points[2:4]] == ['{"epoch":0.7', '{"epoch":1,"']


def test_target_may_be_met_within_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    training = make_training(monkeypatch, evaluate_every_steps=5, target=0.7)
    training.workload.qualities = iter([0.6, 0.7])

    training.loop.train()

    state = training.state
    assert state.time_to_target is not None
    assert state.time_to_target.epoch == pytest.approx(10 / 12)
    assert (state.steps, state.epochs) == (10, pytest.approx(10 / 12))
    assert [hook for hook, _ in training.session.events].count("perf_epoch_finished") == 1


def test_no_checkpoint_keeps_a_loss_that_is_not_finite(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    training = make_random_training(monkeypatch, checkpoints=tmp_path, stop=StopAt(4))
    loss = training.workload.loss
    training.workload.loss = lambda model, batch: loss(model, batch) * float("nan")

    with pytest.raises(TrainingError, match="between steps 1 and 2"):
        training.loop.train()
    assert list_checkpoints(tmp_path) == []


@pytest.mark.parametrize("step", [1, 5, 11, 12, 24])
def test_signal_ends_training_after_its_step_and_a_checkpoint(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, step: int
) -> None:
    training = make_training(monkeypatch, checkpoints=tmp_path, checkpoint_every_epochs=0)
    loss = training.workload.loss

    def signalled_loss(model: torch.nn.Module, batch: torch.Tensor) -> Any:
        if training.state.steps == step - 1:
            signal.raise_signal(signal.SIGTERM)
        return loss(model, batch)

    training.workload.loss = signalled_loss

    assert not training.loop.train()
    assert training.state.steps == step
    assert [path.name for path in list_checkpoints(tmp_path)] == [f"session001-step{step:09d}"]
    assert training.state.train_seconds is None


@pytest.mark.parametrize("checkpoint_every_epochs", [0, 1])
def test_signal_ends_an_evaluation_at_once_where_nothing_is_lost(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, checkpoint_every_epochs: int
) -> None:
    training = make_training(monkeypatch, checkpoints=tmp_path, checkpoint_every_epochs=checkpoint_every_epochs)

    def signalled_evaluation(*_: object) -> Evaluation:
        signal.raise_signal(signal.SIGTERM)
        return Evaluation(value=0.5, samples=10)

    training.workload.evaluate = signalled_evaluation

    if checkpoint_every_epochs:
        with pytest.raises(TrainingStopped):
            training.loop.train()
        assert training.state.curve == []
    else:
        assert not training.loop.train()
        assert [point.step for point in training.state.curve] == [12]
    assert [path.name for path in list_checkpoints(tmp_path)] == ["session001-step000000012"]


def test_signal_after_the_last_place_to_stop_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    class SignalledAtTheEnd(StopRequest):
        def reached(self, wait_for_device: Callable[[], object]) -> bool:
            is_reached = super().reached(wait_for_device)
            # One place after each of twelve steps, and one after the evaluation.
            if self._edge == 13:
                signal.raise_signal(signal.SIGTERM)
            return is_reached

    training = make_training(monkeypatch, epochs=1, stop=SignalledAtTheEnd())

    assert not training.loop.train()
    assert len(training.state.curve) == 1
    assert training.state.train_seconds is None


def test_loss_that_is_unknown_is_no_zero_to_observers(monkeypatch: pytest.MonkeyPatch) -> None:
    training = make_training(monkeypatch, epochs=1)
    combine = loop_module.combine_windows
    monkeypatch.setattr(
        loop_module,
        "combine_windows",
        lambda *windows: [window.model_copy(update={"loss": None}) for window in combine(*windows)],
    )

    training.loop.train()

    events = dict(training.session.events)
    assert events["perf_window_finished"].loss is None
    assert events["perf_epoch_finished"].mean_loss is None
