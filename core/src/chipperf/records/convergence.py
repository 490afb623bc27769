"""Whether a run converged: the one place that compares its quality with the target."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from chipperf.records.schema import Missing, TimeToTarget

if TYPE_CHECKING:
    from chipperf.records.schema import Record


Outcome = Literal["converged", "below_target", "no_target", "not_run"]


def convergence_outcome(record: Record) -> Outcome:
    """Return what came of a run: whether an evaluation met the target, if there are results and a target."""
    metrics = record.metrics
    if record.status.state != "completed" or isinstance(metrics.quality, Missing):
        return "not_run"
    if isinstance(record.case.target, Missing):
        return "no_target"
    met = isinstance(metrics.time_to_target, TimeToTarget) or metrics.quality >= record.case.target
    return "converged" if met else "below_target"
