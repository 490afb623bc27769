"""A rank that is slower than the others is named with its card."""

import pytest
from chipperf.records.schema import Missing, RankStep
from chipperf.train.results import straggler_warnings


def steps(*seconds, waits=None):
    waits = waits or [0.001] * len(seconds)
    return [
        RankStep(rank=rank, step_s=step_s, data_wait_s=wait_s, card=f"A1 U{rank}")
        for rank, (step_s, wait_s) in enumerate(zip(seconds, waits, strict=True))
    ]


def test_slow_card_is_named():
    [warning] = straggler_warnings(steps(0.1, 0.1, 0.15, 0.1))

    assert warning == "straggler: rank 2 on A1 U2 takes 1.50 times as long as the others for its own part of a step"


def test_slow_loader_is_named():
    [warning] = straggler_warnings(steps(0.1, 0.1, waits=[0.05, 0.01]))

    assert "rank 0 on A1 U0 takes 5.00 times as long as the others for waiting for data" in warning


@pytest.mark.parametrize(
    "alike",
    [
        [],
        steps(0.1),
        steps(0.1, 0.109),
        steps(0.1, 0.1, waits=[0.0001, 0.001]),
        steps(0.1, 0.1, waits=[Missing(missing="not_run"), 0.1]),
    ],
)
def test_ranks_that_are_alike_are_not(alike):
    assert straggler_warnings(alike) == []
