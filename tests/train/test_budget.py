"""Training that ends in time, at the same step on all ranks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from chipperf.plugin.types import Rank
from chipperf.records.schema import MINIMUM_WINDOWS, EvaluationPoint, Limits, Window
from chipperf.run.collectives import Collectives
from chipperf.train.results import projected_train_seconds
from chipperf.train.run_state import RunState
from chipperf.train.schedule import StepBudget
from chipperf.train.windows import throughput
from tiny_training import DEVICE, make_training

if TYPE_CHECKING:
    from collections.abc import Sequence


@pytest.mark.parametrize("budget_s", [2.0, 3.0, 10.0, 17.3, 23.9])
def test_training_ends_within_its_budget_and_evaluates(monkeypatch: pytest.MonkeyPatch, budget_s: float) -> None:
    """A step takes a second: training would take 24."""
    training = make_training(monkeypatch, limits=Limits(budget_s=budget_s))
    training.workload.host_seconds_per_step = 0.0

    training.loop.train()

    state = training.state
    assert state.steps == int(budget_s)
    assert state.train_seconds == pytest.approx(int(budget_s))
    assert state.curve[-1].step == state.steps
    assert state.ended_by_budget


def test_windows_become_short_enough_for_a_median(monkeypatch: pytest.MonkeyPatch) -> None:
    training = make_training(
        monkeypatch, limits=Limits(budget_s=40), epochs=100, batches_per_epoch=500, measure_window_steps=50
    )
    training.workload.host_seconds_per_step = 0.0

    training.loop.train()

    windows = training.state.windows
    assert len(windows) >= MINIMUM_WINDOWS
    assert throughput(windows) is not None
    assert sum(window.steps for window in windows) == 40 - 2


@pytest.mark.parametrize("limits", [Limits(budget_s=1000), Limits()])
def test_enough_time_changes_nothing(monkeypatch: pytest.MonkeyPatch, limits: Limits) -> None:
    training = make_training(monkeypatch, limits=limits)

    training.loop.train()

    state = training.state
    assert state.steps == 24
    assert [window.first_step for window in state.windows][:2] == [3, 7]
    assert not state.ended_by_budget


def test_a_step_longer_than_the_budget_is_the_only_one(monkeypatch: pytest.MonkeyPatch) -> None:
    training = make_training(monkeypatch, limits=Limits(budget_s=0.5))

    training.loop.train()

    assert training.state.steps == 1


def test_a_slow_first_step_rules_no_other_one_out(monkeypatch: pytest.MonkeyPatch) -> None:
    training = make_training(monkeypatch, limits=Limits(budget_s=20))
    training.workload.host_seconds_per_step = 0.0
    training.workload.device_seconds_per_step = 12.0
    to_device = training.workload.to_device

    def fast_after_the_first(batch: object) -> object:
        training.workload.device_seconds_per_step = 12.0 if training.state.steps == 0 else 1.0
        return to_device(batch)

    training.workload.to_device = fast_after_the_first

    training.loop.train()

    assert training.state.steps == 1 + 8


def test_time_that_an_evaluation_takes_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    training = make_training(monkeypatch, limits=Limits(budget_s=20))
    evaluate = training.workload.evaluate

    def slow_evaluate(*arguments: object) -> object:
        training.session.device.spend(100.0)
        return evaluate(*arguments)

    training.workload.evaluate = slow_evaluate

    training.loop.train()

    state = training.state
    assert (state.steps, len(state.curve)) == (12, 1)


def test_a_met_target_ends_the_run_and_not_its_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    training = make_training(monkeypatch, limits=Limits(budget_s=12.5), target=0.4)

    training.loop.train()

    assert training.state.time_to_target is not None
    assert not training.state.ended_by_budget


def test_a_window_is_synchronized_at_its_edges_only(monkeypatch: pytest.MonkeyPatch) -> None:
    training = make_training(monkeypatch, limits=Limits(budget_s=10.5))

    training.loop.train()

    between_waits = " ".join(training.session.calls).split("synchronize")
    steps = [part.count("step") for part in between_waits if "step" in part]
    assert steps == [1, 1, *(window.steps for window in training.state.windows)]


class ClockOfMain(Collectives):
    """A collective that hands every rank what the main rank decided."""

    def __init__(self, decision: list[int]) -> None:
        super().__init__(Rank(), DEVICE)
        self.decision = decision

    def max_counts(self, values: Sequence[int]) -> list[int]:
        self.decision[0] = max(self.decision[0], *values)
        return list(self.decision)


def test_the_main_ranks_clock_decides_for_all() -> None:
    decision = [0]
    ranks = [Rank(rank=place, local_rank=place, world_size=2, local_world_size=2) for place in range(2)]
    main, other = (StepBudget(10.0, rank, ClockOfMain(decision)) for rank in ranks)

    main.update(4, elapsed_s=4.0, step_s=1.0)
    other.update(4, elapsed_s=9.9, step_s=3.0)

    assert main.limit(100) == other.limit(100) == 10
    assert main.limit(7) == 7


def window(step_s: float) -> Window:
    return Window(epoch=1, first_step=1, steps=10, samples=10, seconds=10 * step_s)


def point(step: int) -> EvaluationPoint:
    return EvaluationPoint(epoch=1, step=step, value=0.1, elapsed_s=1.0, samples=10)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        # 70 steps of 2 s; of four evaluations of 5 s one is done.
        (
            RunState(
                steps_per_epoch=25, steps=30, windows=[window(1), window(3)], curve=[point(25)], train_seconds=60.0
            ),
            215,
        ),
        (RunState(steps_per_epoch=25, steps=10, windows=[window(2)], train_seconds=20.0), 200),
        (RunState(steps_per_epoch=25, steps=10, train_seconds=20.0), None),
        (RunState(steps_per_epoch=25, steps=10, windows=[window(2)]), None),
    ],
)
def test_the_whole_schedule_is_projected(state: RunState, expected: float | None) -> None:
    h = SimpleNamespace(epochs=4, evaluate_every_epochs=1)

    projected = projected_train_seconds(state, h, evaluations_s=5.0 * len(state.curve))

    assert projected == expected
