"""Bootstrap of medians: against every possible resample, by its properties, and of few, equal and extreme values."""

from __future__ import annotations

import math
import random
import runpy
import statistics
from collections import Counter
from itertools import product
from pathlib import Path
from unittest import mock

import pytest
from chipperf.records import intervals
from chipperf.records.intervals import RESAMPLES, independent_windows, ratio_interval, resample, varies
from chipperf.records.repeats import combine
from hypothesis import given, settings
from hypothesis import strategies as st

COVERAGE = Path(__file__).parent.parent / "benchmarks" / "interval_coverage.py"
RATES = st.floats(min_value=1e-3, max_value=1e9)
ONE = [[100.0]]
REPEATS = st.lists(st.lists(RATES, min_size=1, max_size=6), min_size=1, max_size=6)


# High and low ones alternate, so that these windows count as independent and as many are drawn as there are.
@pytest.mark.parametrize("windows", [[2.0, 4.0, 1.0], [4.0, 1.0, 8.0, 2.0], [5.0, 1.0, 9.0, 2.0, 3.0], [1.0, 3.0]])
def test_medians_are_as_frequent_as_among_all_resamples(windows):
    expected = Counter(statistics.median(drawn) for drawn in product(windows, repeat=len(windows)))

    found = Counter(resample([windows], combine, seed="s"))

    assert set(found) <= set(expected)
    total = len(windows) ** len(windows)
    for value, count in expected.items():
        share = count / total
        # Five standard deviations of a share of so many resamples.
        assert found[value] / RESAMPLES == pytest.approx(share, abs=5 * (share * (1 - share) / RESAMPLES) ** 0.5)


def test_repeats_are_drawn_as_well_as_their_windows():
    values = resample([[1.0], [2.0], [3.0]], combine, seed="s")

    # Three values are moved apart by the square root of 3 / 2 for draws of three, and by 1.3 for their own uncertainty.
    power = 1.5**0.5 * 1.3
    assert sorted(set(values)) == pytest.approx([2 * 0.5**power, 2, 2 * 1.5**power])
    assert Counter(values)[2.0] / RESAMPLES == pytest.approx(13 / 27, abs=0.04)


@settings(deadline=None, max_examples=30)
@given(REPEATS)
def test_resamples_of_windows_that_do_not_follow_each_other_are_within_the_values(repeats):
    lowest, highest = min(map(min, repeats)), max(map(max, repeats))

    with mock.patch.object(intervals, "independent_windows", len):
        values = resample(repeats, combine, seed="s")

    if (others := len(repeats) - 1) > 0:
        # Repeats are moved apart.
        power = max(2, ((others + 1) / others) ** 0.5 * (1 + 0.6 / others))
        ratio = (highest / lowest) ** (power - 1)
        lowest, highest = lowest / ratio, highest * ratio
    assert all(lowest * (1 - 1e-12) <= value <= highest * (1 + 1e-12) for value in values)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(min_value=0, max_value=1e300), min_size=1, max_size=20))
def test_resamples_of_any_windows_are_rates(windows):
    assert 0 < independent_windows(windows) <= len(windows)
    assert all(value >= 0 for value in resample([windows], combine, seed="s"))


@settings(deadline=None, max_examples=30)
@given(REPEATS, REPEATS)
def test_interval_is_the_same_every_time_and_in_order(one, other):
    values, base = resample(one, combine, seed="a"), resample(other, combine, seed="b")
    interval = ratio_interval(values, base)

    assert interval == ratio_interval(resample(one, combine, seed="a"), base)
    assert interval is not None
    assert 0 < interval.low <= interval.high


def test_interval_covers_the_true_ratio_of_noisy_windows():
    covered = 0
    for trial in range(60):
        rng = statistics.NormalDist(100, 5)
        one, other = rng.samples(40, seed=f"one {trial}"), rng.samples(40, seed=f"other {trial}")
        interval = ratio_interval(resample([one], combine, seed="1"), resample([other], combine, seed="0"))
        covered += interval.low <= 1 <= interval.high

    assert covered >= 52


@pytest.mark.parametrize(
    ("windows", "expected"),
    [
        ([7.0], 1),
        ([7.0, 7.0, 7.0], 3),
        ([1.0, 2.0] * 10, 20),
        # The estimate is 5 / 8, and without its bias 1.2, which counts as 0.97.
        ([1.0] * 4 + [2.0] * 4, 0.7365),
        # The estimate is 5 / 12, and without its bias 2 / 3.
        (([1.0] * 3 + [2.0] * 3) * 2, 3.3095),
    ],
)
def test_windows_that_follow_each_other_tell_less(windows, expected):
    assert independent_windows(windows) == pytest.approx(expected, rel=1e-3)


def test_autocorrelated_windows_cover_the_true_ratio():
    sample = runpy.run_path(str(COVERAGE))

    # 0.94 to 0.97 are expected, and 0.7 if windows count as independent.
    assert sample["coverage"](50, 0.7, 1, 0.0, 60) >= 0.86 * 60
    assert sample["coverage"](20, 0.5, 3, 5.0, 20) >= 0.8 * 20


def test_wider_windows_give_a_wider_interval():
    def width(spread):
        values = resample([[100 - spread, 100, 100 + spread]], combine, seed="s")
        interval = ratio_interval(values, [100.0] * RESAMPLES)
        return interval.high - interval.low

    assert width(1) < width(10)


@pytest.mark.parametrize(("value", "base"), [(1.0, 0.0), (1e308, 1e-308)])
def test_a_ratio_that_is_no_number_has_no_interval(value, base):
    assert ratio_interval([value] * RESAMPLES, [base] * RESAMPLES) is None


@pytest.mark.parametrize(
    ("repeats", "expected"), [([[1.0]], False), ([[1.0, 2.0]], True), ([[1.0], [2.0]], True), ([[]], False)]
)
def test_one_value_does_not_vary(repeats, expected):
    assert varies(repeats) is expected


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
    assert wide.low < narrow.low < statistics.median(apart) / 100 < narrow.high < wide.high


@pytest.mark.parametrize("rho", [0.0, 0.7])
def test_bias_of_the_autocorrelation_is_taken_out(rho):
    """Most short runs say the same of their process as a long one."""
    share_of_many = independent_windows(follow(10_000, rho)) / 10_000
    shares_of_few = [independent_windows(follow(20, rho, seed=seed)) / 20 for seed in range(200)]

    assert statistics.median(shares_of_few) == pytest.approx(share_of_many, abs=0.05)


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
