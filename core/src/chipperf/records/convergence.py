"""The decision whether a run converged. Only this module compares a result with a target."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from chipperf.records.schema import UNKNOWN_NAME, Missing, TimeToTarget

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from chipperf.records.schema import CaseRecord, EvaluationPoint, Number, Record


LOWER_IS_BETTER: Final = ("perplexity", "loss", "error rate", "squared error")
"""Metrics of imported cases whose targets are met from above."""

Outcome = Literal["converged", "below_target", "no_target", "not_run"]

Verdict = Literal["converged", "no_target", "below_target", "unknown", "not_completed"]
"""The verdict on a run, the best first."""


def run_verdict(record: Record) -> Verdict:
    """Return what a list of runs says of a run: its outcome, or that it did not complete or has no result."""
    if record.status.state != "completed":
        return "not_completed"
    outcome = convergence_outcome(record)
    return "unknown" if outcome == "not_run" else outcome


def convergence_outcome(record: Record, *, needs_named_dataset: bool = True) -> Outcome:
    """Return whether an evaluation of a run met the target, or that the run has no result or no target.

    Reports of layout 1 judged a run on a dataset that nobody names too: they have no ``needs_named_dataset``.
    """
    metrics = record.metrics
    if record.status.state != "completed" or isinstance(metrics.quality, Missing):
        return "not_run"
    # What a target says of a dataset that nobody names is not known.
    is_unnamed = needs_named_dataset and record.dataset.name == UNKNOWN_NAME
    if isinstance(record.case.target, Missing) or is_unnamed:
        return "no_target"
    is_met = meets_target(metrics.quality, record.case.target, lower=lower_is_better(record.case))
    met = isinstance(metrics.time_to_target, TimeToTarget) or is_met
    return "converged" if met else "below_target"


def lower_is_better(case: CaseRecord) -> bool:
    """Return whether the smaller of two qualities of a case is the better one."""
    return case.lower_is_better or case.metric in LOWER_IS_BETTER


def quality_text(quality: float, *, lower: bool) -> str:
    """Return a quality as text: a fraction as a percentage; with ``lower``, as of a loss, it is none."""
    return f"{quality:.5g}" if lower else f"{quality:.2%}"


def best_of(qualities: Iterable[float], *, lower: bool) -> float:
    """Return the best of at least one quality, which with ``lower`` is the smallest."""
    return min(qualities) if lower else max(qualities)


def best_quality(curve: Sequence[EvaluationPoint], *, lower: bool) -> Number | None:
    """Return the best result of evaluations; if none has one, what the last has instead; ``None`` without any."""
    known = [point.value for point in curve if not isinstance(point.value, Missing)]
    if known:
        return best_of(known, lower=lower)
    return curve[-1].value if curve else None


def meets_target(quality: Number, target: Number, *, lower: bool) -> bool:
    """Return whether the result of an evaluation meets a case's target. Without one of them, nothing is met."""
    if isinstance(quality, Missing) or isinstance(target, Missing):
        return False
    return quality <= target if lower else quality >= target
