"""Which results of other benchmarks a record can hold: fractions, and the numbers of other metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from chipperf.documents import wording
from chipperf.records.schema import UNKNOWN_NAME

if TYPE_CHECKING:
    from chipperf.cases.base import Case

FRACTIONS: Final = ("accuracy", "mean average precision", "panoptic quality")
"""Kinds of results that are fractions and are also written as percentages, see :func:`wording.quality_kind`."""

_OTHERS: Final = ("perplexity", "error rate", "other", "loss")


def result_kinds(case: Case | None) -> tuple[str, ...]:
    """Return the kinds of results that are a case's quality, the first the likeliest; without a case, every kind."""
    own = wording.quality_kind(case.report.quality_column) if case else None
    return (own,) if own else (*FRACTIONS, *_OTHERS)


def metric_name(header: str) -> str:
    """Return the metric of a case that is not installed, from its column or key: ``perplexity`` for ``ppl``."""
    kind = wording.quality_kind(header)
    return wording.normal(wording.without_unit(header)) if kind == "other" else kind or UNKNOWN_NAME
