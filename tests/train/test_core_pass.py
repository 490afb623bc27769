"""What is measured after training: p_core with batches on the device, and the phases of a step."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from chipperf.records.schema import MINIMUM_WINDOWS, Missing
from chipperf.train.core_pass import DIAGNOSTIC_STEPS, typical_wait_s
from tiny_training import make_training

if TYPE_CHECKING:
    import torch


def test_core_pass_leaves_what_training_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    training = make_training(monkeypatch)
    training.loop.train()
    before = replace(training.state, windows=list(training.state.windows))
    loaded = len(before.data_waits_s)

    training.measure_core()

    after = training.state
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

    training.measure_core()

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

    training.loop.train()
    training.workload.to_device = slow_to_device
    training.measure_core()

    breakdown = training.state.breakdown
    assert breakdown is not None
    assert breakdown.h2d_s == pytest.approx(0.25)
    assert breakdown.forward_s == pytest.approx(1.0)
    assert (breakdown.backward_s, breakdown.optimizer_s) == (0, 0)
    assert breakdown.step.p50_s == pytest.approx(1.25)
    assert breakdown.slowdown == pytest.approx(1.25)


def test_arithmetic_and_gradients_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    training = make_training(monkeypatch)

    training.measure_core()

    # Three features in one linear layer; and two parameters for each in batch statistics, a weight for each, a bias.
    assert training.state.forward_flops == 2 * 3
    assert training.state.gradient_bytes == 4 * (3 + 3 + 3 + 1)


def test_operator_that_cannot_be_counted_costs_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    training = make_training(monkeypatch)

    def refuse(**options: Any) -> Any:
        raise NotImplementedError

    monkeypatch.setattr("torch.utils.flop_counter.FlopCounterMode", refuse)

    training.measure_core()

    assert training.state.core is not None
    assert isinstance(training.state.forward_flops, Missing)
    assert training.state.forward_flops.missing == "failed"


@pytest.mark.parametrize(
    ("waits_s", "typical_s"),
    [([], None), ([9.0], None), ([9.0, 0.1, 0.1, 0.1], None), ([9.0, 0.1, 0.2, 0.3, 0.1], 0.2)],
)
def test_few_batches_have_no_typical_wait(waits_s: list[float], typical_s: float | None) -> None:
    found = typical_wait_s(waits_s)

    assert (None if isinstance(found, Missing) else found) == typical_s
