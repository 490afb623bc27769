"""Where windows lie and what is computed from them."""

from __future__ import annotations

import pytest
from chipperf.cases.base import Hyperparameters
from chipperf.plugin.types import Rank
from chipperf.records.schema import MINIMUM_WINDOWS, Limits, Window
from chipperf.run.collectives import Collectives
from chipperf.train.schedule import Schedule, StepBudget, fitting_window_steps, plan_window_lengths, plan_windows
from chipperf.train.windows import spread, throughput
from hypothesis import given
from hypothesis import strategies as st
from tiny_training import DEVICE


def windows(*rates: float, samples: int = 100) -> list[Window]:
    return [Window(epoch=1, first_step=1, steps=1, samples=samples, seconds=samples / rate) for rate in rates]


@given(steps=st.integers(-3, 10_000), window_steps=st.integers(1, 500))
def test_every_step_is_in_exactly_one_window_of_nearly_equal_length(steps: int, window_steps: int) -> None:
    lengths = plan_window_lengths(steps, window_steps)

    assert sum(lengths) == max(0, steps)
    assert all(1 <= length <= window_steps for length in lengths)
    if lengths:
        assert max(lengths) - min(lengths) <= 1


@given(epochs=st.integers(1, 6), epoch_steps=st.integers(1, 300), warmup=st.integers(0, 20), wanted=st.integers(1, 100))
def test_a_run_with_enough_steps_has_enough_windows(epochs: int, epoch_steps: int, warmup: int, wanted: int) -> None:
    measured = epochs * epoch_steps - warmup
    length = fitting_window_steps(wanted, epochs * epoch_steps, warmup)
    count = 0
    for epoch in range(epochs):
        warm = min(max(0, warmup - epoch * epoch_steps), epoch_steps)
        count += len(plan_window_lengths(epoch_steps - warm, length))

    assert count >= min(MINIMUM_WINDOWS, max(0, measured))


@pytest.mark.parametrize(
    ("wanted", "total", "warmup", "expected"),
    [(50, 1000, 10, 50), (50, 110, 10, 20), (50, 14, 10, 1), (50, 5, 10, 1)],
)
def test_windows_shrink_so_that_enough_fit_into_a_short_run(
    wanted: int, total: int, warmup: int, expected: int
) -> None:
    assert fitting_window_steps(wanted, total, warmup) == expected


def test_throughput_is_the_median_with_its_quartiles() -> None:
    measured = throughput(windows(10, 50, 20, 40, 30))

    assert measured is not None
    assert measured.median == pytest.approx(30)
    assert measured.iqr == pytest.approx(40 - 20)


def test_cross_check_is_total_samples_over_total_time_and_not_a_mean_of_rates() -> None:
    measured = throughput([*windows(100, 100, 100, 100), *windows(25)])

    assert measured is not None
    assert measured.median == pytest.approx(100)
    assert measured.mean_of_totals == pytest.approx(500 / (4 * 1 + 4))


def test_one_disturbed_window_does_not_move_the_median() -> None:
    measured = throughput(windows(100, 100, 1, 100, 100, 100))

    assert measured is not None
    assert measured.median == pytest.approx(100)


@pytest.mark.parametrize("count", range(MINIMUM_WINDOWS))
def test_too_few_windows_give_no_throughput(count: int) -> None:
    assert throughput(windows(*[10.0] * count)) is None


def test_percentiles_are_nearest_ranks() -> None:
    measured = spread([float(value) for value in range(100, 0, -1)])

    assert measured is not None
    assert (measured.p50_s, measured.p90_s, measured.p99_s) == (50, 90, 99)


def test_spread_of_one_duration_and_of_none() -> None:
    measured = spread([2.0])

    assert measured is not None
    assert (measured.p50_s, measured.p90_s, measured.p99_s, measured.cv) == (2, 2, 2, 0)
    assert spread([]) is None


def test_coefficient_of_variation_is_deviation_over_mean() -> None:
    measured = spread([1.0, 3.0])

    assert measured is not None
    assert measured.cv == pytest.approx(0.5)


def schedule(last_step: int, *every: int) -> Schedule:
    evaluate, checkpoint = (*every, 0, 0)[:2]
    h = Hyperparameters(
        model="linear",
        dataset="memory",
        target=0.9,
        epochs=5,
        batch_size=1,
        lr=0.1,
        eval_batch_size=1,
        seed=0,
        evaluate_every_steps=evaluate,
        checkpoint_every_steps=checkpoint,
    )
    return Schedule(h, Limits(max_steps=last_step), 12, StepBudget(None, Rank(), Collectives(Rank(), DEVICE)))


@pytest.mark.parametrize(
    ("step", "every", "expected"),
    [
        (0, (), (0, 12)),
        (11, (), (0, 12)),
        (12, (), (12, 24)),
        (13, (0, 0), (12, 24)),
        (13, (5,), (12, 15)),
        (15, (5,), (15, 20)),
        (20, (5, 7), (20, 21)),
        (24, (), (24, 30)),
        (29, (5, 100), (25, 30)),
    ],
)
def test_segment_ends_where_something_else_happens(
    step: int, every: tuple[int, ...], expected: tuple[int, int]
) -> None:
    assert schedule(30, *every).segment(step) == expected


def test_segments_follow_each_other_and_are_found_from_every_step() -> None:
    planned, step = schedule(50, 5, 7), 0
    while step < 50:
        start, end = planned.segment(step)
        assert start == step < end
        for inside in range(start, end):
            assert planned.segment(inside) == (start, end)
        step = end
    assert step == 50


@pytest.mark.parametrize(
    ("start", "end", "warmup_steps", "expected"),
    [
        (0, 10, 0, [(0, 5, False), (5, 10, False)]),
        (0, 10, 3, [(0, 3, True), (3, 7, False), (7, 10, False)]),
        (0, 10, 10, [(0, 10, True)]),
        (0, 10, 99, [(0, 10, True)]),
        (12, 20, 14, [(12, 14, True), (14, 17, False), (17, 20, False)]),
        (12, 13, 5, [(12, 13, False)]),
    ],
)
def test_windows_of_a_segment(start: int, end: int, warmup_steps: int, expected: list[tuple[int, int, bool]]) -> None:
    windows = plan_windows(start, end, warmup_steps=warmup_steps, window_steps=5)

    assert [(window.start, window.end, window.is_warmup) for window in windows] == expected
