"""How a budget is shared out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from chipperf.errors import DataError, UsageError
from chipperf.plugin.selection import select_vendor
from chipperf.qualify.qualify_plan import (
    STAGES,
    Candidate,
    allotments,
    candidates,
    choose_cases,
    fitting,
    suite_text,
)
from chipperf.suites.suite_plan import plan_suite

LEAST = sum(each.least_starts for each in STAGES.values())


def test_stages_share_the_whole_budget() -> None:
    found = allotments(3600.0, 2.0)

    assert sum(found.values()) == pytest.approx(3600.0)
    assert all(found[name] >= 2 * stage.least_starts for name, stage in STAGES.items())


def test_budget_that_is_too_short_names_the_shortest() -> None:
    assert sum(allotments(LEAST, 1.0).values()) == pytest.approx(LEAST)

    with pytest.raises(UsageError, match="is too short") as caught:
        allotments(LEAST - 1, 1.0)

    assert caught.value.hint == f"the shortest that would do is {int(LEAST) + 1}s"


def test_most_telling_runs_come_first() -> None:
    found = candidates(select_vendor("cpu"), ["resnet50", "mobilenetv2"])

    names = [each.name for each in found]
    assert names[:2] == ["resnet50-fp32-1x1", "mobilenetv2-fp32-1x1"]
    assert set(names[-2:]) == {"resnet50-bf16-1x2", "mobilenetv2-bf16-1x2"}
    assert len(set(names)) == 2 * 2 * 2


@pytest.mark.parametrize(("seconds", "count"), [(7.0, 1), (16.0, 2), (23.9, 2), (1000.0, 3)])
def test_as_many_runs_as_fit(seconds: float, count: int) -> None:
    found = [Candidate(case=case, precision="fp32", topology="1x1") for case in ("a", "b", "c")]

    chosen, training_s = fitting(found, seconds, 1.0)

    assert chosen == found[:count]
    assert 1.0 <= training_s <= max(1.0, seconds / count)


def test_suite_is_one_that_is_accepted(tmp_path: Path) -> None:
    runs = [Candidate(case="mobilenetv2", precision="bf16", topology="1x2")]
    for part in ("train", "val"):
        (tmp_path / part).mkdir()
    (tmp_path / "suite.toml").write_text(suite_text(runs, 12.7, "cpu", "tiny", {"mobilenetv2": tmp_path}))

    (run,) = plan_suite(tmp_path / "suite.toml").runs

    assert (run.case, run.precision, run.topology) == ("mobilenetv2", "bf16", "1x2")
    expected = {"--budget=12s", "--preset=tiny", "--max-steps=40", "--vendor=cpu", f"--data={tmp_path}"}
    assert expected <= set(run.arguments)


def test_suite_of_the_whole_case_ends_with_its_budget_alone(tmp_path: Path) -> None:
    runs = [Candidate(case="mobilenetv2", precision="bf16", topology="1x2")]

    assert "max_steps" not in suite_text(runs, 12.7, "cpu", "full", {"mobilenetv2": tmp_path})


@pytest.mark.parametrize(
    ("names", "data", "error"),
    [
        (["resnet"], {}, UsageError),
        (["resnet50"], {"detr": Path()}, UsageError),
        (["resnet50"], {"resnet50": Path("/nowhere")}, DataError),
    ],
)
def test_cases_and_data_that_are_not_there(names: list[str], data: dict[str, Path], error: Any) -> None:
    with pytest.raises(error):
        choose_cases(names, data)
