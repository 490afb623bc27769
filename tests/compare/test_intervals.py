"""Intervals of few, equal and extreme values; ``benchmarks/interval_coverage.py`` says how often they are right."""

from __future__ import annotations

import math
import random
from statistics import median

import pytest
from chipperf.compare.intervals import independent_windows, ratio_interval, resample
from chipperf.records.repeats import combine

ONE = [[100.0]]


def interval(*repeats):
    return ratio_interval(resample(repeats, combine, seed="one"), resample(ONE, combine, seed="other"))


def follow(n, rho, seed=0):
    """Return n windows of which each is like the one before."""
    rng = random.Random(seed)
    deviations = [rng.gauss(0, 1)]
    for _ in range(n - 1):
        deviations.append(rho * deviations[-1] + math.sqrt(1 - rho * rho) * rng.gauss(0, 1))
    return [100 + deviation for deviation in deviations]


@pytest.mark.parametrize("windows", [[90.0, 110.0], [90.0, 100.0, 110.0], [90.0, 110.0, 100.0, 95.0, 105.0]])
def test_few_windows_are_at_least_as_far_apart_as_they_were_measured(windows):
    found = interval(windows)

    assert found.low <= min(windows) / 100
    assert found.high >= max(windows) / 100


@pytest.mark.parametrize("repeats", [[[100.0]], [[100.0] * 10], [[100.0], [100.0]], [[100.0] * 5, [100.0] * 7]])
def test_equal_values_have_an_interval_without_width(repeats):
    found = interval(*repeats)

    assert (found.low, found.high) == (1, 1)


def test_windows_that_are_alike_count_as_fewer_and_widen_the_interval():
    alike = sorted(follow(20, 0.0))
    apart = [value for pair in zip(alike[:10], alike[:9:-1], strict=True) for value in pair]

    assert independent_windows(apart) == 20
    assert independent_windows(alike) < 4
    narrow, wide = interval(apart), interval(alike)
    assert wide.low < narrow.low < median(apart) / 100 < narrow.high < wide.high


@pytest.mark.parametrize("rho", [0.0, 0.7])
def test_bias_of_the_autocorrelation_is_taken_out(rho):
    """Most short runs say the same of their process as a long one."""
    share_of_many = independent_windows(follow(10_000, rho)) / 10_000
    shares_of_few = [independent_windows(follow(20, rho, seed=seed)) / 20 for seed in range(200)]

    assert median(shares_of_few) == pytest.approx(share_of_many, abs=0.05)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_single_values_of_repeats_are_moved_apart(count):
    values = [100.0 + place for place in range(count)]
    found = interval(*([value] for value in values))

    assert found.low < values[0] / 100
    assert found.high > values[-1] / 100
    assert found.high - found.low < 4 * (values[-1] - values[0]) / 100


def test_repeats_no_further_apart_than_their_windows_say_are_no_wider_than_one():
    repeats = [follow(50, 0.0, seed=seed) for seed in range(3)]
    together, single = interval(*repeats), interval(repeats[0])

    assert together.high - together.low < single.high - single.low


@pytest.mark.parametrize(
    "repeats",
    [
        [[0.0] * 5],
        [[0.0, 0.0, 0.0, 1.0, 2.0]],
        [[0.0], [1.0]],
        [[1.0] * 6 + [1e60] * 4],
        [[1.0] * 5 + [1e100] * 5],
        [[1e300] * 6 + [1.7e308] * 4],
        [[1e-300], [1e300]],
        [[5e-324], [1.7e308], [1.7e308]],
        [[1.0] * 5, [1e200] * 5],
        [[-1.0, 1.0, 2.0, 3.0, 2.5]],
        [[math.inf, 1.0, 2.0, 3.0, 2.5]],
    ],
)
def test_extreme_values_are_no_error(repeats):
    found = interval(*repeats)

    assert found is None or found.low <= found.high
