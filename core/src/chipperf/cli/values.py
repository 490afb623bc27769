"""Measured values and their units as a terminal shows them."""

from __future__ import annotations

from chipperf.documents.document_identity import installed_cases
from chipperf.documents.format import in_unit, marker
from chipperf.records.columns import Unit
from chipperf.records.schema import Missing, Number


def shown(value: Number, unit: Unit, case_name: str) -> str:
    """Return a value of an aggregate as table text. The file has the reason if the value is missing."""
    case = installed_cases().get(case_name)
    lower = case is not None and case.lower_is_better
    text = in_unit(value, unit, as_percent=not lower, round_up=lower)
    return str(marker(Missing(missing=text.missing))) if isinstance(text, Missing) else text


def shown_unit(unit: Unit, case_name: str) -> str:
    """Return a unit as text: a throughput is in what the case counts, for example ``tokens/s``; a fraction has none."""
    if unit == "fraction":
        return ""
    case = installed_cases().get(case_name)
    return unit.replace("samples", case.report.sample_noun.en) if case else unit
