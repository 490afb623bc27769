"""Formats of a comparison: Markdown, CSV, JSON, and the table cells that these and the terminal share."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from chipperf.compare.requirements import BOUNDS, describe_judgment
from chipperf.documents.format import csv_table, escape_markdown, github_annotation, in_unit, text_or_marker
from chipperf.records.intervals import LEVEL, RESAMPLES
from chipperf.records.schema import Missing

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from chipperf.compare.comparison import ComparedMeasure, ComparedValue, Comparison
    from chipperf.records.convergence import Outcome

SCHEMA_VERSION: Final = 1
"""Version of the JSON. A new field does not change it."""

INTERVALS: Final = (
    f"In parentheses: the ratio to column 1, and its {LEVEL:.0%} confidence interval from {RESAMPLES} bootstrap "
    "resamples of repeats and of the measurement windows within them. Windows of one run say nothing about other runs, "
    "days or machines. In square brackets: the footnotes of a column, the lowest and the highest value of repeats."
)
NO_INTERVALS: Final = "A ratio without an interval compares single values: nothing tells how certain it is."

_CSV_COLUMNS: Final = (
    *("column", "name", "runs", "vendor", "case", "kind", "topology", "precision"),
    *("measure", "unit", "value", "missing", "reason", "lowest", "highest", "repeats", "windows"),
    *("ratio", "interval_low", "interval_high", "interval_level", "resamples", "no_interval", "verdict"),
    *BOUNDS,
    *(f"{bound}_verdict" for bound in BOUNDS),
)


def rows(comparison: Comparison) -> dict[str, list[str]]:
    """Return the cells of every row of the table, by the row's title."""
    found = {
        _title(measure): [_cell(cell, measure, comparison) for cell in measure.cells] for measure in comparison.measures
    }
    lower = comparison.case.lower_is_better
    found["result"] = [outcome_text(each, lower=lower) for each in comparison.outcomes]
    if any(comparison.scaling):
        found["scaling efficiency"] = [
            f"{each.efficiency:.1%} of column {each.base}" if each else "-" for each in comparison.scaling
        ]
    return found


def headers(comparison: Comparison) -> list[str]:
    """Return the number of each column with the numbers of its footnotes, for example ``2 [1, 3]``."""
    found = []
    for place in range(1, len(comparison.columns) + 1):
        notes = [str(note) for note, each in enumerate(comparison.footnotes, start=1) if place in each.columns]
        found.append(f"{place} [{', '.join(notes)}]" if notes else str(place))
    return found


def legend(comparison: Comparison) -> list[str]:
    """Return a description of each column."""
    return [f"{place}: {name}, {_runs(place, comparison)}" for place, name in enumerate(comparison.names, start=1)]


def notes(comparison: Comparison) -> list[str]:
    """Return notes on the meaning of the ratios, if there are any, and on ratios without an interval."""
    others = [cell for measure in comparison.measures for cell in measure.cells[1:] if cell.ratio is not None]
    found = [INTERVALS] if any(cell.interval for cell in others) else []
    return [*found, NO_INTERVALS] if any(cell.no_interval for cell in others) else found


def outcome_text(outcomes: Sequence[Outcome], *, lower: bool = False) -> str:
    """Return the outcome of a column's run, for example ``converged``, or the number of repeats with each outcome.

    With ``lower``, a result misses its target from above.
    """
    side = {"below": "above"} if lower else {}
    counts = Counter(" ".join(side.get(word, word) for word in outcome.split("_")) for outcome in outcomes)
    if len(outcomes) == 1:
        return next(iter(counts))
    return ", ".join(f"{count} of {len(outcomes)} {text}" for text, count in counts.items())


def as_markdown(comparison: Comparison) -> str:
    """Return a page with the table, footnotes, and settings that differ. Texts of records are escaped."""
    lines = [f"## {escape_markdown(comparison.case.report.model_title)}", ""]
    columns = (text.partition(": ")[2] for text in legend(comparison))
    lines += [f"{place}. {escape_markdown(text)}" for place, text in enumerate(columns, start=1)]
    lines += ["", *_table(["", *headers(comparison)], [[title, *cells] for title, cells in rows(comparison).items()])]
    for note in notes(comparison):
        lines += ["", escape_markdown(note)]
    if comparison.judgments:
        lines += ["", "### Requirements", ""]
        lines += [f"* {escape_markdown(describe_judgment(each))}" for each in comparison.judgments]
    if comparison.footnotes:
        lines += ["", "### Footnotes", ""]
        lines += [f"{place}. {escape_markdown(each.text)}" for place, each in enumerate(comparison.footnotes, start=1)]
    if comparison.settings:
        settings = [[each.group, each.name, *each.values] for each in comparison.settings]
        places = [str(place) for place in range(1, len(comparison.columns) + 1)]
        lines += ["", "### Settings that differ", "", *_table(["kind", "setting", *places], settings)]
    return "\n".join(lines) + "\n"


def as_github(comparison: Comparison) -> str:
    """Return an annotation of a GitHub workflow for each requirement."""
    kinds = {"met": "notice", "not_met": "error", "undecided": "warning"}
    lines = []
    for each in comparison.judgments:
        title = f"perf compare: {each.requirement}"
        lines.append(github_annotation(kinds[each.verdict], describe_judgment(each), title=title))
    return "".join(f"{line}\n" for line in lines)


def as_csv(comparison: Comparison) -> str:
    """Return one line for each measure and column.

    Numbers are exact, qualities are fractions and memory is in bytes. A missing value is an empty cell, with its kind
    in another cell.
    """
    rows: list[dict[str, object]] = []
    for place, (column, name) in enumerate(zip(comparison.columns, comparison.names, strict=True)):
        record = column.first
        about: dict[str, object] = {
            "column": place + 1,
            "name": name,
            "runs": " ".join(each.run_id for each in column.records),
            "vendor": record.vendor.name,
            "case": record.case.name,
            "kind": record.kind,
            "topology": record.topology.label,
            "precision": record.precision.requested,
        }
        lines = [
            {"measure": measure.name, "unit": measure.unit, **_csv_values(measure.cells[place])}
            | _csv_requirements(measure, place + 1, comparison)
            for measure in comparison.measures
        ]
        scaling = comparison.scaling[place]
        if scaling:
            lines.append({"measure": "scaling_efficiency", "unit": "fraction", "value": scaling.efficiency})
        rows += [about | line for line in lines]
    return csv_table(_CSV_COLUMNS, rows)


def json_text(comparison: Comparison) -> str:
    """Return the comparison as JSON. A missing value is an object, as in a record."""
    content = {
        "schema_version": SCHEMA_VERSION,
        "case": comparison.case.name,
        "case_version": comparison.columns[0].first.case.version,
        "metrics_version": comparison.columns[0].first.metrics_version,
        "metrics_definition": comparison.columns[0].first.metrics_definition,
        "bootstrap": {"level": LEVEL, "resamples": RESAMPLES},
        "columns": [
            {
                "name": name,
                "source": column.source,
                "runs": [each.run_id for each in column.records],
                "seeds": [json_value(each.seed) for each in column.records],
                "planned": column.planned,
                "vendor": column.first.vendor.name,
                "kind": column.first.kind,
                "topology": column.first.topology.label,
                "precision": {
                    "requested": column.first.precision.requested,
                    "effective": json_value(column.first.precision.effective),
                },
                "outcomes": list(outcomes),
                "scaling": asdict(scaling) if scaling else None,
            }
            for column, name, outcomes, scaling in zip(
                comparison.columns, comparison.names, comparison.outcomes, comparison.scaling, strict=True
            )
        ],
        "measures": [
            {
                "name": measure.name,
                "unit": measure.unit,
                "higher_is_better": measure.higher_is_better,
                "cells": [{**asdict(cell), "value": json_value(cell.value)} for cell in measure.cells],
            }
            for measure in comparison.measures
        ],
        "settings": [asdict(each) for each in comparison.settings],
        "footnotes": [asdict(each) for each in comparison.footnotes],
        "requirements": [asdict(each) for each in comparison.judgments],
    }
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _title(measure: ComparedMeasure) -> str:
    unit = "GiB" if measure.unit == "bytes" else measure.unit
    return measure.name if unit in ("fraction", "share") else f"{measure.name} ({unit})"


def _cell(cell: ComparedValue, measure: ComparedMeasure, comparison: Comparison) -> str:
    text = _value(cell.value, measure, comparison)
    if cell.repeats > 1 and cell.lowest is not None and cell.highest is not None:
        low, high = _value(cell.lowest, measure, comparison), _value(cell.highest, measure, comparison)
        text += f" [{low} to {high}, {cell.repeats} runs]"
    if cell.ratio is None or cell is measure.cells[0]:
        return text
    parts = [f"{cell.ratio:.3g}x"]
    if cell.interval:
        parts.append(f"{cell.interval.low:.3g} to {cell.interval.high:.3g}")
    if cell.verdict == "no_difference":
        parts.append("no difference shown")
    return f"{text} ({', '.join(parts)})"


def _value(value: float | Missing, measure: ComparedMeasure, comparison: Comparison) -> str:
    as_percent, round_up = comparison.case.report.quality_as_percent, not measure.higher_is_better
    return text_or_marker(in_unit(value, measure.unit, as_percent=as_percent, round_up=round_up), "en")


def _runs(place: int, comparison: Comparison) -> str:
    column = comparison.columns[place - 1]
    if len(column.records) > 1:
        return f"{len(column.records)} repeats in {column.source}"
    if column.first.kind == "imported" and column.source:
        return f"imported from {column.source}"
    return column.first.run_id


def _csv_values(cell: ComparedValue) -> dict[str, object]:
    values = asdict(cell)
    interval = values.pop("interval")
    if interval:
        values |= {f"interval_{name}": interval[name] for name in ("low", "high", "level")}
        values["resamples"] = interval["resamples"]
    if isinstance(cell.value, Missing):
        values |= {"value": None, "missing": cell.value.missing, "reason": cell.value.reason}
    return values


def _csv_requirements(measure: ComparedMeasure, column: int, comparison: Comparison) -> dict[str, object]:
    values: dict[str, object] = {}
    for each in comparison.judgments:
        if (each.requirement.measure, each.column) == (measure.name, column):
            values[each.requirement.bound] = each.requirement.ratio
            values[f"{each.requirement.bound}_verdict"] = each.verdict
    return values


def _table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> list[str]:
    texts = [header, ["---"] * len(header), *([escape_markdown(cell) for cell in line] for line in lines)]
    return [f"| {' | '.join(line)} |" for line in texts]


def json_value(value: float | str | Missing) -> object:
    """Return a value as JSON data. A missing value is an object, as in a record."""
    return value.model_dump() if isinstance(value, Missing) else value
