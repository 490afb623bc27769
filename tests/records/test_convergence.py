"""Whether a run converged is decided from its target and its evaluations."""

import pytest
from chipperf.records.convergence import convergence_outcome
from factory import UNKNOWN, make_record

LOSS = {"case__target": 2.85, "case__lower_is_better": True, "metrics__time_to_target": UNKNOWN}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "converged"),
        ({"metrics__time_to_target": UNKNOWN, "metrics__quality": 0.7549}, "below_target"),
        ({"metrics__time_to_target": UNKNOWN, "metrics__quality": 0.755}, "converged"),
        ({"case__target": UNKNOWN}, "no_target"),
        ({"metrics__quality": UNKNOWN}, "not_run"),
        ({"status": {"state": "failed"}}, "not_run"),
        ({**LOSS, "metrics__quality": 2.85}, "converged"),
        ({**LOSS, "metrics__quality": 2.8501}, "below_target"),
        ({**LOSS, "case__lower_is_better": False, "case__metric": "perplexity", "metrics__quality": 2.0}, "converged"),
    ],
)
def test_outcome(changes, expected):
    assert convergence_outcome(make_record(**changes)) == expected
