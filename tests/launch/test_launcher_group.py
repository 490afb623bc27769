"""How the launchers of a run agree on why it ended."""

import pytest
from chipperf.launch.launcher_group import LauncherReport, cause_of
from chipperf.records.schema import Failure, Status


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
