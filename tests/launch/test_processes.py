"""Real runs that are disturbed from outside: what the record says, and that no process stays behind."""

from __future__ import annotations

import ipaddress
import os
import signal
from typing import TYPE_CHECKING

import psutil
import pytest
from chipperf.records.store import read_record
from chipperf.run.directory import RunDirectory
from quick_cases import install_quick_cases
from support import (
    evaluations,
    events_of,
    fill,
    perf_command,
    perf_environment,
    process_starter,
    processes_naming,
    ranks_of,
    wait_for,
)

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support import FakeDistributions, Perf

BOUNDED_S = 40


@pytest.fixture
def training(
    image_folder: Path, tmp_path: Path, distributions: FakeDistributions
) -> Iterator[Callable[..., tuple[subprocess.Popen[str], RunDirectory]]]:
    """Starts a run of small steps that would take days, and returns when it has evaluated once."""
    environment = perf_environment(PYTHONPATH=install_quick_cases(distributions), OMP_NUM_THREADS="1")
    with process_starter(tmp_path) as start_process:

        def start(
            *arguments: object, root: Path = tmp_path, executed: bool = False
        ) -> tuple[subprocess.Popen[str], RunDirectory]:
            directory = RunDirectory(root / "run")
            command = perf_command(
                *("train", "endless", "--vendor", "cpu", "--data", image_folder, "--out", directory.path),
                *("--set", "workers=1", *arguments),
            )
            process = start_process(command, environment, executed=executed)
            wait_for(lambda: evaluations(directory) >= 1, process)
            return process, directory

        yield start


@pytest.mark.slow
def test_interrupted_run_says_so_and_keeps_what_it_has(training, image_folder: Path, perf: Perf) -> None:  # type: ignore[no-untyped-def]
    """Slow: a real run. Neither another one in its directory nor resuming it is possible meanwhile."""
    process, directory = training()
    before = directory.events.read_text(encoding="utf-8")

    second = perf("train", "mobilenetv2", "--vendor", "cpu", "--data", image_folder, "--out", directory.path)
    assert second.returncode == 2
    assert "already holds a run" in second.stderr
    early = perf("train", "--resume", directory.path)
    assert early.returncode == 2
    assert "is still running" in early.stderr
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
    last = events_of(directory)[-1]
    assert (last["event"], last["metadata"]["reason"]) == ("RUN_STOP", "interrupted")
    assert processes_naming(str(directory.path)) == []


@pytest.mark.slow
def test_killed_rank_ends_the_run_and_is_named(training) -> None:  # type: ignore[no-untyped-def]
    """Slow: a real run of two ranks, nothing of which is forked from anything else.

    Meanwhile nobody on another machine can reach any of its processes.
    """
    process, directory = training("--nproc", 2, executed=True)
    _, second = ranks_of(process)
    addresses = listening_addresses(psutil.Process(process.pid))
    assert addresses
    assert {ipaddress.ip_address(address).is_loopback for address in addresses} == {True}

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


def listening_addresses(process: psutil.Process) -> list[str]:
    """Return the addresses on which a process and its descendants listen."""
    family = [process, *process.children(recursive=True)]
    connections = [connection for each in family for connection in each.net_connections(kind="tcp")]
    return [connection.laddr.ip for connection in connections if connection.status == psutil.CONN_LISTEN]


@pytest.mark.slow
def test_ranks_of_a_killed_launcher_end_also_while_they_import(
    tmp_path: Path, image_folder: Path, distributions: FakeDistributions
) -> None:
    """Slow: two real ranks that import torch. Each hears of it through its lifeline, and of nothing else."""
    with process_starter(tmp_path) as start:
        command = ("train", "mobilenetv2", "--vendor", "cpu", "--preset", "tiny", "--nproc", 2)
        command += ("--data", image_folder, "--out", tmp_path / "run")
        process = start(perf_command(*command), perf_environment(OMP_NUM_THREADS="1"), executed=True)
        wait_for(lambda: len(processes_naming(str(tmp_path / "run"))) == 3, process)
        ranks = [each for each in processes_naming(str(tmp_path / "run")) if each.pid != process.pid]

        process.kill()

        assert psutil.wait_procs(ranks, timeout=BOUNDED_S)[1] == []


@pytest.mark.slow
def test_full_disk_ends_the_run_and_is_recorded(small_disk: Path, training) -> None:  # type: ignore[no-untyped-def]
    """Slow: a real run."""
    process, directory = training(root=small_disk)
    before = events_of(directory)

    fill(small_disk)
    _, complaints = process.communicate(timeout=BOUNDED_S)

    assert process.returncode == 1, complaints
    [line] = [line for line in complaints.splitlines() if line.startswith("perf: error: ")]
    assert "cannot write the event log" in line or "the disk is full" in line
    assert "Traceback" not in complaints
    record = read_record(directory.path)
    assert record.status.state == "failed"
    assert record.status.failure is not None
    assert record.status.failure.failure_class == "RecordError"
    assert record.metrics.curve
    assert events_of(directory)[: len(before)] == before
