"""Runs on two machines, which are network namespaces here, and under another launcher; each is a real training run."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from chipperf.records.schema import Missing
from chipperf.records.store import read_record
from chipperf.run.directory import RunDirectory
from network_namespaces import two_machines
from quick_cases import EPOCHS, install_quick_cases
from support import (
    evaluations,
    events_of,
    free_port,
    perf_command,
    perf_environment,
    process_starter,
    processes_naming,
    ranks_of,
    wait_for,
)
from test_resume import measured

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from network_namespaces import Machine
    from support import FakeDistributions, Perf

LIMIT_S = 300
"""Four ranks start on two cores, beside other tests."""

BOUNDED_S = 120


@pytest.fixture
def machines() -> Iterator[tuple[Machine, Machine]]:
    try:
        with two_machines() as made:
            yield made
    except PermissionError as error:
        pytest.skip(str(error))


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a command, which and whose ranks are gone after the test."""
    with process_starter(tmp_path) as start_process:
        yield lambda command, executed=False, **environment: start_process(
            command, perf_environment(OMP_NUM_THREADS="1", **environment), executed=executed
        )


def training(case: str, images: Path, out: Path, *arguments: object) -> list[str]:
    return perf_command(
        *("train", case, "--vendor", "cpu", "--data", images, "--out", out, "--set", "workers=0", "--seed", 5),
        *arguments,
    )


def ended(process: subprocess.Popen[str], limit_s: float = LIMIT_S) -> tuple[int, str]:
    _, complaints = process.communicate(timeout=limit_s)
    assert "Traceback" not in complaints
    return process.returncode, complaints


@pytest.mark.slow
def test_two_machines_train_as_one(
    machines: tuple[Machine, Machine], image_folder: Path, tmp_path: Path, start: Any
) -> None:
    """Slow: a real run of four ranks on two machines that share no directory, and one of four on a single machine."""
    outs = [tmp_path / "first", tmp_path / "second"]
    processes = [
        start(
            machine.starts(
                number,
                machines[0],
                *training("mobilenetv2", image_folder, outs[number], "--preset", "tiny", "--nproc", 2),
            ),
            GLOO_SOCKET_IFNAME=machine.interface,
        )
        for number, machine in enumerate(machines)
    ]
    for process in processes:
        code, complaints = ended(process)
        assert code == 0, complaints

    record = read_record(outs[0])
    assert record.status.state == "completed"
    assert record.topology.label == "2x2"
    assert [card.rank for card in record.environment.cards] == [*range(4)]
    assert [step.rank for step in record.metrics.rank_steps] == [*range(4)]
    assert [node.node_rank for node in record.nodes] == [0, 1]
    assert not [node for node in record.nodes if isinstance(node.e2e_time_s, Missing)]
    assert [logs_of(out) for out in outs] == [["rank0.log", "rank1.log"], ["rank2.log", "rank3.log"]]
    assert [(out / f"telemetry-node{number}.jsonl").exists() for number, out in enumerate(outs)] == [True, True]
    [warning] = [warning for warning in record.warnings if "share no directory" in warning]
    assert warning == "the machines share no directory: no checkpoints were written, and the run cannot be resumed"
    assert not [path for out in outs for path in leftovers_in(out)]
    alone = start(training("mobilenetv2", image_folder, tmp_path / "alone", "--preset", "tiny", "--nproc", 4))
    code, complaints = ended(alone)
    assert code == 0, complaints
    assert measured(record) == measured(read_record(tmp_path / "alone"))


def logs_of(out: Path) -> list[str]:
    return sorted(path.name for path in (out / "logs").iterdir())


def leftovers_in(out: Path) -> list[Path]:
    return [path for path in out.iterdir() if path.name.startswith((".", "process"))]


@pytest.fixture
def quick(distributions: FakeDistributions) -> str:
    """The path on which processes find the quick cases."""
    return install_quick_cases(distributions)


@pytest.mark.slow
def test_machine_that_vanishes_ends_the_run_on_both_sides(
    machines: tuple[Machine, Machine], image_folder: Path, tmp_path: Path, start: Any, quick: str
) -> None:
    """Slow: a real run, nothing of which is forked, and the time after which a machine counts as gone."""
    directory = RunDirectory(tmp_path / "run")
    processes = [
        start(
            machine.starts(number, machines[0], *training("endless", image_folder, directory.path)),
            executed=True,
            GLOO_SOCKET_IFNAME=machine.interface,
            PYTHONPATH=quick,
        )
        for number, machine in enumerate(machines)
    ]
    wait_for(lambda: evaluations(directory) >= 1, processes[0])
    before = events_of(directory)

    machines[1].pull_the_plug()
    first, second = (ended(process, BOUNDED_S) for process in processes)

    assert first[0] == second[0] == 1
    assert "perf: error: machine 1 does not respond" in first[1]
    assert "perf: error: machine 0 does not respond" in second[1]
    record = read_record(directory.path)
    assert record.status.state == "failed"
    assert record.status.failure is not None
    assert record.status.failure.failure_class == "node_lost"
    assert events_of(directory)[: len(before)] == before
    psutil.wait_procs(processes_naming(str(directory.path)), timeout=10)
    assert processes_naming(str(directory.path)) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("end", "state", "cause"),
    [
        ("kill", "failed", ("rank_died", 1, "rank 1: the process was killed by SIGKILL")),
        ("terminate", "interrupted", ("interrupted", None, "stopped by a signal")),
    ],
)
def test_end_of_a_rank_on_one_machine_is_the_cause_on_both(
    image_folder: Path, tmp_path: Path, start: Any, quick: str, end: str, state: str, cause: tuple[object, ...]
) -> None:
    """Slow: a real run."""
    directory = RunDirectory(tmp_path / "run")
    place = ("--nnodes", 2, "--rdzv", f"localhost:{free_port()}", "--node-rank")
    processes = [
        start(training("endless", image_folder, directory.path, *place, number), PYTHONPATH=quick)
        for number in range(2)
    ]
    wait_for(lambda: evaluations(directory) >= 1, processes[0])

    [victim] = ranks_of(processes[1])
    getattr(victim, end)()
    outcomes = [ended(process, BOUNDED_S) for process in processes]

    for code, complaints in outcomes:
        assert code == 1
        assert f"perf: error: {cause[2]}" in complaints
    record = read_record(directory.path)
    assert record.status.state == state
    assert record.status.failure is not None
    assert (record.status.failure.failure_class, record.status.failure.rank) == cause[:2]


@pytest.mark.slow
def test_run_on_two_machines_is_restarted_and_resumed(
    image_folder: Path, tmp_path: Path, start: Any, quick: str
) -> None:
    """Slow: a real run of two ranks, started three times."""
    directory = RunDirectory(tmp_path / "run")
    place = ("--nnodes", 2, "--rdzv", f"localhost:{free_port()}", "--node-rank")

    def started(*command: object) -> list[subprocess.Popen[str]]:
        return [start([*map(str, command), *map(str, place), str(number)], PYTHONPATH=quick) for number in range(2)]

    processes = started(*training("watched", image_folder, directory.path, "--max-restarts", 1))
    wait_for(lambda: evaluations(directory) >= 1, processes[0])
    [victim] = ranks_of(processes[1])
    victim.kill()
    wait_for(lambda: len(read_record(directory.path).interruptions) == 1, processes[0])
    again = evaluations(directory)
    wait_for(lambda: evaluations(directory) > again, processes[0])
    processes[1].terminate()
    for process in processes:
        code, complaints = ended(process, BOUNDED_S)
        assert code == 1
        assert "perf: error: " in complaints
    assert read_record(directory.path).status.state == "interrupted"

    for process in started(*perf_command("train", "--resume", directory.path)):
        code, complaints = ended(process)
        assert code == 0, complaints

    record = read_record(directory.path)
    assert record.status.state == "completed"
    assert [stop.cause.failure_class for stop in record.interruptions] == ["rank_died", "interrupted"]
    assert (record.metrics.steps, len(record.metrics.curve)) == (3 * EPOCHS, EPOCHS)
    assert not directory.checkpoints.exists()
    assert [warning for warning in record.warnings if "share no directory" in warning] == []
    assert logs_of(directory.path) == ["rank0.log", "rank1.log"]
    assert [(directory.path / f"telemetry-node{number}.jsonl").exists() for number in range(2)] == [True, True]
    assert leftovers_in(directory.path) == []


@pytest.mark.slow
def test_processes_of_torchrun_are_the_ranks(image_folder: Path, tmp_path: Path, start: Any) -> None:
    """Slow: a real run of two ranks."""
    program = training("mobilenetv2", image_folder, tmp_path / "run", "--preset", "tiny", "--max-steps", 2)[1:]
    process = start([sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", *program])

    code, complaints = ended(process)

    assert code == 0, complaints
    record = read_record(tmp_path / "run")
    assert record.status.state == "completed"
    assert (record.topology.label, record.metrics.steps) == ("1x2", 2)
    assert complaints.count("run mobilenetv2-cpu-fp32-1x2-") == 1
    assert processes_naming(str(tmp_path / "run")) == []


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--nnodes", 2], "a run on 2 machines needs --node-rank and --rdzv"),
        (["--nnodes", 2, "--node-rank", 2, "--rdzv", "a:1"], "--node-rank 2 is not one of 2 machines"),
        (["--nnodes", 2, "--node-rank", 0, "--rdzv", "a"], "'a' is not HOST:PORT"),
        (["--nnodes", 2, "--node-rank", 0, "--rdzv", "a:70000"], "'a:70000' is not HOST:PORT"),
        (["--nnodes", 2, "--node-rank", 0, "--rdzv", "a:1", "--repeat", 2], "--repeat is for runs on one machine"),
        (["--rdzv", "a:1"], "--node-rank and --rdzv belong to a run on several machines"),
    ],
)
def test_incomplete_places_are_refused(perf: Perf, tmp_path: Path, arguments: list[object], error: str) -> None:
    process = perf("train", "mobilenetv2", "--vendor", "cpu", "--out", tmp_path / "run", *arguments)

    assert process.returncode == 2
    assert error in process.stderr
    assert "Traceback" not in process.stderr
    assert not (tmp_path / "run").exists()
