"""From the values of repeats to one."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

import pytest
from chipperf.errors import UsageError
from chipperf.records.repeats import RepeatedRun, Repeats, aggregate, repeat_seeds, summarize_repeats
from chipperf.records.schema import Missing, Number, Status
from chipperf.records.store import record_text

if TYPE_CHECKING:
    from pathlib import Path

    from chipperf.records.schema import Record

NOT_REACHED = Missing(missing="failed", reason="not reached")


@pytest.mark.parametrize(
    ("values", "statistic", "result"),
    [
        ([3.0], "median", 3.0),
        ([1.0, 2.0], "median", 1.5),
        ([9.0, 1.0, 2.0], "median", 2.0),
        ([9.0, 1.0, 2.0, 4.0], "median", 3.0),
        # Of five, the lowest and the highest are dropped.
        ([100.0, 1.0, 2.0, 4.0, 3.0], "olympic_mean", 3.0),
        ([5.0] * 1000, "olympic_mean", 5.0),
    ],
)
def test_few_values_give_their_median_and_five_their_olympic_mean(
    values: list[Number], statistic: str, result: float
) -> None:
    one = aggregate(values, "s")

    assert (one.statistic, one.value) == (statistic, result)
    assert (one.lowest, one.highest) == (min(values), max(values))
    assert one.values == values


def test_an_olympic_mean_is_no_plain_mean() -> None:
    values = [10.0, 11.0, 12.0, 13.0, 1000.0]
    assert aggregate(values, "s").value == 12.0 != statistics.fmean(values)


def test_a_value_that_one_run_lacks_is_not_left_out() -> None:
    one = aggregate([1.0, NOT_REACHED, 3.0], "s")

    assert one.value == one.lowest == one.highest == Missing(missing="failed", reason="1 of 3 runs have none")
    assert one.values == [1.0, NOT_REACHED, 3.0]


@pytest.mark.parametrize(
    ("values", "kind", "reason"), [([], "not_run", "no run completed"), ([NOT_REACHED] * 2, "failed", "not reached")]
)
def test_no_value_at_all_says_why(values: list[Number], kind: str, reason: str) -> None:
    assert aggregate(values, "s").value == Missing.model_validate({"missing": kind, "reason": reason})


def test_a_reason_of_one_run_is_not_that_of_all() -> None:
    values: list[Number] = [Missing(missing="failed", reason=f"not reached: best 0.{best}") for best in (1, 2)]

    value = aggregate(values, "s").value

    assert value == Missing(missing="failed", reason="in all 2 runs; the first: not reached: best 0.1")


def test_seeds_are_distinct_and_begin_with_the_first() -> None:
    assert repeat_seeds(41, 3) == [41, 42, 43]


def test_a_seed_that_does_not_exist_is_refused() -> None:
    assert repeat_seeds(2**32 - 2, 2)[-1] == 2**32 - 1
    with pytest.raises(UsageError, match="exceed the highest seed"):
        repeat_seeds(2**32 - 2, 3)


def test_failed_and_vanished_runs_are_counted_and_lend_no_values(tmp_path: Path, planned: Record) -> None:
    for name, value in (("a", 0.25), ("b", 0.75)):
        (tmp_path / name).mkdir()
        metrics = planned.metrics.model_copy(update={"quality": value})
        record = planned.model_copy(update={"run_id": name, "metrics": metrics, "status": Status(state="completed")})
        (tmp_path / name / "record.json").write_text(record_text(record))
    states = {"a": "completed", "b": "failed", "gone": "completed"}
    runs = [
        RepeatedRun.model_validate({"directory": name, "seed": seed, "state": state})
        for seed, (name, state) in enumerate(states.items())
    ]

    repeats = summarize_repeats("mobilenetv2", 4, runs, tmp_path, to=tmp_path / "repeats.json")

    assert repeats.completed == 1
    assert [run.state for run in repeats.runs] == ["completed", "failed", "failed"]
    assert repeats.metrics["quality"].values == [0.25]
    assert Repeats.model_validate_json((tmp_path / "repeats.json").read_text()) == repeats
