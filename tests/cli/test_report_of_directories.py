"""``perf report`` of a directory with runs of several cases and vendors, and what the name of ``--out`` decides."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from chipperf.records import store
from factory import make_record

if TYPE_CHECKING:
    from pathlib import Path

    from invocation import Invoke


@pytest.fixture
def runs(tmp_path: Path) -> str:
    for name, case, vendor in (("a", "resnet50", "cpu"), ("deep/b", "resnet50", "metax"), ("c", "mobilenetv2", "cpu")):
        (tmp_path / "runs" / name).mkdir(parents=True)
        record = make_record(run_id=f"run-{name[-1]}", case__name=case, vendor__name=vendor)
        (tmp_path / "runs" / name / "record.json").write_text(record.model_dump_json(), encoding="utf-8")
    return "runs"


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        (("--case", "mobilenetv2"), {"run-c"}),
        (("--case", "resnet50", "--vendor", "cpu"), {"run-a"}),
        (("--vendor", "metax"), {"run-b"}),
    ],
)
def test_directory_stands_for_the_chosen_runs_below_it(
    invoke: Invoke, runs: str, options: tuple[str, ...], shown: set[str]
) -> None:
    ended = invoke("report", runs, *options, "--lang", "en")

    assert ended.code == 0, ended.err
    assert {run for run in ("run-a", "run-b", "run-c") if run in ended.out} == shown


@pytest.mark.parametrize("name", ["images", "unknown"])
def test_run_that_failed_before_it_read_its_dataset_is_shown_with_the_others(
    invoke: Invoke, tmp_path: Path, name: str
) -> None:
    """Earlier versions recorded the name of its directory as that of a dataset."""
    unread = {"missing": "not_run", "reason": "the run did not come this far"}
    data = {"name": name, "version": unread, "fingerprint": unread, "fingerprint_method": "", "is_sample": False}
    failure = {"failure_class": "DataError", "message": "cannot list train"}
    early = make_record(
        run_id="early", dataset=data, environment__row_label=unread, status={"state": "failed", "failure": failure}
    )
    for record in (early, make_record(run_id="whole", dataset__is_sample=True)):
        (tmp_path / "runs" / record.run_id).mkdir(parents=True)
        (tmp_path / "runs" / record.run_id / "record.json").write_text(record.model_dump_json(), encoding="utf-8")

    ended = invoke("report", "runs", "--lang", "en")

    assert ended.code == 0, ended.err
    assert "cannot list train" in ended.out
    # The banner is of the dataset that was read.
    assert "Sample dataset: these runs" in ended.out


@pytest.mark.parametrize("change", [{"state": "completed"}, {"state": "failed"}])
def test_records_of_two_datasets_that_were_read_are_refused(
    invoke: Invoke, tmp_path: Path, change: dict[str, str]
) -> None:
    unread = {"missing": "not_run", "reason": "the run did not come this far"}
    other = {"dataset__fingerprint": unread} if change["state"] == "completed" else {"dataset__fingerprint": "6" * 64}
    records = (make_record(run_id="a"), make_record(run_id="b", status=change, dataset__name="other", **other))
    for record in records:
        (tmp_path / "runs" / record.run_id).mkdir(parents=True)
        (tmp_path / "runs" / record.run_id / "record.json").write_text(record.model_dump_json(), encoding="utf-8")

    ended = invoke("report", "runs")

    assert ended.code == 2
    assert "of several datasets" in ended.err


@pytest.mark.parametrize("form", ["md", "html"])
def test_record_that_is_shown_is_read_once(
    invoke: Invoke, runs: str, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """A run that goes on meanwhile must not be chosen as one record and shown as another."""
    read: list[str] = []
    read_bounded = store.read_bounded

    def noted(path: Path) -> bytes:
        read.append(str(path))
        return read_bounded(path)

    monkeypatch.setattr(store, "read_bounded", noted)

    ended = invoke("report", runs, "--case", "resnet50", "--vendor", "cpu", "--format", form)

    assert ended.code == 0, ended.err
    assert [path for path in read if path.endswith("/a/record.json")] == ["runs/a/record.json"]


@pytest.mark.parametrize(
    ("options", "error", "hint"),
    [
        ((), "several cases: mobilenetv2, resnet50", "--case"),
        (("--case", "resnet50"), "several vendors: cpu, metax", "--vendor"),
        (("--case", "detr"), "no run matches --case detr", "leave the option out"),
    ],
)
def test_what_is_no_single_report_says_how_to_choose(
    invoke: Invoke, runs: str, options: tuple[str, ...], error: str, hint: str
) -> None:
    ended = invoke("report", runs, *options)

    assert ended.code == 2
    assert error in ended.err
    assert hint in ended.err.splitlines()[-1]


def test_record_that_cannot_be_read_is_noted_and_left_out(invoke: Invoke, runs: str, tmp_path: Path) -> None:
    (tmp_path / "runs" / "c" / "record.json").write_text("{")

    ended = invoke("report", runs, "--vendor", "cpu")

    assert ended.code == 0
    assert "note: left out: runs/c/record.json:1:2: not JSON" in ended.err


def test_ending_of_out_says_what_is_written(invoke: Invoke, runs: str, tmp_path: Path) -> None:
    invoke("report", runs, "--out", "page.html")
    refused = invoke("report", runs, "--case", "mobilenetv2", "--format", "md", "--out", "report.html")

    assert (tmp_path / "page.html").read_text(encoding="utf-8").lower().startswith("<!doctype html")
    assert (refused.code, (tmp_path / "report.html").exists()) == (2, False)
    assert "report.html would not be HTML" in refused.err


@pytest.mark.parametrize(
    "words", [("compare", "runs/a", "--out", "x.html"), ("lint", "README.md", "--output-file", "x.HTM")]
)
def test_html_is_refused_where_none_is_written(
    invoke: Invoke, runs: str, tmp_path: Path, words: tuple[str, ...]
) -> None:
    ended = invoke(*words)

    assert ended.code == 2
    assert "would not be HTML" in ended.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]
