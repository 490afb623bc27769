"""What the training loop counts, where it waits, when it stops, and what it refuses."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from chipperf.cases.workload import Evaluation
from chipperf.errors import DataError, TrainingError
from chipperf.plugin.types import MemoryStats, Rank
from chipperf.records.schema import Limits
from chipperf.run import progress as progress_module
from chipperf.run.progress import ProgressFile
from chipperf.train.trainer import DIAGNOSTIC_STEPS, _hash_buffers
from chipperf.train.windows import MINIMUM_WINDOWS
from tiny_training import FEATURES, FakeSession, TwoRanks, make_training

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.mark.parametrize(
    ("accumulate", "steps", "samples"),
    [(1, 24, 24 * 5), (2, 12, 24 * 5), (5, 4, 20 * 5)],
)
def test_samples_are_those_an_optimiser_step_consumed(
    monkeypatch: pytest.MonkeyPatch, accumulate: int, steps: int, samples: int
) -> None:
    training = make_training(monkeypatch, accumulate_steps=accumulate)

    training.trainer.train()

    outcome = training.trainer.outcome
    assert (outcome.steps, outcome.samples, outcome.epochs) == (steps, samples, 2)
    assert training.session.calls.count("step") == steps * accumulate


def test_warmup_is_in_no_window_but_in_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    training = make_training(monkeypatch, measure_warmup_steps=4)

    training.trainer.train()

    outcome = training.trainer.outcome
    assert outcome.windows[0].first_step == 5
    assert sum(window.steps for window in outcome.windows) == 24 - 4
    assert sum(window.samples for window in outcome.windows) == (24 - 4) * 5
    assert outcome.samples == 24 * 5


def test_windows_follow_each_other_without_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    training = make_training(monkeypatch)

    training.trainer.train()

    next_step = 3
    for window in training.trainer.outcome.windows:
        assert window.first_step == next_step
        next_step += window.steps
    assert next_step == 24 + 1


def test_warmup_may_reach_into_the_second_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    training = make_training(monkeypatch, measure_warmup_steps=15)

    training.trainer.train()

    assert training.trainer.outcome.windows[0].first_step == 16
    assert training.session.calls.count("reset") == 1


def test_device_is_synchronised_at_window_edges_only(monkeypatch: pytest.MonkeyPatch) -> None:
    training = make_training(monkeypatch, epochs=1)

    training.trainer.train()

    between_waits = " ".join(training.session.calls).split("synchronize")
    steps = [part.count("step") for part in between_waits if "step" in part]
    assert steps == [2, *(window.steps for window in training.trainer.outcome.windows)]
    # Two edges for each, and those of the start, the evaluation and the end.
    assert training.session.calls.count("synchronize") == 2 * len(steps) + 3


def test_asynchronous_device_gives_its_true_throughput(monkeypatch: pytest.MonkeyPatch) -> None:
    training = make_training(monkeypatch)
    training.workload.device_seconds_per_step = 2.0
    training.workload.host_seconds_per_step = 0.5

    training.trainer.train()
    training.trainer.measure_core()

    outcome = training.trainer.outcome
    # The clock of the fake lets host and device work one after the other.
    assert {round(window.samples_per_s, 9) for window in outcome.windows} == {5 / 2.5}
    assert outcome.train_seconds == pytest.approx(24 * 2.5)
    assert outcome.core is not None
    assert outcome.core.median == pytest.approx(5 / 2.5)


def test_time_of_the_loader_is_in_training_but_not_in_core_throughput(monkeypatch: pytest.MonkeyPatch) -> None:
    training = make_training(monkeypatch)
    loaded = training.workload.epoch_batches

    def slow_batches(epoch: int, first_batch: int = 0) -> Iterator[torch.Tensor]:
        for batch in loaded(epoch, first_batch):
            training.session.device.spend(4.0)
            yield batch

    training.workload.epoch_batches = slow_batches
    training.workload.host_seconds_per_step = 0.0

    training.trainer.train()
    training.trainer.measure_core()

    outcome = training.trainer.outcome
    assert outcome.windows[0].samples_per_s == pytest.approx(5 / 5.0)
    assert outcome.core is not None
    assert outcome.core.median == pytest.approx(5 / 1.0)
    assert set(outcome.data_waits_s) == {4.0}


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

    training.trainer.train()

    outcome = training.trainer.outcome
    assert outcome.steps == steps
    assert outcome.epochs == pytest.approx(epochs)
    assert [point.step for point in outcome.curve] == [steps]


@pytest.mark.parametrize(("every", "evaluated"), [(1, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (9, [5])])
def test_evaluation_interval(monkeypatch: pytest.MonkeyPatch, every: int, evaluated: list[int]) -> None:
    training = make_training(monkeypatch, epochs=5, evaluate_every_epochs=every)

    training.trainer.train()

    assert [point.epoch for point in training.trainer.outcome.curve] == evaluated


def test_every_batch_of_an_evaluation_is_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    reports: list[object] = []
    monkeypatch.setattr(ProgressFile, "evaluating", lambda progress: reports.append(progress))
    training = make_training(monkeypatch)

    def evaluate(model: torch.nn.Module, collectives: object, autocast: object) -> Evaluation:
        for _ in range(3):
            model(torch.zeros(2, FEATURES))
        return Evaluation(value=0.5, samples=6)

    training.workload.evaluate = evaluate
    training.trainer.train()

    assert len(reports) == 3 * len(training.trainer.outcome.curve) > 0


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


def test_training_stops_at_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    training = make_training(monkeypatch, epochs=9, target=0.7)
    training.workload.host_seconds_per_step = 0.0
    training.workload.qualities = iter([0.6, 0.6999999, 0.7, 0.9])

    training.trainer.train()

    outcome = training.trainer.outcome
    assert [point.value for point in outcome.curve] == [0.6, 0.6999999, 0.7]
    assert outcome.time_to_target is not None
    assert outcome.time_to_target.epoch == 3
    assert outcome.time_to_target.seconds == pytest.approx(36)
    assert outcome.steps == 36


def test_time_to_target_includes_the_evaluation_that_met_it(monkeypatch: pytest.MonkeyPatch) -> None:
    training = make_training(monkeypatch, epochs=1, target=0.1)
    training.workload.host_seconds_per_step = 0.0

    def evaluate(*_: object) -> Evaluation:
        training.session.device.spend(7.0)
        return Evaluation(value=0.5, samples=10)

    training.workload.evaluate = evaluate

    training.trainer.train()

    assert training.trainer.outcome.time_to_target is not None
    assert training.trainer.outcome.time_to_target.seconds == pytest.approx(12 + 7)
    assert training.trainer.outcome.train_seconds == pytest.approx(12 + 7)


def test_target_that_is_not_met_has_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    training = make_training(monkeypatch, target=0.99)

    training.trainer.train()

    assert training.trainer.outcome.time_to_target is None
    assert training.trainer.outcome.steps == 24


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_loss_that_is_not_finite_ends_training_and_keeps_what_was_measured(
    monkeypatch: pytest.MonkeyPatch, bad: float
) -> None:
    training = make_training(monkeypatch)
    computed = training.workload.loss

    def loss(model: torch.nn.Module, batch: torch.Tensor) -> Any:
        factor = bad if training.trainer.outcome.steps == 15 else 1.0
        return computed(model, batch) * factor

    training.workload.loss = loss

    with pytest.raises(TrainingError, match="between steps 13 and 16") as caught:
        training.trainer.train()
    assert caught.value.failure_class == "non_finite_loss"
    assert training.trainer.outcome.epochs == pytest.approx(16 / 12)
    assert len(training.trainer.outcome.curve) == 1
    assert sum(window.steps for window in training.trainer.outcome.windows) == 10


def test_loader_that_ends_early_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    training = make_training(monkeypatch)
    training.workload.batches_per_epoch -= 1

    with pytest.raises(DataError, match="the loader ended before the epoch's last step"):
        training.trainer.train()


def move_statistics(model: torch.nn.Module) -> None:
    model.train()
    with torch.no_grad():
        model(torch.randn(8, 3) + 5)
    model.eval()


def stay_in_training_mode(model: torch.nn.Module) -> None:
    model.train()


@pytest.mark.parametrize("misbehave", [move_statistics, stay_in_training_mode])
def test_evaluation_that_changes_the_model_is_caught(monkeypatch: pytest.MonkeyPatch, misbehave) -> None:  # type: ignore[no-untyped-def]
    training = make_training(monkeypatch)

    def evaluate(model: torch.nn.Module, *_: object) -> Evaluation:
        misbehave(model)
        return Evaluation(value=0.5, samples=10)

    training.workload.evaluate = evaluate

    with pytest.raises(TrainingError) as caught:
        training.trainer.train()
    assert caught.value.failure_class == "evaluation_changed_model"


def test_model_is_evaluated_in_evaluation_mode_and_trained_in_training_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    training = make_training(monkeypatch)
    modes = []
    evaluate, loss = training.workload.evaluate, training.workload.loss

    def watched_evaluate(model: torch.nn.Module, *rest: object) -> Any:
        modes.append(("evaluate", model.training))
        return evaluate(model, *rest)

    def watched_loss(model: torch.nn.Module, batch: torch.Tensor) -> Any:
        modes.append(("loss", model.training))
        return loss(model, batch)

    training.workload.evaluate = watched_evaluate
    training.workload.loss = watched_loss

    training.trainer.train()
    training.trainer.measure_core()

    assert set(modes) == {("evaluate", False), ("loss", True)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_one_changed_buffer_changes_the_digest(dtype: torch.dtype) -> None:
    model = torch.nn.Module()
    model.register_buffer("statistic", torch.zeros(2, dtype=dtype))
    model.register_buffer("batches", torch.zeros((), dtype=dtype))
    before = _hash_buffers(model)

    model.get_buffer("batches").add_(torch.ones((), dtype=dtype))

    assert _hash_buffers(model) != before


def test_core_pass_leaves_what_training_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    training = make_training(monkeypatch)
    training.trainer.train()
    before = replace(training.trainer.outcome, windows=list(training.trainer.outcome.windows))
    loaded = len(before.data_waits_s)

    training.trainer.measure_core()

    after = training.trainer.outcome
    assert (after.samples, after.steps, after.epochs) == (before.samples, before.steps, before.epochs)
    assert after.windows == before.windows
    assert after.curve == before.curve
    assert len(after.data_waits_s) == loaded
    assert after.core is not None
    assert len(after.core.windows) == MINIMUM_WINDOWS
    assert {window.steps for window in after.core.windows} == {2}


def test_core_pass_rotates_through_several_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    training = make_training(monkeypatch)
    moved = []
    to_device = training.workload.to_device

    def watched_to_device(batch: torch.Tensor) -> Any:
        moved.append(batch)
        return to_device(batch)

    training.workload.to_device = watched_to_device
    with_loader = training.workload.loss
    seen = []

    def loss(model: torch.nn.Module, batch: torch.Tensor) -> Any:
        seen.append(batch.data_ptr())
        return with_loader(model, batch)

    training.workload.loss = loss

    training.trainer.measure_core()

    assert len(set(seen)) == 4
    # Four batches are moved for the core pass, and one for every step of the pass that times the move.
    assert len(moved) == 4 + DIAGNOSTIC_STEPS


def test_diagnostic_pass_gives_every_phase_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    training = make_training(monkeypatch)
    training.workload.host_seconds_per_step = 0.0
    to_device = training.workload.to_device

    def slow_to_device(batch: torch.Tensor) -> Any:
        training.session.device.queued_s += 0.25
        return to_device(batch)

    training.trainer.train()
    training.workload.to_device = slow_to_device
    training.trainer.measure_core()

    breakdown = training.trainer.outcome.breakdown
    assert breakdown is not None
    assert breakdown.h2d_s == pytest.approx(0.25)
    assert breakdown.forward_s == pytest.approx(1.0)
    assert (breakdown.backward_s, breakdown.optimiser_s) == (0, 0)
    assert breakdown.step.p50_s == pytest.approx(1.25)
    assert breakdown.slowdown == pytest.approx(1.25)


def test_learning_rate_follows_the_workload_at_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    training = make_training(monkeypatch, epochs=1)
    rates = []
    loss = training.workload.loss

    def watched_loss(model: torch.nn.Module, batch: torch.Tensor) -> Any:
        assert training.workload.optimizer is not None
        rates.append(training.workload.optimizer.param_groups[0]["lr"])
        return loss(model, batch)

    training.workload.loss = watched_loss

    training.trainer.train()

    assert rates == [0.01 / (step + 1) for step in range(12)]


def test_accumulated_gradients_are_those_of_one_large_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = make_training(monkeypatch, batches_per_epoch=1, batch_size=6, epochs=1)
    parts = make_training(monkeypatch, batches_per_epoch=2, batch_size=3, epochs=1, accumulate_steps=2)
    data = torch.randn(6, 3)
    for training, batches in ((whole, [data]), (parts, [data[:3], data[3:]])):
        # Batch statistics differ between one batch and two, so this model has none.
        training.trainer._model.get_submodule("0").eval()
        training.workload.epoch_batches = lambda epoch, first_batch=0, batches=batches: iter(batches)
        training.trainer.train()

    for one, other in zip(whole.trainer._model.parameters(), parts.trainer._model.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_gradients_are_clipped_before_the_weights_are_updated(monkeypatch: pytest.MonkeyPatch) -> None:
    training = make_training(monkeypatch, batches_per_epoch=1, epochs=1)
    training.workload.max_gradient_norm = 0.001
    before = [parameter.detach().clone() for parameter in training.trainer._model.parameters()]

    training.trainer.train()

    changes = [new.detach() - old for new, old in zip(training.trainer._model.parameters(), before, strict=True)]
    rate = training.workload.learning_rates(0)[0]
    assert float(torch.cat([change.flatten() for change in changes]).norm()) == pytest.approx(rate * 0.001, rel=0.02)


def test_vendor_step_mark_is_called_once_per_optimiser_step(monkeypatch: pytest.MonkeyPatch) -> None:
    marks = []
    session = FakeSession(step_end=lambda device: marks.append(device))
    training = make_training(monkeypatch, session=session, accumulate_steps=2)

    training.trainer.train()

    assert len(marks) == training.trainer.outcome.steps == 12


def test_results_combine_all_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    collectives = TwoRanks()
    session = FakeSession(
        memory=MemoryStats(source="fake", peak_allocated_bytes=10, used_bytes=7, total_bytes=100, reserved_bytes=None)
    )
    rank = Rank(world_size=2, local_world_size=2)
    training = make_training(monkeypatch, collectives=collectives, session=session, rank=rank)
    training.workload.host_seconds_per_step = 0.0

    training.trainer.train()

    outcome = training.trainer.outcome
    assert outcome.samples == 24 * 5 * 2
    for window in outcome.windows:
        assert window.samples == window.steps * 5 * 2
        assert window.seconds == pytest.approx(window.steps * 1.0 * 3)
    assert outcome.memory is not None
    assert (outcome.memory.peak_allocated_bytes, outcome.memory.used_bytes, outcome.memory.total_bytes) == (30, 21, 300)
    assert outcome.memory.source == "fake"
    assert collectives.barriers == session.calls.count("synchronize")


def test_counter_that_one_rank_does_not_know_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    class OtherKnowsNothing(TwoRanks):
        def sum_counts(self, values):  # type: ignore[no-untyped-def]
            return list(values)

    session = FakeSession(memory=MemoryStats(source="fake", peak_allocated_bytes=10))
    rank = Rank(world_size=2, local_world_size=2)
    training = make_training(monkeypatch, collectives=OtherKnowsNothing(), session=session, rank=rank)

    training.trainer.train()

    assert training.trainer.outcome.memory is not None
    assert training.trainer.outcome.memory.peak_allocated_bytes is None


def test_observers_hear_of_every_window_epoch_and_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    training = make_training(monkeypatch)

    training.trainer.train()

    hooks = [hook for hook, _ in training.session.events]
    assert hooks.count("perf_window_finished") == len(training.trainer.outcome.windows)
    assert hooks.count("perf_epoch_finished") == 2
    assert hooks.count("perf_evaluation_finished") == 2
    last_window = [event for hook, event in training.session.events if hook == "perf_window_finished"][-1]
    assert (last_window.step, last_window.epoch) == (24, 2)
    assert last_window.learning_rate == training.trainer._rates[0]
    last_epoch = [event for hook, event in training.session.events if hook == "perf_epoch_finished"][-1]
    assert last_epoch.memory == training.session.memory_query(None)


def test_planned_steps_and_knobs_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    training = make_training(monkeypatch, limits=Limits(max_epochs=1))

    assert training.trainer.planned_steps == 12
    in_force = {knob.name: knob.value for knob in training.trainer.knobs}
    assert in_force == {"memory_format": "contiguous_format", "optimizer": "SGD", "deterministic_algorithms": "false"}


def test_spans_tell_warmup_training_and_evaluation_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    training = make_training(monkeypatch)

    training.trainer.train()
    training.trainer.measure_core()

    names = {span.name for span in training.spans.as_records()}
    assert {"train", "warmup", "eval", "core_pass", "diagnostic_pass"} <= names
