"""What an optimizer step does to the model."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from chipperf.plugin.types import Rank
from chipperf.run.collectives import Collectives
from tiny_training import DEVICE, FakeSession, Training, make_training, weights


def test_learning_rate_follows_the_workload_at_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    training = make_training(monkeypatch, epochs=1)
    rates = []
    loss = training.workload.loss

    def watched_loss(model: torch.nn.Module, batch: torch.Tensor) -> Any:
        assert training.workload.optimizer is not None
        rates.append(training.workload.optimizer.param_groups[0]["lr"])
        return loss(model, batch)

    training.workload.loss = watched_loss

    training.loop.train()

    assert rates == [0.01 / (step + 1) for step in range(12)]


def test_ranks_draw_different_numbers_and_have_equal_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    def draw(place: int, ranks: int = 3, seed: int = 2**32 - 2) -> tuple[Training, list[Any]]:
        rank = Rank(rank=place, local_rank=place, world_size=ranks, local_world_size=ranks)
        random.seed(5)
        np.random.seed(5)
        training = make_training(monkeypatch, rank=rank, collectives=Collectives(Rank(), DEVICE), seed=seed)
        mask = torch.nn.functional.dropout(torch.ones(64)).tolist()
        return training, [mask, random.random(), float(np.random.random())]

    alone, drawn_alone = draw(0, ranks=1)
    trainings, drawn = zip(*map(draw, range(3)), strict=True)

    for kind in zip(*drawn, strict=True):
        assert len({str(numbers) for numbers in kind}) == 3
    for training in trainings:
        assert all(map(torch.equal, weights(training), weights(alone)))
    # What one rank draws does not depend on this.
    assert drawn[0] == drawn_alone
    assert [training.session.calls for training in trainings] == [[], ["seed 4294967295"], ["seed 0"]]
    assert "seed_of_ranks" in {knob.name for knob in trainings[1].replica.knobs}
    assert "seed_of_ranks" not in {knob.name for knob in alone.replica.knobs}


def test_accumulated_gradients_are_those_of_one_large_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = make_training(monkeypatch, batches_per_epoch=1, batch_size=6, epochs=1)
    parts = make_training(monkeypatch, batches_per_epoch=2, batch_size=3, epochs=1, accumulate_steps=2)
    data = torch.randn(6, 3)
    for training, batches in ((whole, [data]), (parts, [data[:3], data[3:]])):
        # Batch statistics differ between one batch and two, so this model has none.
        training.replica.model.get_submodule("0").eval()
        training.workload.epoch_batches = lambda epoch, first_batch=0, batches=batches: iter(batches)
        training.loop.train()

    for one, other in zip(whole.replica.model.parameters(), parts.replica.model.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_gradients_are_clipped_before_the_weights_are_updated(monkeypatch: pytest.MonkeyPatch) -> None:
    training = make_training(monkeypatch, batches_per_epoch=1, epochs=1)
    training.workload.max_gradient_norm = 0.001
    before = [parameter.detach().clone() for parameter in training.replica.model.parameters()]

    training.loop.train()

    changes = [new.detach() - old for new, old in zip(training.replica.model.parameters(), before, strict=True)]
    rate = training.workload.learning_rates(0)[0]
    assert float(torch.cat([change.flatten() for change in changes]).norm()) == pytest.approx(rate * 0.001, rel=0.02)


def test_vendor_step_mark_is_called_once_per_optimizer_step(monkeypatch: pytest.MonkeyPatch) -> None:
    marks = []
    session = FakeSession(step_end=lambda device: marks.append(device))
    training = make_training(monkeypatch, session=session, accumulate_steps=2)

    training.loop.train()

    assert len(marks) == training.state.steps == 12
