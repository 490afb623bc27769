"""Which of a run's launchers a process is."""

import pytest
from chipperf.errors import UsageError
from chipperf.launch.group import Report, cause_of
from chipperf.launch.membership import from_environment, from_options
from chipperf.records.schema import Failure, Status

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
    assert (place.host, place.port, place.hosts_store, place.is_first) == ("fe80::1", 29500, False, False)
    assert place.ranks == range(8, 16)
    assert place.topology.label == "2x8"
    assert place.speaks_for_node


@pytest.mark.parametrize(
    ("agent_listens", "rank", "hosts"), [("True", 0, False), ("False", 0, True), ("False", 1, False)]
)
def test_torchrun_names_a_rank(agent_listens, rank, hosts):
    variables = {"RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0"}
    place = from_environment({**TORCHRUN, **variables, "TORCHELASTIC_USE_AGENT_STORE": agent_listens})

    assert place is not None
    assert (place.index, place.count, place.host, place.port) == (rank, 4, "node0", 29500)
    assert place.hosts_store == hosts
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


def test_a_single_task_of_srun_is_an_ordinary_program():
    assert from_environment({**SRUN, "SLURM_STEP_NUM_TASKS": "1"}) is None


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"SLURM_STEP_TASKS_PER_NODE": "3,1"}, "different numbers of processes"),
        ({"SLURM_LOCALID": "0"}, "ranks have to follow machines"),
        ({"SLURM_PROCID": ""}, "Slurm's variables are incomplete"),
    ],
)
def test_ranks_that_do_not_follow_machines_are_refused(changes, fault):
    with pytest.raises(UsageError, match=fault):
        from_environment({**SRUN, **changes})


def report(state, failure_class=None):
    failure = failure_class and Failure(failure_class=failure_class, message=failure_class)
    return Report(status=Status(state=state, failure=failure), exit_code=1, recurs=False)


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
    assert (
        cause_of([report("failed", "RuntimeError"), report("interrupted", "interrupted")]).status.state == "interrupted"
    )
