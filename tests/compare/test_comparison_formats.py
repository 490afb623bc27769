"""A comparison as Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json

import pytest
from chipperf.compare.comparison import compare_columns
from chipperf.compare.comparison_formats import as_csv, as_markdown, json_text, outcome_text, rows
from chipperf.compare.sides import Side
from chipperf.records.columns import columns_of
from factory import UNKNOWN, make_record, throughput
from markdown_document import parse

OTHER = {"run_id": "other", "vendor__name": "other", "environment__row_label": "B2"}
NASTY = "=cmd|' /C calc'!A0 <script>alert(1)</script> | *x*"


def compare_runs(records):
    return compare_columns([Side(records=(record,)) for record in records])


def two(**changes):
    return compare_runs([make_record(), make_record(**OTHER | changes)])


def table(text):
    return {(row["column"], row["measure"]): row for row in csv.DictReader(io.StringIO(text))}


def test_csv_has_a_line_for_each_measure_and_column():
    found = table(as_csv(two(metrics__p_train=throughput(9172.5, spread=0.01), metrics__p_core=UNKNOWN)))

    assert len(found) == 2 * len([column for column in columns_of("comparison") if column.kind != "limit"])
    row = found["2", "p_train"]
    assert (row["unit"], float(row["value"]), float(row["ratio"]), row["windows"]) == ("samples/s", 9172.5, 2, "5")
    assert float(row["interval_low"]) < 2 < float(row["interval_high"])
    assert (row["interval_level"], row["resamples"], row["verdict"]) == ("0.95", "2000", "higher")
    assert (found["2", "p_core"]["value"], found["2", "p_core"]["missing"]) == ("", "unknown")
    assert found["2", "p_whole"]["no_interval"] == "a single value in column 1 and 2"


def test_csv_has_the_scaling_of_pairs():
    records = [make_record(), make_record(run_id="b", topology__nnodes=2, metrics__p_train=throughput(9000.0))]
    found = table(as_csv(compare_runs(records)))

    assert float(found["2", "scaling_efficiency"]["value"]) == pytest.approx(0.981, abs=1e-3)
    assert ("1", "scaling_efficiency") not in found


def test_text_is_no_formula_in_a_spreadsheet():
    found = table(as_csv(two(environment__row_label=NASTY)))

    assert found["2", "quality"]["name"].startswith("'=cmd")


def test_null_character_does_not_end_up_in_csv():
    assert table(as_csv(two(environment__row_label="a\0b")))["2", "quality"]["name"].startswith("a b")


def test_json_is_the_same_twice_and_has_a_version():
    text = json_text(two())
    content = json.loads(text)

    assert text == json_text(two())
    assert content["schema_version"] == 1
    assert content["bootstrap"] == {"level": 0.95, "resamples": 2000}
    assert [column["vendor"] for column in content["columns"]] == ["acme", "other"]
    measures = {measure["name"]: measure for measure in content["measures"]}
    assert measures["p_train"]["cells"][1]["interval"]["resamples"] == 2000
    better = {measure["name"]: measure["higher_is_better"] for measure in content["measures"]}
    assert [name for name, higher in better.items() if not higher] == [
        *("time_to_target", "e2e_time", "mem_peak", "energy_per_sample")
    ]


def test_markdown_has_table_footnotes_and_settings():
    text = as_markdown(two(precision__effective="tf32"))

    assert "|  | 1 [1] | 2 [1, 2] |" in text
    assert "1. not stated, so perhaps not the same: epochs planned\n2. effective precision" in text
    assert "effective precision tf32, in column 1 fp32" in text
    assert "| precision | effective | fp32 | tf32 |" in text


def test_markdown_and_html_in_a_name_are_escaped():
    text = as_markdown(
        two(environment__row_label=NASTY, knobs=[{"name": NASTY, "value": NASTY, "reason": "", "origin": "user"}])
    )

    assert "<script>" not in text
    assert [{len(row) for row in each} for each in parse(text).tables] == [{3}, {4}]


def test_cells_show_spread_ratio_and_interval():
    repeats = Side(
        records=tuple(make_record(run_id=f"r{seed}", seed=seed, metrics__p_whole=4400.0 + seed) for seed in range(3)),
        planned=3,
        source="runs/all",
    )
    shown = rows(compare_columns([repeats, Side(records=(make_record(**OTHER),))]))

    assert shown["p_whole (samples/s)"] == ["4401 [4400 to 4402, 3 runs]", "4475 (1.02x)"]
    assert shown["p_train (samples/s)"][1] == "4586.2 (1x, 1 to 1, no difference shown)"
    assert shown["mem_peak (GiB)"] == ["21.0 [21.0 to 21.0, 3 runs]", "21.0 (1x)"]
    assert shown["result"] == ["3 of 3 converged", "converged"]


def test_outcomes_of_repeats_are_counted():
    assert outcome_text(("converged", "below_target", "converged")) == "2 of 3 converged, 1 of 3 below target"
