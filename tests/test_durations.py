"""Durations as people write them."""

from __future__ import annotations

import pytest
from chipperf.durations import format_duration, parse_duration
from chipperf.errors import UsageError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("2h", 7200), ("1h30m", 5400), ("1.5h", 5400), ("0.25s", 0.25), (" 2H5S ", 7205)],
)
def test_a_duration_is_its_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text, "--budget") == seconds


@pytest.mark.parametrize("text", ["", "30", "m", "-5m", "30 m", "5d", "10m1h", "1h1h", "1e3s", "inf", "٣m", "1,5h"])
def test_anything_else_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match="is not a duration") as caught:
        parse_duration(text, "--budget")
    assert caught.value.message.startswith("--budget ")
    assert "90s, 30m, 2h" in (caught.value.hint or "")


@pytest.mark.parametrize("text", ["0s", "0h0m0s", "0.0m"])
def test_no_time_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not a positive duration"):
        parse_duration(text, "budget")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.25, "0.25s"), (59.94, "59.9s"), (60, "1m"), (90.4, "1m30s"), (3600, "1h"), (3661, "1h1m1s"), (360000, "100h")],
)
def test_a_duration_is_written_in_its_largest_units(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize("seconds", [61.0, 3599.0, 5400.0, 86399.0])
def test_what_is_written_can_be_read(seconds: float) -> None:
    assert parse_duration(format_duration(seconds), "budget") == seconds
