"""Whether a run converged is decided from its target and its evaluations."""

import pytest
from chipperf.records.convergence import convergence_outcome
from factory import UNKNOWN, make_record


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "converged"),
        ({"metrics__time_to_target": UNKNOWN, "metrics__quality": 0.7549}, "below_target"),
        ({"metrics__time_to_target": UNKNOWN, "metrics__quality": 0.755}, "converged"),
        ({"case__target": UNKNOWN}, "no_target"),
        ({"metrics__quality": UNKNOWN}, "not_run"),
        ({"status": {"state": "failed"}}, "not_run"),
    ],
)
def test_outcome(changes, expected):
    assert convergence_outcome(make_record(**changes)) == expected
