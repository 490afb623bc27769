"""``perf runs`` and ``perf show``: every run is listed, and what cannot be read is named."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from invocation import Invoke

FACTORY = runpy.run_path(str(Path(__file__).parents[1] / "report" / "factory.py"))
OOM = {"state": "failed", "failure": {"failure_class": "out_of_memory", "message": "rank 0: the device is full"}}


@pytest.fixture
def write() -> Callable[..., None]:
    """Write a run below the working directory."""

    def make(name: str, **changes: Any) -> None:
        Path(name).mkdir(parents=True)
        record = FACTORY["make_record"](**{"run_id": Path(name).name, **changes})
        Path(name, "record.json").write_text(record.model_dump_json(), encoding="utf-8")

    return make


@pytest.fixture
def three(write: Callable[..., None]) -> None:
    """Three runs, one of them in a directory of repeats."""
    write("runs/old", created_at="2026-01-01T00:00:00Z")
    write("runs/deep/new", created_at="2026-03-01T00:00:00Z", case__name="mobilenetv2", vendor__name="birch")
    write("runs/failed", created_at="2026-02-01T00:00:00Z", status=OOM, topology__nproc_per_node=1)


def listed(text: str) -> list[str]:
    return [line.split()[-1] for line in text.splitlines()[1:]]


def test_runs_are_listed_the_newest_first(invoke: Invoke, three: None) -> None:
    ended = invoke("runs", "runs")

    assert (ended.code, ended.err) == (0, "")
    assert listed(ended.out) == ["runs/deep/new", "runs/failed", "runs/old"]
    assert "2026-02-01 00:00  failed (out_of_memory)  resnet50     A1 1x1 fp32  -" in ended.out
    assert "4659    converged" in ended.out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--case", "resnet50"), ["failed", "old"]),
        (("--vendor", "birch"), ["new"]),
        (("--state", "failed"), ["failed"]),
        (("--verdict", "converged"), ["new", "old"]),
        (("--topology", "1x8"), ["new", "old"]),
        (("--precision", "fp32", "--case", "mobilenetv2"), ["new"]),
    ],
)
def test_filters_choose(invoke: Invoke, three: None, arguments: tuple[str, ...], expected: list[str]) -> None:
    content = json.loads(invoke("runs", "runs", *arguments, "--json").out)

    assert [run["run_id"] for run in content["runs"]] == expected


def test_no_run_that_is_such_is_told_with_what_there_is(invoke: Invoke, three: None) -> None:
    ended = invoke("runs", "runs", "--case", "detr")

    assert (ended.code, ended.out) == (0, "")
    assert "none of 3 runs matches; there are: case mobilenetv2, resnet50" in ended.err


def test_what_cannot_be_read_is_named_and_the_others_are_listed(invoke: Invoke, three: None) -> None:
    Path("runs/bad").mkdir()
    Path("runs/bad/record.json").write_text("{", encoding="utf-8")
    ended = invoke("runs", "runs")
    content = json.loads(invoke("runs", "runs", "--json").out)

    assert ended.code == 0
    assert len(listed(ended.out)) == 3
    assert "note: not readable: runs/bad/record.json:1:2: not JSON" in ended.err
    (problem,) = content["problems"]
    assert problem.startswith("runs/bad/record.json:1:2: not JSON")


def test_a_directory_that_is_not_there_is_an_error(invoke: Invoke) -> None:
    ended = invoke("runs", "misspelled")

    assert ended.code == 2
    assert "there is no misspelled" in ended.err


def test_a_run_is_shown_with_what_did_not_work(invoke: Invoke, three: None) -> None:
    ended = invoke("show", "runs/failed")

    assert ended.code == 0
    for text in (
        "failed (out_of_memory)",
        "rank 0: the device is full",
        "ACME SDK 9",
        "ACME_TF32",
        "chipperf-acme 2.3.4",
    ):
        assert text in ended.out
    assert json.loads(invoke("show", "runs/failed", "--json").out)["p_core_missing"] == "failed: out_of_memory"


@pytest.mark.parametrize("path", ["runs", "misspelled", "runs/bad"])
def test_what_is_no_run_is_an_error_in_one_line(invoke: Invoke, three: None, path: str) -> None:
    Path("runs/bad").mkdir()
    Path("runs/bad/record.json").write_text("[]", encoding="utf-8")
    ended = invoke("show", path)

    assert ended.code == 2
    assert ended.err.startswith("perf: error: ")
    assert "Traceback" not in ended.err


def test_what_a_state_says_is_not_said_twice(invoke: Invoke, write: Callable[..., None]) -> None:
    stopped = {"failure_class": "interrupted", "message": "stopped by a signal"}
    write("runs/stopped", status={"state": "interrupted", "failure": stopped})
    unmet = {"missing": "failed", "reason": "not reached: best 16.50% in epoch 3, target 75.50%"}
    write("runs/unmet", metrics__time_to_target=unmet)

    listed_runs, shown = invoke("runs", "runs"), invoke("show", "runs/unmet")

    assert " interrupted  resnet50" in listed_runs.out
    assert "not reached: best 16.50% in epoch 3" in shown.out
    assert "not reached (not reached" not in shown.out
    assert "none of 2 runs matches" in invoke("runs", "runs", "--case", "detr").err
    assert "none of 1 run matches" in invoke("runs", "runs/unmet", "--case", "detr").err
