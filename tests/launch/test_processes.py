"""Real runs that are disturbed from outside: what the record says, and that no process stays behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from chipperf.records.store import RunDirectory, read_record
from quick_cases import install_quick_cases
from support import TIMEOUT_S, fill, perf_command, perf_environment, processes_naming, ranks_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support import FakeDistributions, Perf

BOUNDED_S = 40


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline_s = time.monotonic() + TIMEOUT_S
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline_s
        time.sleep(0.1)


def events_of(directory: RunDirectory) -> list[dict[str, Any]]:
    if not directory.events.exists():
        return []
    lines = directory.events.read_text(encoding="utf-8").split("\n")
    # What comes after the last line's end was cut off.
    return [json.loads(line) for line in lines[:-1]]


@pytest.fixture
def training(
    image_folder: Path, tmp_path: Path, distributions: FakeDistributions
) -> Iterator[Callable[..., tuple[subprocess.Popen[str], RunDirectory]]]:
    """Starts a run of small steps that would take days, and returns when it has evaluated once."""
    python_path = install_quick_cases(distributions.root)
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: object, root: Path = tmp_path) -> tuple[subprocess.Popen[str], RunDirectory]:
        directory = RunDirectory(root / "run")
        command = perf_command(
            *("train", "endless", "--vendor", "cpu", "--data", image_folder, "--out", directory.path),
            *("--set", "workers=1", *arguments),
        )
        process = subprocess.Popen(
            command,
            env=perf_environment(PYTHONPATH=python_path, OMP_NUM_THREADS="1"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        wait_for(lambda: any(event["event"] == "EVAL_STOP" for event in events_of(directory)), process)
        return process, directory

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.slow
def test_interrupted_run_says_so_and_keeps_what_it_has(training, image_folder: Path, perf: Perf) -> None:  # type: ignore[no-untyped-def]
    """Slow: a real run. Another one into its directory is refused, and leaves it alone."""
    process, directory = training()
    before = directory.events.read_text(encoding="utf-8")

    second = perf("train", "mobilenetv2", "--vendor", "cpu", "--data", image_folder, "--out", directory.path)
    assert second.returncode == 2
    assert "already holds a run" in second.stderr
    assert process.poll() is None
    # What a terminal does when Ctrl-C is typed.
    os.killpg(process.pid, signal.SIGINT)
    _, complaints = process.communicate(timeout=BOUNDED_S)

    assert process.returncode == 1
    assert "perf: error: stopped by a signal" in complaints
    assert "Traceback" not in complaints
    record = read_record(directory.path)
    assert record.status.state == "interrupted"
    assert record.metrics.curve
    assert isinstance(record.metrics.steps, int)
    assert record.metrics.steps >= 6
    assert directory.events.read_text(encoding="utf-8").startswith(before)
    assert events_of(directory)[-1]["event"] == "RUN_STOP"
    assert processes_naming(str(directory.path)) == []


@pytest.mark.slow
def test_killed_rank_ends_the_run_and_is_named(training) -> None:  # type: ignore[no-untyped-def]
    """Slow: a real run of two ranks."""
    process, directory = training("--nproc", 2)
    _, second = ranks_of(process)

    second.kill()
    _, complaints = process.communicate(timeout=BOUNDED_S)

    assert process.returncode == 1
    assert "perf: error: rank 1: the process was killed by SIGKILL without saying why" in complaints
    record = read_record(directory.path)
    assert record.status.state == "failed"
    assert record.status.failure is not None
    assert record.status.failure.failure_class == "rank_died"
    assert record.metrics.curve
    psutil.wait_procs(processes_naming(str(directory.path)), timeout=10)
    assert processes_naming(str(directory.path)) == []


@pytest.mark.slow
def test_full_disk_ends_the_run_and_is_recorded(small_disk: Path, training) -> None:  # type: ignore[no-untyped-def]
    """Slow: a real run."""
    process, directory = training(root=small_disk)
    before = events_of(directory)

    fill(small_disk)
    _, complaints = process.communicate(timeout=BOUNDED_S)

    assert process.returncode == 1
    [line] = [line for line in complaints.splitlines() if line.startswith("perf: error: ")]
    assert "cannot write the event log" in line or "the disk is full" in line
    assert "Traceback" not in complaints
    record = read_record(directory.path)
    assert record.status.state == "failed"
    assert record.status.failure is not None
    assert record.status.failure.failure_class == "RecordError"
    assert record.metrics.curve
    assert events_of(directory)[: len(before)] == before
