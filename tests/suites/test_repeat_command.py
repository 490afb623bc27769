"""``perf train --repeat``: one run after another, each with a seed of its own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from chipperf.records.schema import Missing
from chipperf.records.store import read_record
from support import processes_naming

if TYPE_CHECKING:
    from pathlib import Path

    from fake_training import FakeTraining
    from support import Perf

TRAIN = ("train", "mobilenetv2", "--vendor", "cpu", "--preset", "tiny")


def test_every_repeat_has_its_directory_and_its_seed(fake: FakeTraining) -> None:
    process = fake.perf(*TRAIN, "--repeat", 3, "--seed", 7, "--out", "all", "--set", "workers=0", "--no-device-check")

    assert process.returncode == 0, process.stderr
    assert fake.seeds() == [7, 8, 9]
    common = ["mobilenetv2", "--vendor=cpu", "--preset=tiny", "--set=workers=0", "--no-device-check"]
    assert [sorted(start[:-2]) for start in fake.starts] == [sorted(common)] * 3
    assert [start[-1] for start in fake.starts] == [f"--out=all/repeat-{place}" for place in (1, 2, 3)]
    summary = json.loads((fake.directory / "all" / "repeats.json").read_text())
    assert [run["seed"] for run in summary["runs"]] == [7, 8, 9]
    assert summary["metrics"]["p_train"]["values"] == [1007.0, 1008.0, 1009.0]
    assert summary["metrics"]["p_train"]["value"] == 1008.0
    assert "p_train" in process.stdout
    assert "images/s" in process.stdout
    assert "median of 3 completed runs" in process.stdout
    assert "repeat-2 of 3: seed 8" in process.stderr


@pytest.mark.parametrize(("options", "first"), [(["--set", "seed=5"], 5), ([], 41), (["--config", "run.toml"], 12)])
def test_the_first_seed_is_the_one_that_a_single_run_would_have(
    fake: FakeTraining, options: list[str], first: int
) -> None:
    (fake.directory / "run.toml").write_text("[hyperparameters]\nseed = 12\n")

    assert fake.perf(*TRAIN, "--repeat", 2, "--out", "all", *options).returncode == 0

    assert fake.seeds() == [first, first + 1]
    assert not [word for start in fake.starts for word in start if word.startswith("--set=seed")]


def test_a_failed_repeat_fails_the_command_and_the_others_run(fake: FakeTraining) -> None:
    fake.behave(**{"repeat-2": "fail"})

    process = fake.perf(*TRAIN, "--repeat", 3, "--seed", 1, "--out", "all")

    assert process.returncode == 1
    assert fake.seeds() == [1, 2, 3]
    assert "perf: error: 2 of 3 runs completed; repeat-2 failed" in process.stderr
    summary = json.loads((fake.directory / "all" / "repeats.json").read_text())
    assert [run["state"] for run in summary["runs"]] == ["completed", "failed", "completed"]
    assert summary["metrics"]["p_train"]["values"] == [1001.0, 1003.0]


def test_a_signal_ends_the_current_repeat_and_begins_no_other(fake: FakeTraining) -> None:
    fake.behave(**{"repeat-2": "stop parent"})

    process = fake.perf(*TRAIN, "--repeat", 3, "--seed", 1, "--out", "all")

    assert process.returncode == 1
    assert fake.seeds() == [1, 2]
    assert (fake.directory / "stopped").read_text() == "1"
    assert "stopped by a signal: 1 of 3 runs completed; repeat-2 interrupted" in process.stderr
    assert "Traceback" not in process.stderr
    assert processes_naming(str(fake.directory)) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--repeat", "0"], "Invalid value for '--repeat'"),
        (["--repeat", "3", "--seed", str(2**32 - 2)], "exceed the highest seed"),
        (["--repeat", "3", "--set", "lrr=1"], "unknown hyperparameter 'lrr'"),
        (["--repeat", "3", "--data", "nowhere"], "the dataset directory nowhere does not exist"),
        (["--budget", "30"], "--budget '30' is not a duration"),
        (["--repeat", "3", "--budget", "0m"], "--budget '0m' is not a positive duration"),
    ],
)
def test_bad_input_starts_nothing(fake: FakeTraining, arguments: list[str], message: str) -> None:
    process = fake.perf(*TRAIN, *arguments, "--out", "all")

    assert process.returncode in (1, 2)
    assert message in process.stderr
    assert "Traceback" not in process.stderr
    assert not (fake.directory / "all").exists()
    assert fake.starts == []


def test_runs_are_never_overwritten(fake: FakeTraining) -> None:
    assert fake.perf(*TRAIN, "--repeat", 2, "--out", "all").returncode == 0

    process = fake.perf(*TRAIN, "--repeat", 2, "--out", "all")

    assert process.returncode == 2
    assert "all already holds runs" in process.stderr
    assert len(fake.starts) == 2


@pytest.mark.slow
def test_two_ranks_end_in_time_together(perf: Perf, image_folder: Path, tmp_path: Path) -> None:
    """Slow: a real run of two ranks, whose budget is over within its warm-up."""
    process = perf(
        *(*TRAIN, "--data", image_folder, "--set", "workers=1", "--nproc", 2),
        *("--budget", "0.001s", "--out", tmp_path / "run"),
        OMP_NUM_THREADS="1",
    )

    assert process.returncode == 0, process.stderr
    record = read_record(tmp_path / "run")
    assert record.limits.budget_s == 0.001
    assert record.metrics.steps == 1
    assert len(record.metrics.curve) == 1
    assert isinstance(record.metrics.time_to_target, Missing)
    assert record.metrics.time_to_target.reason.startswith("not reached within the budget of 0.001s: best")
    assert record.metrics.projected_train_seconds == Missing(
        missing="not_run", reason="the budget ended before a window"
    )
