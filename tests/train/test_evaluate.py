"""What an evaluation tells, and that it leaves no trace in training."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from chipperf.cases.workload import Evaluation
from chipperf.errors import TrainingError
from chipperf.records.schema import UNKNOWN, EvaluationPoint, Missing
from chipperf.run.progress import ProgressFile
from chipperf.train import results
from chipperf.train.model_changes import digest
from tiny_training import FEATURES, make_random_training, make_training, weights

STEPS = 24


def test_every_batch_of_an_evaluation_is_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    reports: list[object] = []
    monkeypatch.setattr(ProgressFile, "evaluating", lambda progress: reports.append(progress))
    training = make_training(monkeypatch)

    def evaluate(model: torch.nn.Module, collectives: object, autocast: object) -> Evaluation:
        for _ in range(3):
            model(torch.zeros(2, FEATURES))
        return Evaluation(value=0.5, samples=6)

    training.workload.evaluate = evaluate
    training.loop.train()

    assert len(reports) == 3 * len(training.state.curve) > 0


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
        training.loop.train()
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

    training.loop.train()
    training.measure_core()

    assert set(modes) == {("evaluate", False), ("loss", True)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_one_changed_buffer_changes_the_digest(dtype: torch.dtype) -> None:
    model = torch.nn.Module()
    model.register_buffer("statistic", torch.zeros(2, dtype=dtype))
    model.register_buffer("batches", torch.zeros((), dtype=dtype))
    before = digest(*model.buffers())

    model.get_buffer("batches").add_(torch.ones((), dtype=dtype))

    assert digest(*model.buffers()) != before


def test_evaluations_do_not_change_the_course_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    rarely, often = (
        make_random_training(monkeypatch, evaluate_every_epochs=9),
        make_random_training(monkeypatch, evaluate_every_steps=1),
    )
    for training in (rarely, often):
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)
        training.loop.train()

    assert len(often.state.curve) == STEPS
    for one, other in zip(weights(rarely), weights(often), strict=True):
        assert torch.equal(one, other)


def test_quality_that_is_not_defined_is_missing_with_its_reason_and_never_zero(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    why = Missing(missing="not_applicable", reason="nothing to find")
    training = make_training(monkeypatch, target=0.5)
    training.workload.evaluate = lambda *_: Evaluation(value=why, samples=10)
    training.loop.train()

    training.state.memory = None
    metrics = results._metrics(training.context, training.state, UNKNOWN)

    assert metrics.quality == metrics.best_quality == why
    assert metrics.time_to_target == Missing(missing="not_applicable", reason="no evaluation has a result")
    assert [point.value for point in metrics.curve] == [why, why]
    assert EvaluationPoint.model_validate(metrics.curve[0].model_dump()) == metrics.curve[0]
    told = [event for hook, event in training.session.events if hook == "perf_evaluation_finished"]
    assert [event.value for event in told] == [None, None]
    assert capsys.readouterr().out.count('"EVAL_ACCURACY", "value": null') == 2
