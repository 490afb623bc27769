"""Steps that the gradient scaler skips are counted, and a run that skipped all of them has not trained."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch
from chipperf.errors import TrainingError
from chipperf.records.schema import Metrics as RecordedMetrics
from chipperf.records.schema import Missing, SkippedSteps
from chipperf.train.results import _metrics, skipped_warnings
from tiny_training import StopAt, Training, make_training, resume_training, weights

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NOT_SAMPLED = Missing(missing="not_run")


def overflow(training: Training, is_skipped: Callable[[int], bool]) -> Training:
    """Let the gradients overflow in some steps, counted from 1."""
    for parameter in training.replica.model.parameters():
        parameter.register_hook(lambda g: g * math.inf if is_skipped(training.state.steps + 1) else g)
    return training


def recorded(training: Training) -> SkippedSteps | Missing:
    training.state.memory = None
    metrics = _metrics(training.context, training.state, NOT_SAMPLED)
    # As a record's file has it, whose keys are texts.
    return RecordedMetrics.model_validate_json(metrics.model_dump_json()).skipped_steps


def test_skipped_steps_are_counted_by_epoch_and_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    training = overflow(make_training(monkeypatch, grad_scaler=True, epochs=3), {1, 2, 7, 30}.__contains__)
    events = []
    monkeypatch.setattr(training.context.events, "write", lambda name, value=None, **at: events.append((name, value)))

    training.loop.train()

    assert recorded(training) == SkippedSteps(steps=4, by_epoch={1: 3, 3: 1})
    assert [value for name, value in events if name == "skipped_steps"] == [3, 0, 1]


def test_a_skipped_step_is_one_that_left_the_weights_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    training = overflow(make_training(monkeypatch, grad_scaler=True), {2, 3}.__contains__)
    unchanged, before = 0, weights(training)[-2]
    step = training.replica.step

    def watched(*arguments: object) -> int:
        nonlocal unchanged, before
        samples = step(*arguments)  # type: ignore[arg-type]
        after = weights(training)[-2]
        unchanged += torch.equal(before, after)
        before = after
        return samples

    monkeypatch.setattr(training.replica, "step", watched)
    training.loop.train()
    assert unchanged == sum(training.state.skipped_steps.values()) == 2


def test_without_a_scaler_nothing_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    training = make_training(monkeypatch)
    training.loop.train()
    found = recorded(training)
    assert isinstance(found, Missing)
    assert found.missing == "not_applicable"


@pytest.mark.parametrize(("batches_per_epoch", "epochs", "steps"), [(12, 2, 24), (60, 5, 120)])
def test_a_run_that_skipped_every_step_fails(
    monkeypatch: pytest.MonkeyPatch, batches_per_epoch: int, epochs: int, steps: int
) -> None:
    """It fails with its last step, or at the end of the epoch in which the scaler is beyond hope."""
    training = make_training(monkeypatch, grad_scaler=True, batches_per_epoch=batches_per_epoch, epochs=epochs)
    overflow(training, lambda step: True)

    with pytest.raises(TrainingError, match=f"skipped all {steps} optimizer steps") as caught:
        training.loop.train()

    assert caught.value.failure_class == "no_step_taken"
    assert training.state.steps == steps
    found = recorded(training)
    assert isinstance(found, SkippedSteps)
    assert found.steps == steps


def test_a_run_whose_first_epoch_finds_the_scale_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    training = overflow(make_training(monkeypatch, grad_scaler=True), lambda step: step <= 12)
    training.loop.train()
    assert training.state.skipped_steps == {1: 12}


def test_a_resumed_run_keeps_the_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    options = {"grad_scaler": True, "checkpoints": tmp_path / "checkpoints"}
    stopped = overflow(make_training(monkeypatch, stop=StopAt(5), **options), {2, 4, 6}.__contains__)
    assert not stopped.loop.train()
    assert stopped.state.skipped_steps == {1: 2}

    resumed = overflow(resume_training(monkeypatch, run_session=2, **options), {2, 4, 6, 20}.__contains__)
    assert resumed.loop.train()
    assert resumed.state.skipped_steps == {1: 3, 2: 1}


@pytest.mark.parametrize(
    ("skipped", "steps", "warns"), [(0, 10, False), (3, 10, False), (4, 10, True), (20, 2000, False), (21, 2000, True)]
)
def test_more_than_a_few_are_a_warning(skipped: int, steps: int, warns: bool) -> None:
    warnings = skipped_warnings(skipped, steps)
    assert bool(warnings) == warns
    assert all(f"skipped {skipped} of {steps} optimizer steps" in warning for warning in warnings)
