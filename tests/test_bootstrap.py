"""Bootstrap of medians: against every possible resample, and by its properties."""

from __future__ import annotations

import statistics
from collections import Counter
from itertools import product

import pytest
from chipperf.compare.intervals import RESAMPLES, ratio_interval, resample, varies
from chipperf.records.repeats import combine
from hypothesis import given, settings
from hypothesis import strategies as st

RATES = st.floats(min_value=1e-3, max_value=1e9)
REPEATS = st.lists(st.lists(RATES, min_size=1, max_size=6), min_size=1, max_size=6)


@pytest.mark.parametrize("windows", [[1.0, 2.0, 4.0], [1.0, 2.0, 4.0, 8.0], [5.0, 1.0, 2.0, 9.0, 3.0], [1.0, 3.0]])
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

    assert set(values) == {1.0, 2.0, 3.0}
    assert Counter(values)[2.0] / RESAMPLES == pytest.approx(13 / 27, abs=0.04)


@settings(deadline=None, max_examples=30)
@given(REPEATS)
def test_resamples_are_within_the_values(repeats):
    lowest, highest = min(map(min, repeats)), max(map(max, repeats))

    assert all(lowest * (1 - 1e-12) <= value <= highest * (1 + 1e-12) for value in resample(repeats, combine, seed="s"))


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
