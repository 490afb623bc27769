"""How the launchers of a run agree on why it ended."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from chipperf.errors import DataError, TrainingError, UsageError
from chipperf.launch import channel, launcher_group
from chipperf.launch.channel import Channel
from chipperf.launch.launcher_group import LauncherGroup, LauncherReport, cause_of
from chipperf.launch.launcher_info import from_environment, from_options
from chipperf.records.schema import Failure, Status
from chipperf.run.directory import RunDirectory
from support import TIMEOUT_S, free_port


def report(state, failure_class=None):
    failure = failure_class and Failure(failure_class=failure_class, message=failure_class)
    return LauncherReport(status=Status(state=state, failure=failure), exit_code=1, recurs=False)


@pytest.mark.parametrize(
    ("classes", "cause"),
    [
        (["RuntimeError", "rank_died"], "rank_died"),
        (["RuntimeError", "DataError"], "DataError"),
        (["peer_stopped", "RuntimeError"], "peer_stopped"),
        (["DataError", "hang"], "hang"),
        (["RuntimeError", "node_lost"], "node_lost"),
    ],
)
def test_what_ranks_say_whom_a_peer_has_left_is_not_the_cause(classes, cause):
    failure = cause_of([report("completed"), *(report("failed", each) for each in classes)]).status.failure

    assert failure is not None
    assert failure.failure_class == cause


def test_an_interruption_counts_more_than_a_success_and_less_than_a_failure():
    assert cause_of([report("completed"), report("interrupted", "interrupted")]).status.state == "interrupted"
    assert cause_of([report("interrupted", "interrupted"), report("failed", "hang")]).status.state == "failed"
    left = [report("failed", "RuntimeError"), report("interrupted", "interrupted")]
    assert cause_of(left).status.state == "interrupted"


@pytest.fixture
def step(monkeypatch):
    """What the first of three tasks says while it waits for the others, which do not come."""
    monkeypatch.setattr(launcher_group, "JOIN_S", 0.5)

    def wait(**variables):
        rank = {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_STEP_TASKS_PER_NODE": "3"}
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        told = []
        launcher = from_environment({"SLURM_STEP_NUM_TASKS": "3", **rank, **place, **variables})
        group = LauncherGroup(launcher, origin_s=0.0, idle_memory_bytes={}, tell=told.append)
        with pytest.raises(TrainingError, match="the process of rank 1 did not join the run") as caught:
            group.gather_joined()
        return told, caught.value.hint

    return wait


def test_shell_of_srun_says_at_once_for_whom_it_waits(step):
    told, hint = step(SLURM_PTY_PORT="12345")

    [line] = told
    assert line.startswith("waiting for 2 other tasks of this step")
    assert "'srun -n1 --pty'" in line
    assert hint in line


def test_task_of_a_step_gives_the_others_time(step):
    told, hint = step()

    assert told == []
    assert "--rdzv" not in hint


def test_both_launchers_say_that_their_secrets_differ(monkeypatch):
    monkeypatch.setattr(launcher_group, "JOIN_S", 1.0)
    port, told = free_port(), []
    others = threading.local()
    monkeypatch.setattr(channel, "_secret", lambda: getattr(others, "secret", b"right"))

    def group(index):
        launcher = from_options(2, 1, index, f"127.0.0.1:{port}")
        return LauncherGroup(launcher, origin_s=0.0, idle_memory_bytes={}, tell=told.append)

    def refused():
        others.secret = b"wrong"
        with pytest.raises(TrainingError) as caught:
            group(1)
        return caught.value.message

    first = group(0)
    with closing(first.session), ThreadPoolExecutor() as pool:
        [message] = pool.map(lambda call: call(), [refused])
        with pytest.raises(TrainingError, match="machine 1 did not join the run: nothing came within 1 s; ") as caught:
            first.gather_joined()

    assert message == (
        f"machine 1 was refused at 127.0.0.1:{port}: CHIPPERF_RDZV_SECRET is not the same at the other end"
    )
    [line] = told
    assert line == "somebody at 127.0.0.1 with another CHIPPERF_RDZV_SECRET wants to join"
    assert line in caught.value.message


@pytest.fixture
def two(monkeypatch):
    """Two launchers that have met."""
    with closing(Channel("localhost", 0, listens=True)) as texts:

        def meet(launcher):
            return texts if launcher.is_first else Channel("localhost", texts.port)

        monkeypatch.setattr(launcher_group, "_meet", meet)
        yield [
            LauncherGroup(from_options(2, 1, index, "node0:1"), origin_s=0.0, idle_memory_bytes={}, tell=print)
            for index in (0, 1)
        ]


def test_first_launcher_ends_when_the_others_have_heard_why(two, make_plan):
    first, second = two
    heard = threading.Event()

    def request():
        with pytest.raises(TrainingError) as caught, second.announcing_errors():
            second.request(make_plan(precision="bf16"))
        heard.set()
        return caught.value.message

    with ThreadPoolExecutor() as pool:
        answer = pool.submit(request)
        with pytest.raises(UsageError, match="machine 1 was started with another precision"), first.announcing_errors():
            first.gather_requests(make_plan())

        assert heard.wait(TIMEOUT_S)
        assert answer.result() == "machine 0 ended: machine 1 was started with another precision than the first"
    assert first._joining.read("ended/1") is not None


def test_launcher_of_the_same_number_does_not_disturb_a_run_that_has_begun(two, make_plan):
    first, second = two
    second._joining.write("request/1", "own")
    first.start(make_plan())

    with pytest.raises(TrainingError, match="machine 1 is too late: the run at node0:1 has begun with another one"):
        LauncherGroup(second.launcher, origin_s=0.0, idle_memory_bytes={}, tell=print)

    assert first._joining.read("request/1") == "own"
    assert first._joining.read("ended/1") is None


def test_parts_of_another_run_on_a_machine_of_its_own_are_refused(two, make_plan, tmp_path):
    (tmp_path / "telemetry-node1.jsonl").write_text("")

    with pytest.raises(UsageError, match="already holds a run: telemetry-node1.jsonl"):
        two[1].join(RunDirectory(tmp_path), make_plan())


def test_first_launcher_ends_with_the_launcher_that_it_waits_for(two):
    first, second = two
    with pytest.raises(DataError), second.announcing_errors():
        raise DataError("the images are not here")

    with pytest.raises(TrainingError, match="machine 1 ended: the images are not here"):
        first.gather_joined()
