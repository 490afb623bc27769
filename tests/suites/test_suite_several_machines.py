"""``perf suite`` on several machines: which runs the others join, and how they end when the first one does."""

from __future__ import annotations

import signal
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from chipperf.records.store import read_record
from support import TIMEOUT_S, free_port, perf_command, perf_environment, process_starter, processes_naming, wait_for

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fake_training import FakeTraining

SUITE = """
[defaults]
vendor = "cpu"
preset = "tiny"

[[run]]
case = "mobilenetv2"
topology = ["2x2", "1x1"]
seed = 1

[[run]]
case = "resnet50"
topology = "2x1"
seed = 11
"""
FIRST, BETWEEN, LAST = "mobilenetv2-fp32-2x2", "mobilenetv2-fp32-1x1", "resnet50-fp32-2x1"
COMMAND = ("suite", "suite.toml", "--out", "out", "--rdzv", "localhost:23700", "--node-rank")


@pytest.fixture
def begin(suite: FakeTraining) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts the suite on one of the machines; whatever is left of it is gone after the test."""
    started: list[subprocess.Popen[str]] = []

    def run(node_rank: int, *arguments: object, **environment: str) -> subprocess.Popen[str]:
        process = suite.begin(*COMMAND, node_rank, *arguments, **environment)
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()
    for left in processes_naming("fake_train.py"):
        with suppress(Exception):
            if left.cwd() == str(suite.directory):
                left.kill()


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, complaints = process.communicate(timeout=TIMEOUT_S)
    assert "Traceback" not in complaints
    return process.returncode, complaints


def starts_of(suite: FakeTraining, node_rank: int) -> list[list[str]]:
    return [start for start in suite.starts if f"--node-rank={node_rank}" in start]


def test_every_machine_runs_its_part(suite: FakeTraining, begin: Callable[..., subprocess.Popen[str]]) -> None:
    first, second = begin(0), begin(1)

    assert ended(first)[0] == 0
    code, complaints = ended(second)
    assert code == 0, complaints
    assert suite.states() == ["completed"] * 3
    assert not suite.state()["going_on"]
    assert f"{FIRST}/repeat-1: joins" in complaints
    for node_rank in (0, 1):
        for start, name, port in zip(starts_of(suite, node_rank), (FIRST, LAST), (23700, 23702), strict=True):
            assert "--nnodes=2" in start
            assert start[-3:] == [f"--out=out/{name}/repeat-1", f"--node-rank={node_rank}", f"--rdzv=localhost:{port}"]
    [alone] = [start for start in suite.starts if f"--out=out/{BETWEEN}/repeat-1" in start]
    assert not [text for text in alone if text.startswith(("--nnodes", "--node-rank", "--rdzv"))]
    log = suite.directory / "out" / FIRST / "repeat-1.node1.log"
    assert log.read_text() == "fake run with seed 1\n"


def test_machine_that_is_late_joins_what_is_running(
    suite: FakeTraining, begin: Callable[..., subprocess.Popen[str]]
) -> None:
    first = begin(0)
    wait_for(lambda: starts_of(suite, 0))
    second = begin(1)

    assert (ended(first)[0], ended(second)[0]) == (0, 0)
    assert suite.states() == ["completed"] * 3


def test_machine_with_another_plan_joins_nothing(
    suite: FakeTraining, begin: Callable[..., subprocess.Popen[str]]
) -> None:
    first = begin(0)
    wait_for(lambda: starts_of(suite, 0))
    suite.write(SUITE.replace("seed = 11", "seed = 12"))

    code, complaints = ended(begin(1))

    assert code == 2
    assert f"the suite was started with another plan: {LAST}/repeat-1 has other options" in complaints
    assert starts_of(suite, 1) == []
    first.terminate()
    assert ended(first)[0] == 1


def test_a_run_that_fails_on_one_machine_keeps_no_other_from_its_turn(
    suite: FakeTraining, begin: Callable[..., subprocess.Popen[str]]
) -> None:
    suite.behave(**{f"{FIRST}/repeat-1@node0": "fail", f"{FIRST}/repeat-1@node1": "refuse"})
    first, second = begin(0), begin(1)
    # A machine that refuses does not come, and the first one's run would wait for it.
    wait_for(lambda: starts_of(suite, 1))
    (suite.directory / "met-localhost-23700-1").touch()

    assert ended(first)[0] == 1
    code, complaints = ended(second)
    assert code == 1
    assert f"{FIRST}/repeat-1: no device is here" in complaints
    assert "perf: error: machine 1 completed 1 of 2 runs that it joined" in complaints
    assert suite.states() == ["failed", "completed", "completed"]


def test_run_that_waits_for_an_attempt_that_is_over_is_ended(
    suite: FakeTraining, begin: Callable[..., subprocess.Popen[str]]
) -> None:
    suite.behave(**{f"{FIRST}/repeat-1@node1": "hang"})
    second = begin(1, FAKE_LEAVE_S="0.1")
    first = begin(0)
    wait_for(lambda: starts_of(suite, 1))
    (suite.directory / "met-localhost-23700-1").touch()

    assert ended(first)[0] == 0
    code, complaints = ended(second)
    assert code == 1
    assert f"{FIRST}/repeat-1: killed by SIGTERM" in complaints
    assert suite.states() == ["completed"] * 3


def test_nobody_waits_for_ever_for_a_suite_that_does_not_begin(
    suite: FakeTraining, begin: Callable[..., subprocess.Popen[str]]
) -> None:
    code, complaints = ended(begin(1, FAKE_BEGIN_S="1"))

    assert code == 1
    assert "perf: error: machine 0 started no suite in out within 1 s" in complaints


def test_first_machine_that_is_killed_is_missed(
    suite: FakeTraining, begin: Callable[..., subprocess.Popen[str]]
) -> None:
    suite.behave(**{BETWEEN: "hang"})
    first, second = begin(0), begin(1, FAKE_LOST_S="5")
    wait_for(lambda: len(suite.starts) == 3)
    first.kill()

    code, complaints = ended(second)

    assert code == 1
    assert "perf: error: machine 0's suite in out has not responded for 5 s" in complaints
    # What it left behind says for ever that it goes on.
    assert suite.state()["going_on"]
    assert "started no suite" in ended(begin(1, "--resume", FAKE_BEGIN_S="3"))[1]


def test_signal_ends_what_a_machine_has_joined(
    suite: FakeTraining, begin: Callable[..., subprocess.Popen[str]]
) -> None:
    suite.behave(**{f"{FIRST}/repeat-1@node1": "hang"})
    first, second = begin(0), begin(1)
    wait_for(lambda: starts_of(suite, 1))

    second.send_signal(signal.SIGINT)

    code, complaints = ended(second)
    assert code == 1
    assert "perf: error: stopped by a signal: machine 1 completed 0 of 1 run that it joined" in complaints
    assert first.poll() is None
    # It may come again: the runs that follow need it.
    again = begin(1)
    (suite.directory / "met-localhost-23700-1").touch()
    suite.behave()
    assert ended(first)[0] == 0
    assert ended(again)[0] == 0


def test_interrupted_run_is_resumed_on_all_machines(
    suite: FakeTraining, begin: Callable[..., subprocess.Popen[str]]
) -> None:
    suite.behave(**{f"{FIRST}/repeat-1@node0": "stop parent"})
    first, second = begin(0), begin(1)
    code, complaints = ended(first)
    assert code == 1
    assert "hint: perf suite suite.toml --out=out --node-rank=0 --rdzv=localhost:23700 --resume\n" in complaints
    assert ended(second)[0] == 0
    assert suite.states() == ["interrupted", "waiting", "waiting"]
    refused = ended(begin(1))
    assert refused[0] == 2
    assert "out already holds a suite" in refused[1]

    suite.leave_checkpoint(suite.directory / "out" / FIRST / "repeat-1", world_size=4)
    suite.behave()
    second, first = begin(1, "--resume"), begin(0, "--resume")

    assert (ended(first)[0], ended(second)[0]) == (0, 0)
    assert suite.states() == ["completed"] * 3
    for node_rank in (0, 1):
        assert starts_of(suite, node_rank)[1] == [
            *(f"--resume=out/{FIRST}/repeat-1", "--nproc=2", "--nnodes=2"),
            *(f"--node-rank={node_rank}", "--rdzv=localhost:23701"),
        ]
    code, complaints = ended(begin(1, "--resume"))
    assert code == 0
    assert "no remaining run needs this machine" in complaints


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "a run on 2 machines needs --node-rank and --rdzv on each of them"),
        (["--node-rank", 1], "a run on 2 machines needs --node-rank and --rdzv on each of them"),
        (["--node-rank", 2, "--rdzv", "node0:29500"], "--node-rank 2 is not one of 2 machines"),
        (["--node-rank", 0, "--rdzv", "node0"], "'node0' is not HOST:PORT"),
        (["--node-rank", 0, "--rdzv", "node0:65530"], "port 65530 is too high: a suite uses 16 ports"),
    ],
)
def test_bad_place_starts_nothing(suite: FakeTraining, arguments: list[object], message: str) -> None:
    process = suite.perf("suite", "suite.toml", *arguments)

    assert process.returncode == 2
    assert message in process.stderr
    assert "Traceback" not in process.stderr
    assert suite.starts == []


def test_place_is_for_suites_of_several_machines(fake: FakeTraining) -> None:
    fake.write('[[run]]\ncase = "resnet50"\nvendor = "cpu"\npreset = "tiny"\n')

    process = fake.perf(*COMMAND, 0)

    assert process.returncode == 2
    assert "--node-rank and --rdzv belong to a suite with runs on several machines" in process.stderr


def test_dry_run_prints_the_commands_of_a_machine(suite: FakeTraining) -> None:
    suite.write("resnet50:pytorch:A100:2:4:1\nmobilenetv2:pytorch:A100:1:4:1\n", "cases.txt")

    unplaced = suite.perf("suite", "cases.txt", "--dry-run")
    second = suite.perf("suite", "cases.txt", "--dry-run", "--node-rank", 1, "--rdzv", "[fe80::1]:29500")

    [run, alone, count] = unplaced.stdout.splitlines()
    assert "--nproc=4 --nnodes=2 --preset=full" in run
    assert "--rdzv" not in run
    assert count == "2 of 2 runs would be started"
    [run, alone, count] = second.stdout.splitlines()
    assert run.endswith("repeat-1 --node-rank=1 '--rdzv=[fe80::1]:29500'")
    assert alone == "mobilenetv2-fp32-1x4/repeat-1: does not need this machine"
    assert count == "1 of 2 runs would be started"


@pytest.mark.slow
def test_real_runs_follow_each_other(image_folder: Path, tmp_path: Path) -> None:
    """Slow: trains twice with two ranks."""
    file = tmp_path / "suite.toml"
    file.write_text(
        f"""
        [[run]]
        case = "mobilenetv2"
        topology = "2x1"
        repeats = 2
        vendor = "cpu"
        preset = "tiny"
        data = "{image_folder}"
        max_steps = 2
        set = {{ workers = 0 }}
        """
    )
    place = ("--out", tmp_path / "out", "--rdzv", f"localhost:{free_port()}", "--node-rank")
    environment = perf_environment(OMP_NUM_THREADS="1")
    with process_starter(tmp_path) as start:
        for process in [start(perf_command("suite", file, *place, number), environment) for number in range(2)]:
            _, complaints = process.communicate(timeout=2 * TIMEOUT_S)
            assert process.returncode == 0, complaints
    for repeat in (1, 2):
        record = read_record(tmp_path / "out" / "mobilenetv2-fp32-2x1" / f"repeat-{repeat}")
        assert record.status.state == "completed"
        assert [node.node_rank for node in record.nodes] == [0, 1]
