"""Which of a run's launchers a process is."""

import os

import pytest
from chipperf.errors import UsageError
from chipperf.launch import launcher_info
from chipperf.launch.launcher_info import find_launcher, from_environment, from_options

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "none",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
    "RANK": "3",
    "LOCAL_RANK": "1",
    "WORLD_SIZE": "4",
    "LOCAL_WORLD_SIZE": "2",
    "GROUP_RANK": "1",
    "MASTER_ADDR": "node0",
    "MASTER_PORT": "29500",
}

SRUN = {
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
    "SLURM_STEP_NODELIST": "node0",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_JOB_ID": "12",
    "SLURM_STEP_ID": "3",
}


def test_one_machine_needs_no_place():
    assert from_options(1, 8, None, None) is None
    assert from_environment({}) is None


def test_options_name_a_machine():
    place = from_options(2, 8, 1, "[fe80::1]:29500")

    assert place is not None
    assert (place.host, place.port, place.torchrun_listens, place.is_first) == ("fe80::1", 29500, False, False)
    assert place.ranks == range(8, 16)
    assert place.topology.label == "2x8"
    assert place.speaks_for_node


@pytest.mark.parametrize(("agent_listens", "rank"), [("True", 0), ("False", 0), ("False", 1)])
def test_torchrun_names_a_rank(agent_listens, rank):
    variables = {"RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0"}
    place = from_environment({**TORCHRUN, **variables, "TORCHELASTIC_USE_AGENT_STORE": agent_listens})

    assert place is not None
    assert (place.index, place.count, place.host, place.port) == (rank, 4, "node0", 29500)
    assert place.torchrun_listens == (agent_listens == "True")
    assert place.topology.label == "2x2"
    assert list(place.ranks) == [rank]
    assert place.speaks_for_node == (rank == 0)


def test_srun_names_a_rank():
    place = from_environment(SRUN)

    assert place is not None
    assert (place.index, place.count, place.node_rank, place.host) == (3, 4, 1, "node0")
    assert place.port == 20000 + 12 * 7 + 3
    assert place.topology.label == "2x2"
    assert from_environment({**SRUN, "MASTER_ADDR": "here", "MASTER_PORT": "77"}).host == "here"


@pytest.mark.parametrize("tasks", ["", "abc", "-3", "1"])
def test_number_of_tasks_that_a_shell_has_emptied_or_kept_is_ignored(tasks):
    assert from_environment({**SRUN, "SLURM_STEP_NUM_TASKS": tasks}) is None


def test_step_without_numbers_has_a_port():
    assert from_environment({**SRUN, "SLURM_JOB_ID": "", "SLURM_STEP_ID": "abc"}).port == 20000


@pytest.mark.parametrize(
    ("script", "problem"),
    [("sleep 60", "did not finish within 0.5 s"), ("echo no >&2; exit 3", "status 3: no"), ("", "")],
)
def test_scontrol_that_does_not_answer_is_a_line(script, problem, tmp_path, monkeypatch):
    monkeypatch.setattr(launcher_info, "_SCONTROL_TIMEOUT_S", 0.5)
    (tmp_path / "scontrol").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    with pytest.raises(UsageError, match=f"scontrol cannot read node.*{problem}") as caught:
        from_environment({**SRUN, "SLURM_STEP_NODELIST": "node[0-1]"})
    assert "MASTER_ADDR" in caught.value.hint


def test_a_single_task_of_srun_is_an_ordinary_program():
    assert from_environment({**SRUN, "SLURM_STEP_NUM_TASKS": "1"}) is None


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"SLURM_STEP_TASKS_PER_NODE": "3,1"}, "different numbers of processes"),
        ({"SLURM_LOCALID": "0"}, "ranks have to follow machines"),
        ({"SLURM_PROCID": ""}, "Slurm's variables are incomplete"),
        ({"SLURM_STEP_TASKS_PER_NODE": "0"}, "different numbers of processes"),
    ],
)
def test_ranks_that_do_not_follow_machines_are_refused(changes, fault):
    with pytest.raises(UsageError, match=fault):
        from_environment({**SRUN, **changes})


def found(variables, typed=(), monkeypatch=None, **options):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    given = {"nnodes": 1, "nproc": 1, "node_rank": None, "rendezvous": None, **options}
    return find_launcher(**given, typed=typed)


def test_processes_of_torchrun_need_no_counts(monkeypatch):
    assert found(TORCHRUN, monkeypatch=monkeypatch).index == 3
    with pytest.raises(UsageError, match="torchrun has started the processes: --nproc is not needed"):
        found({}, ["--nproc"], nproc=2)


def test_tasks_of_srun_are_machines_where_processes_are_counted(monkeypatch):
    options = {"nnodes": 2, "nproc": 4, "node_rank": 1, "rendezvous": "node0:29500"}

    launcher = found(SRUN, ["--nnodes", "--nproc", "--rdzv"], monkeypatch, **options)

    assert (launcher.index, launcher.count, launcher.worker) == (1, 2, None)
    assert launcher.topology.label == "2x4"


def test_number_that_slurm_gives_every_machine_is_no_place_by_itself():
    assert found({}, node_rank=3) is None
    with pytest.raises(UsageError, match="belong to a run on several machines"):
        found({}, ["--node-rank"], node_rank=3)
