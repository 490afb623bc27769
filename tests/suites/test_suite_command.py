"""``perf suite``: what runs, what does not run again, and what is left when it is stopped."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from chipperf.records.store import read_record
from chipperf.suites.state import SuiteDirectory
from support import processes_naming

if TYPE_CHECKING:
    from pathlib import Path

    from fake_training import FakeTraining
    from support import Perf

SUITE = """
[defaults]
vendor = "cpu"
preset = "tiny"

[[run]]
case = "mobilenetv2"
repeats = 3
seed = 1

[[run]]
case = "resnet50"
seed = 11
"""


def test_all_runs_complete_and_are_summarized(suite: FakeTraining) -> None:
    process = suite.perf("suite", "suite.toml", "--out", "out")

    assert process.returncode == 0, process.stderr
    assert suite.seeds() == [1, 2, 3, 11]
    assert suite.states() == ["completed"] * 4
    assert "[2/4] mobilenetv2-fp32-1x1/repeat-2 seed 2: begins" in process.stderr
    assert "[2/4] mobilenetv2-fp32-1x1/repeat-2 completed after" in process.stderr
    [line] = [line for line in process.stdout.splitlines() if line.startswith("mobilenetv2-fp32-1x1")]
    assert line.split()[1:4] == ["3/3", "1002", "(1001-1003)"]
    summary = json.loads((suite.directory / "out" / "mobilenetv2-fp32-1x1" / "repeats.json").read_text())
    assert [run["seed"] for run in summary["runs"]] == [1, 2, 3]
    log = suite.directory / "out" / "resnet50-fp32-1x1" / "repeat-1.log"
    assert log.read_text() == "fake run with seed 11\n"


@pytest.mark.parametrize(
    ("action", "error"),
    [
        ("fail", "the device has no memory left"),
        ("refuse", "no device is here"),
        ("crash", "killed by SIGKILL"),
    ],
)
def test_a_failed_run_keeps_no_other_from_its_turn(suite: FakeTraining, action: str, error: str) -> None:
    suite.behave(**{"repeat-2": action})

    process = suite.perf("suite", "suite.toml", "--out", "out")

    assert process.returncode == 1
    assert suite.states() == ["completed", "failed", "completed", "completed"]
    assert "[2/4] mobilenetv2-fp32-1x1/repeat-2 failed after" in process.stderr
    assert error in process.stderr
    assert "perf: error: 3 of 4 runs completed, 1 failed" in process.stderr
    assert suite.state()["runs"][1]["attempts"][0]["error"] == error


def test_failed_runs_run_again_only_when_asked(suite: FakeTraining) -> None:
    suite.behave(**{"repeat-2": "fail"})
    suite.perf("suite", "suite.toml", "--out", "out")
    suite.behave()

    left = suite.perf("suite", "suite.toml", "--out", "out", "--resume")
    assert (left.returncode, len(suite.starts)) == (1, 4)
    assert "--retry-failed" in left.stderr

    again = suite.perf("suite", "suite.toml", "--out", "out", "--resume", "--retry-failed")
    assert again.returncode == 0, again.stderr
    assert suite.seeds() == [1, 2, 3, 11, 2]
    assert suite.starts[-1][-1] == "--out=out/mobilenetv2-fp32-1x1/repeat-2-attempt-2"
    assert read_record(suite.directory / "out" / "mobilenetv2-fp32-1x1" / "repeat-2").status.state == "failed"
    summary = json.loads((suite.directory / "out" / "mobilenetv2-fp32-1x1" / "repeats.json").read_text())
    assert [run["directory"] for run in summary["runs"]] == ["repeat-1", "repeat-2-attempt-2", "repeat-3"]

    finished = suite.perf("suite", "suite.toml", "--out", "out", "--resume", "--retry-failed")
    assert (finished.returncode, len(suite.starts)) == (0, 5)


def test_a_signal_ends_the_current_run_and_the_rest_follows_later(suite: FakeTraining) -> None:
    suite.behave(**{"repeat-2": "stop parent"})

    stopped = suite.perf("suite", "suite.toml", "--out", "out")

    assert stopped.returncode == 1
    assert (suite.directory / "stopped").read_text() == "1"
    assert suite.states() == ["completed", "interrupted", "waiting", "waiting"]
    assert "perf: error: stopped by a signal: 1 of 4 runs completed, 0 failed" in stopped.stderr
    assert "hint: perf suite suite.toml --out=out --resume\n" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert processes_naming(str(suite.directory)) == []

    suite.behave()
    resumed = suite.perf("suite", "suite.toml", "--out", "out", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert suite.seeds() == [1, 2, 2, 3, 11]
    assert suite.starts[2][-1] == "--out=out/mobilenetv2-fp32-1x1/repeat-2-attempt-2"


def test_an_interrupted_run_goes_on_from_its_checkpoint(suite: FakeTraining) -> None:
    suite.behave(**{"repeat-2": "stop parent"})
    assert suite.perf("suite", "suite.toml", "--out", "out").returncode == 1
    run = suite.directory / "out/mobilenetv2-fp32-1x1/repeat-2"
    suite.leave_checkpoint(run, world_size=1)

    suite.behave()
    planned = suite.perf("suite", "suite.toml", "--out", "out", "--resume", "--dry-run")
    resumed = suite.perf("suite", "suite.toml", "--out", "out", "--resume")

    assert resumed.returncode == 0, resumed.stderr
    assert "perf train --resume=out/mobilenetv2-fp32-1x1/repeat-2\n" in planned.stdout
    assert suite.starts[2] == ["--resume=out/mobilenetv2-fp32-1x1/repeat-2"]
    assert suite.states() == ["completed"] * 4
    assert run.with_suffix(".log").read_text().count("fake run with seed 2") == 2


def test_a_run_that_survived_its_suite_is_taken_as_it_ended(suite: FakeTraining) -> None:
    suite.behave(**{"repeat-2": "kill parent"})
    killed = suite.perf("suite", "suite.toml", "--out", "out")
    assert killed.returncode == -signal.SIGKILL
    assert suite.states() == ["completed", "running", "waiting", "waiting"]
    wait_until_gone(suite)

    resumed = suite.perf("suite", "suite.toml", "--out", "out", "--resume")

    assert resumed.returncode == 0, resumed.stderr
    assert suite.seeds() == [1, 2, 3, 11]


def wait_until_gone(suite: FakeTraining) -> None:
    for process in processes_naming("--out=out/mobilenetv2-fp32-1x1/repeat-2"):
        process.wait(timeout=60)


@pytest.mark.parametrize("loss", ["record", "directory", "state"])
def test_a_run_without_a_complete_record_runs_again(suite: FakeTraining, loss: str) -> None:
    suite.perf("suite", "suite.toml", "--out", "out")
    run = suite.directory / "out/mobilenetv2-fp32-1x1/repeat-2"
    if loss == "directory":
        shutil.rmtree(run)
    elif loss == "record":
        (run / "record.json").unlink()
    else:
        record = json.loads((run / "record.json").read_text())
        record["status"]["state"] = "running"
        (run / "record.json").write_text(json.dumps(record))

    resumed = suite.perf("suite", "suite.toml", "--out", "out", "--resume")

    assert resumed.returncode == 0, resumed.stderr
    assert suite.seeds() == [1, 2, 3, 11, 2]
    assert suite.starts[-1][-1] == "--out=out/mobilenetv2-fp32-1x1/repeat-2-attempt-2"


def test_a_run_that_is_called_completed_without_an_attempt_runs(suite: FakeTraining) -> None:
    suite.behave(**{"repeat-2": "stop parent"})
    suite.perf("suite", "suite.toml", "--out", "out")
    suite.behave()
    edited = suite.state()
    edited["runs"][2]["state"] = edited["runs"][3]["state"] = "completed"
    (suite.directory / "out" / "suite.json").write_text(json.dumps(edited))

    resumed = suite.perf("suite", "suite.toml", "--out", "out", "--resume")

    assert resumed.returncode == 0, resumed.stderr
    assert suite.seeds() == [1, 2, 2, 3, 11]


@pytest.mark.parametrize("state", ["waiting", "failed", "interrupted", "running"])
def test_a_completed_run_is_not_repeated_whatever_its_state_says(suite: FakeTraining, state: str) -> None:
    suite.perf("suite", "suite.toml", "--out", "out")
    edited = suite.state()
    edited["runs"][1]["state"] = state
    (suite.directory / "out" / "suite.json").write_text(json.dumps(edited))

    resumed = suite.perf("suite", "suite.toml", "--out", "out", "--resume", "--retry-failed")

    assert resumed.returncode == 0, resumed.stderr
    assert suite.seeds() == [1, 2, 3, 11]


@pytest.mark.parametrize(
    "place", ["../better", "/better", "mobilenetv2-fp32-1x1/repeat-3", "resnet50-fp32-1x1/repeat-1", "", "\0"]
)
def test_an_attempt_is_in_a_directory_of_its_run(suite: FakeTraining, place: str) -> None:
    suite.perf("suite", "suite.toml", "--out", "out")
    edited = suite.state()
    edited["runs"][1]["attempts"][0]["directory"] = place
    (suite.directory / "out" / "suite.json").write_text(json.dumps(edited))

    refused = suite.perf("suite", "suite.toml", "--out", "out", "--resume")

    assert refused.returncode == 2
    assert "an attempt at mobilenetv2-fp32-1x1/repeat-2 is in" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_the_run_of_another_seed_or_case_is_not_taken_for_the_planned_one(suite: FakeTraining) -> None:
    suite.perf("suite", "suite.toml", "--out", "out")
    run = suite.directory / "out/mobilenetv2-fp32-1x1/repeat-2"
    for other, told in (("mobilenetv2-fp32-1x1/repeat-1", "seed 1"), ("resnet50-fp32-1x1/repeat-1", "resnet50")):
        shutil.rmtree(run)
        shutil.copytree(suite.directory / "out" / other, run)

        refused = suite.perf("suite", "suite.toml", "--out", "out", "--resume")

        assert refused.returncode == 1
        assert re.search(rf"is [a-z0-9 ]*{told}.*, and the suite planned mobilenetv2 fp32 1x1 seed 2", refused.stderr)


def test_values_that_the_files_of_a_run_contradict_are_doubted(suite: FakeTraining) -> None:
    suite.perf("suite", "suite.toml", "--out", "out")
    run = suite.directory / "out/mobilenetv2-fp32-1x1/repeat-2"
    (run / "events.jsonl").write_text('{"event": "RUN_STOP"}\n')
    record = json.loads((run / "record.json").read_text())
    record["evidence"] = {"events.jsonl": "0" * 64}
    (run / "record.json").write_text(json.dumps(record))

    doubted = suite.perf("suite", "suite.toml", "--out", "out", "--resume")

    assert doubted.returncode == 4
    assert "repeat-2/record.json: events.jsonl was changed after the run ended" in doubted.stderr
    assert "mobilenetv2-fp32-1x1  3/3" in doubted.stdout


def test_a_run_that_is_still_alive_is_not_run_beside_itself(suite: FakeTraining) -> None:
    suite.behave(**{"repeat-2": "outlive parent"})
    suite.perf("suite", "suite.toml", "--out", "out")
    try:
        resumed = suite.perf("suite", "suite.toml", "--out", "out", "--resume")
    finally:
        for process in processes_naming("fake_train.py"):
            with suppress(OSError):
                if process.pid == int((suite.directory / "pid").read_text()):
                    process.kill()

    assert resumed.returncode == 2
    assert "repeat-2 is still running" in resumed.stderr
    assert len(suite.starts) == 2


def test_a_changed_plan_is_not_continued(suite: FakeTraining) -> None:
    suite.behave(**{"repeat-2": "stop parent"})
    suite.perf("suite", "suite.toml", "--out", "out")
    before = (suite.directory / "out" / "suite.json").read_text()
    suite.write(SUITE.replace("seed = 11", "seed = 12").replace("repeats = 3", "repeats = 2"))

    process = suite.perf("suite", "suite.toml", "--out", "out", "--resume")

    assert process.returncode == 2
    assert "the suite was started with another plan: " in process.stderr
    assert "mobilenetv2-fp32-1x1/repeat-3 is gone" in process.stderr
    assert "resnet50-fp32-1x1/repeat-1 has other options" in process.stderr
    assert (suite.directory / "out" / "suite.json").read_text() == before


def test_a_comment_changes_no_plan(suite: FakeTraining) -> None:
    suite.perf("suite", "suite.toml", "--out", "out")
    suite.write(f"# the same runs\n{SUITE}")

    assert suite.perf("suite", "suite.toml", "--out", "out", "--resume").returncode == 0


def test_two_suites_in_one_directory_are_refused(suite: FakeTraining) -> None:
    with SuiteDirectory(suite.directory / "out").locked():
        process = suite.perf("suite", "suite.toml", "--out", "out")

    assert process.returncode == 2
    assert f"another suite runs in out: process {os.getpid()}" in process.stderr
    assert suite.starts == []
    assert suite.perf("suite", "suite.toml", "--out", "out").returncode == 0


def test_a_suite_is_never_begun_twice(suite: FakeTraining) -> None:
    suite.perf("suite", "suite.toml", "--out", "out")

    process = suite.perf("suite", "suite.toml", "--out", "out")

    assert process.returncode == 2
    assert "out already holds a suite" in process.stderr
    assert "--resume" in process.stderr
    assert len(suite.starts) == 4


def test_directories_that_hold_runs_are_left_alone(suite: FakeTraining) -> None:
    run = suite.directory / "out" / "resnet50-fp32-1x1" / "repeat-1"
    run.mkdir(parents=True)
    (run / "plan.json").write_text("{}")

    process = suite.perf("suite", "suite.toml", "--out", "out")

    assert process.returncode == 2
    assert "resnet50-fp32-1x1/repeat-1 already holds a run" in process.stderr
    assert suite.starts == []


@pytest.mark.parametrize("text", ["{", "{}", '{"version": 2, "file": "", "runs": []}', "\xff"])
def test_a_damaged_state_is_named(suite: FakeTraining, text: str) -> None:
    (suite.directory / "out").mkdir()
    (suite.directory / "out" / "suite.json").write_bytes(text.encode("latin-1"))

    process = suite.perf("suite", "suite.toml", "--out", "out", "--resume")

    assert process.returncode == 2
    assert "perf: error: cannot read out/suite.json: " in process.stderr
    assert "Traceback" not in process.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["suite.toml", "--resume"], "runs/suite holds no suite"),
        (["suite.toml", "--retry-failed"], "--retry-failed belongs to --resume"),
        (["suit.toml"], "cannot read suit.toml"),
        (["suite.toml", "--out", "suite.toml"], "cannot write to suite.toml"),
    ],
)
def test_bad_input_starts_nothing(suite: FakeTraining, arguments: list[str], message: str) -> None:
    process = suite.perf("suite", *arguments)

    assert process.returncode == 2
    assert message in process.stderr
    assert suite.starts == []


def test_a_dry_run_prints_the_plan_and_writes_nothing(suite: FakeTraining) -> None:
    process = suite.perf("suite", "suite.toml", "--dry-run")

    assert process.returncode == 0, process.stderr
    lines = process.stdout.splitlines()
    assert lines[0] == (
        "mobilenetv2-fp32-1x1/repeat-1: perf train mobilenetv2 --precision=fp32 --nproc=1 --preset=tiny --vendor=cpu "
        "--seed=1 --out=runs/suite/mobilenetv2-fp32-1x1/repeat-1"
    )
    assert lines[-1] == "4 of 4 runs would be started"
    assert suite.starts == []
    assert not (suite.directory / "runs").exists()


def test_a_dry_run_of_a_resume_says_what_is_left(suite: FakeTraining) -> None:
    suite.behave(**{"repeat-2": "fail", "resnet50": "stop parent"})
    suite.perf("suite", "suite.toml", "--out", "out")

    plan = suite.perf("suite", "suite.toml", "--out", "out", "--resume", "--dry-run", "--json")

    runs = json.loads(plan.stdout)
    assert [(run["state"], run["runs_now"]) for run in runs] == [
        ("completed", False),
        ("failed", False),
        ("completed", False),
        ("interrupted", True),
    ]
    assert runs[3]["command"].endswith("--out=out/resnet50-fp32-1x1/repeat-1-attempt-2")


def test_a_summary_is_printed_as_json(suite: FakeTraining) -> None:
    process = suite.perf("suite", "suite.toml", "--out", "out", "--json")

    summary = json.loads(process.stdout)
    assert summary["mobilenetv2-fp32-1x1"]["metrics"]["p_train"]["value"] == 1002.0
    assert summary["resnet50-fp32-1x1"]["planned"] == 1


def test_case_keys_run_and_what_is_ignored_is_said(fake: FakeTraining) -> None:
    fake.write("resnet50:pytorch_1.13:A100:1:2:2\n", "cases.txt")

    process = fake.perf("suite", "cases.txt", "--out", "out")

    assert process.returncode == 0, process.stderr
    assert [start[:3] for start in fake.starts] == [["resnet50", "--precision=fp32", "--nproc=2"]] * 2
    assert "note: resnet50:pytorch_1.13:A100:1:2:2: hardware 'A100'" in process.stderr


@pytest.mark.slow
def test_a_real_run(perf: Perf, image_folder: Path, tmp_path: Path) -> None:
    """Slow: trains a few steps."""
    file = tmp_path / "suite.toml"
    file.write_text(
        f"""
        [[run]]
        case = "mobilenetv2"
        vendor = "cpu"
        preset = "tiny"
        data = "{image_folder}"
        max_steps = 3
        set = {{ workers = 1 }}
        """
    )

    process = perf("suite", file, "--out", tmp_path / "out", OMP_NUM_THREADS="1")

    assert process.returncode == 0, process.stderr
    run = tmp_path / "out" / "mobilenetv2-fp32-1x1" / "repeat-1"
    assert read_record(run).status.state == "completed"
    assert f"record: {run / 'record.json'}" in run.with_suffix(".log").read_text()
