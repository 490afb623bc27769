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
        # Of another version of the case than the installed one, whose settings no record of another case has.
        changes = {"case__name": case, "vendor__name": vendor, "vendor__device_type": vendor, "case__version": "0.9"}
        record = make_record(run_id=f"run-{name[-1]}", **changes)
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
    assert "report.html ends in .html, which is not the format" in refused.err


WRITING = {
    "report": ("report", "runs/a", "--out"),
    "report html": ("report", "runs/a", "--format", "html", "--out"),
    "compare": ("compare", "runs/a", "--out"),
    "curve": ("compare", "runs/a", "--curve", "loss", "--out"),
    "bundle": ("bundle", "runs/a", "--out"),
    "lint": ("lint", "README.md", "--output-file"),
    "baseline": ("lint", "README.md", "--write-baseline"),
    "statement": ("contract", "run", "--vendor", "cpu", "--level", 0, "--statement"),
    "reveal": ("reveal", "runs/a", "--secrets", "runs/a/record.json", "--out"),
    "withhold": (
        *("withhold", "runs/a", "--field", "metrics.p_core", "--reason", "r", "--out", "public/a"),
        "--secrets",
    ),
}
"""Commands that write a file whose name is to follow."""


@pytest.mark.parametrize(
    ("command", "name", "ending"),
    [
        ("report", "x.pdf", ".md"),
        ("report", "x.html.txt.gz", ".md"),
        ("report html", "x.md", ".html"),
        ("compare", "x.html", ".csv"),
        ("compare", "x.pdf", ".md"),
        ("curve", "x.pdf", ".svg"),
        ("bundle", "x.zip", ".tar.gz"),
        ("bundle", "x.gz", ".tar.gz"),
        ("lint", "x.HTM", ".json"),
        ("lint", "x.pdf", ".txt"),
        ("baseline", "x.md", ".json"),
        ("statement", "x.txt", ".json"),
        ("reveal", "x.txt", ".json"),
    ],
)
def test_ending_that_is_not_what_is_written_is_refused_with_those_that_are(
    invoke: Invoke, runs: str, tmp_path: Path, command: str, name: str, ending: str
) -> None:
    ended = invoke(*WRITING[command], name)

    assert ended.code == 2
    assert name in ended.err.splitlines()[0]
    assert ending in ended.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]


@pytest.mark.parametrize("command", WRITING)
def test_directory_in_place_of_a_file_is_refused_with_what_to_do(
    invoke: Invoke, runs: str, tmp_path: Path, command: str
) -> None:
    name = "reports.svg" if command == "curve" else "reports"
    (tmp_path / name).mkdir()

    ended = invoke(*WRITING[command], name)

    assert ended.code == 2
    assert ended.err.splitlines() == [f"perf: error: {name} is a directory", "  hint: name a file in it"]
    assert list((tmp_path / name).iterdir()) == []


@pytest.mark.parametrize("out", ["x.tar.gz", "x.tgz", "archive"])
def test_bundle_has_the_name_of_an_archive(invoke: Invoke, runs: str, tmp_path: Path, out: str) -> None:
    assert invoke("bundle", "runs/a", "--out", out).code == 0
    assert (tmp_path / out).is_file()


@pytest.mark.parametrize("words", [("report", "--format", "html"), ("bundle", "--out", "b.tar.gz")])
def test_what_a_pattern_matches_beside_runs_is_left_out_with_a_note(
    invoke: Invoke, runs: str, tmp_path: Path, words: tuple[str, ...]
) -> None:
    (tmp_path / "runs" / "slurm-1.sbatch").write_text("#!/bin/sh\n")
    (tmp_path / "runs" / "notes").mkdir()
    (tmp_path / "runs" / "unrecorded").mkdir()
    (tmp_path / "runs" / "unrecorded" / "plan.json").write_text("{}")
    command, *options = words

    ended = invoke(command, "runs/a", "runs/c", "runs/notes", "runs/slurm-1.sbatch", *options)
    alone = invoke(command, "runs/slurm-1.sbatch", *options)
    unrecorded = invoke(command, "runs/a", "runs/unrecorded", *options)

    assert ended.code == 0, ended.err
    assert [line for line in ended.err.splitlines() if line.startswith("note: left out")] == [
        "note: left out: runs/notes is not a run",
        "note: left out: runs/slurm-1.sbatch is not a run",
    ]
    assert (alone.code, unrecorded.code) == (2, 2)
    assert "runs/slurm-1.sbatch:1:1: not JSON" in alone.err
    assert "no record at runs/unrecorded" in unrecorded.err


@pytest.mark.parametrize(
    ("name", "content", "hint"),
    [
        ("record.json", b"{", "was edited, is incomplete, or is of another program"),
        ("record.json", b"{}", "was edited, is incomplete, or is of another program"),
        ("record.json", b"\xff", "was edited, is incomplete, or is of another program"),
        ("record.json", b'{"schema_version": 99}', "pip install --upgrade chipperf"),
        ("README.md", b"# report", "perf report import foreign/README.md"),
        ("rank0.out.log", b"x", "perf report import foreign/rank0.out.log"),
        ("other.json", b"[]", "'perf runs DIR' lists"),
    ],
)
@pytest.mark.parametrize("command", ["report", "show"])
def test_file_that_is_no_record_is_refused_with_what_to_do(
    invoke: Invoke, tmp_path: Path, command: str, name: str, content: bytes, hint: str
) -> None:
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / name).write_bytes(content)

    ended = invoke(command, f"foreign/{name}")

    assert ended.code == 2
    assert hint in ended.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "used", "wanted"),
    [
        (("report", "runs/a"), "report.md.j2", "resnet50.md.j2 or report.md.j2"),
        (("report", "runs/a"), "resnet50.md.j2", "resnet50.md.j2 or report.md.j2"),
        (("report", "runs/a", "--format", "html"), "report.html.j2", "resnet50.html.j2 or report.html.j2"),
        (("site", "runs", "--out", "site"), "leaderboard.html.j2", "leaderboard.html.j2 or report.html.j2"),
    ],
)
def test_directory_of_templates_without_one_that_is_used_is_noted(
    invoke: Invoke, runs: str, tmp_path: Path, words: tuple[str, ...], used: str, wanted: str
) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / f"x{used}").write_text("")

    noted = invoke(*words, "--templates", "own")
    (tmp_path / "own" / used).write_text(f'{{% extends "core/{used.replace("resnet50", "report")}" %}}')
    silent = invoke(*words, "--templates", "own")

    assert f"note: no template in own is used: it has no {wanted}" in noted.err
    assert (noted.code, silent.code) == (0, 0), noted.err + silent.err
    assert "no template in own" not in silent.err


@pytest.mark.parametrize(
    ("words", "error", "hint"),
    [
        (("verify", "no.md", "--runs", "runs"), "cannot read no.md", "name a report, such as README.md"),
        (("bundle", "check", "text.md"), "text.md is not a bundle: it is no .tar.gz", "an archive of 'perf bundle'"),
        (("limits", "--show", "runs/a"), "cannot read runs/a/limits.json", "'perf limits --out DIR'"),
        (("report", "runs/a", "runs/deep/b"), "several vendors", "choose one with --vendor; --format html"),
        (("report", "runs/a", "runs/c"), "several cases", "choose one with --case; --format html"),
        (("report", "runs/a", "runs/other"), "several kinds", "name its runs; --format html"),
    ],
)
def test_hint_fits_what_happened(
    invoke: Invoke, runs: str, tmp_path: Path, words: tuple[str, ...], error: str, hint: str
) -> None:
    (tmp_path / "text.md").write_text("# text\n")
    (tmp_path / "runs" / "other").mkdir()
    other = make_record(run_id="run-o", kind="simulated", vendor__name="cpu", case__version="0.9")
    (tmp_path / "runs" / "other" / "record.json").write_text(other.model_dump_json(), encoding="utf-8")

    ended = invoke(*words)

    assert error in ended.err
    assert hint in ended.err.splitlines()[-1]


def test_page_that_names_no_record_is_not_said_to_have_found_some(invoke: Invoke, runs: str, tmp_path: Path) -> None:
    (tmp_path / "text.md").write_text("# text\n")

    ended = invoke("verify", "text.md", "--runs", "runs")

    assert ended.code == 4
    assert "names no record by its hash" in ended.out
    assert "were found by the short hashes" not in ended.err
