"""Where the cells of a page come from."""

from __future__ import annotations

import hashlib
import json

import pytest
from chipperf.cli.main import app
from chipperf.errors import RecordError
from chipperf.languages import LANGUAGES, in_language, phrase
from chipperf.records.store import read_stored, record_text
from chipperf.report.provenance import describe_page, provenance_file, read_provenance
from chipperf.report.render import render_page
from chipperf.report.tracing import record_digest, simplify, trace, watch
from chipperf.report.view import build_view
from chipperf.run.directory import RunDirectory
from curve_records import curve
from factory import UNKNOWN, make_record, throughput
from typer.testing import CliRunner

TWO_MACHINES = {"nnodes": 2, "nproc_per_node": 8}
FIRST, SECOND = "1" * 64, "2" * 64


def page_of(*records, language="en", **arguments):
    """Return lines of a page, and its provenance."""
    traced = [trace(record, f"{number}" * 64) for number, record in enumerate(records, start=1)]
    page = render_page(build_view(traced), language=language, **arguments)
    provenance = describe_page(page, language=language, records=traced, baseline=(), curve=None, files={})
    return page.text.split("\n"), provenance


def fields_of(provenance, line, cell=None):
    found = [each for each in provenance.cells if each.line == line and each.cell == cell]
    return {(source.record, field) for each in found for source in each.sources for field in source.fields}


def line_of(lines, text):
    (number,) = [number for number, line in enumerate(lines, start=1) if text in line]
    return number


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_cell_of_the_performance_table_names_its_field(language):
    lines, provenance = page_of(make_record(run_id="a"), language=language)
    row = line_of(lines, "| 28661 |")
    shown = [
        "$.environment.row_label",
        "$.precision.requested",
        "$.hyperparameters.changes",
        "$.metrics.e2e_time_s",
        "$.metrics.p_whole",
        "$.metrics.p_train.median",
        "$.metrics.p_core.median",
        "$.metrics.quality",
        "$.metrics.memory.device_peak_bytes",
    ]
    cells = [cell for cell in provenance.cells if cell.line == row]
    assert [cell.sources[0].fields[0] for cell in cells] == shown
    assert [cell.cell for cell in cells] == list(range(1, 10))


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_cell_is_where_the_provenance_says(language):
    lines, provenance = page_of(
        make_record(run_id="a", environment__row_label="A|1 `x`", warnings=["w|w"]),
        make_record(run_id="b", topology=TWO_MACHINES, metrics__power=UNKNOWN),
        language=language,
    )
    assert len(provenance.cells) > 100
    for cell in provenance.cells:
        shown = lines[cell.line - 1][cell.column - 1 :].replace("\\|", "|")
        assert shown.startswith(cell.text.replace("\\|", "|"))


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_body_cell_of_evidence_comes_from_a_record_or_is_the_templates(language):
    lines, provenance = page_of(make_record(run_id="a", loader=UNKNOWN, warnings=["throttled"]), language=language)
    start = line_of(lines, f"### {in_language(phrase('Evidence'), language)}")
    sourced = {(cell.line, cell.cell) for cell in provenance.cells}
    unsourced = []
    for number, line in enumerate(lines[start:], start=start + 1):
        if line.startswith("| ") and "---" not in line and not lines[number].startswith("| ---"):
            texts = [text.strip() for text in line.strip("|").split("|")]
            unsourced += [text for cell, text in enumerate(texts, start=1) if (number, cell) not in sourced]
    assert set(unsourced) <= {"p_train", "p_core", "/", in_language(phrase("all"), language)}


def test_a_fact_that_rows_share_names_every_record():
    lines, provenance = page_of(make_record(run_id="a"), make_record(run_id="b", topology=TWO_MACHINES))
    assert fields_of(provenance, line_of(lines, "driver version")) == {
        (0, "$.environment.driver"),
        (1, "$.environment.driver"),
    }


def test_a_fact_that_differs_names_the_record_of_each_value():
    other = make_record(run_id="b", topology=TWO_MACHINES, environment__driver="9.9")
    lines, provenance = page_of(make_record(run_id="a"), other)
    assert {(0, "$.environment.driver"), (1, "$.environment.driver")} <= fields_of(
        provenance, line_of(lines, "driver version")
    )


MANY_CHANGES = [{"key": f"key{number}", "base": 1, "value": number, "origin": "vendor"} for number in range(2, 8)]


def test_a_cell_of_changes_names_its_own_record_only():
    own = [{"key": "batch_size", "base": 32, "value": 3, "origin": "vendor"}]
    records = [
        make_record(run_id="a", hyperparameters__changes=MANY_CHANGES),
        make_record(run_id="b", topology=TWO_MACHINES, hyperparameters__changes=MANY_CHANGES),
        make_record(run_id="c", hyperparameters__changes=own),
    ]
    lines, provenance = page_of(*records)
    cells = {cell.line: cell for cell in provenance.cells if cell.cell == 3 and "fp32 |" in lines[cell.line - 1]}
    rows = [line for line, text in enumerate(lines, start=1) if text.endswith("/64.0 |")]

    shown = [(cells[row].text, {source.record for source in cells[row].sources}) for row in rows]

    assert shown == [("see note 1", {0}), ("see note 1", {1}), ("bs=3", {2})]


def test_a_verdict_names_result_and_target():
    lines, provenance = page_of(make_record(run_id="a"))
    found = fields_of(provenance, line_of(lines, "converged, target"))
    assert {(0, "$.metrics.quality"), (0, "$.case.target"), (0, "$.metrics.time_to_target.seconds")} <= found


def test_a_run_that_failed_names_its_failure():
    status = {"state": "failed", "failure": {"failure_class": "out_of_memory", "message": "asked for 3 GiB"}}
    lines, provenance = page_of(make_record(run_id="a", status=status))
    row = line_of(lines, "| failed (out_of_memory) | failed")
    assert (0, "$.status.failure.failure_class") in fields_of(provenance, row, 4)


def test_a_curve_names_its_points():
    lines, provenance = page_of(make_record(run_id="a", **curve([0.1, 0.2, 0.8])))
    assert (0, "$.metrics.curve") in fields_of(provenance, line_of(lines, "3 evaluations"))


def test_the_short_hash_stands_for_the_whole_record():
    lines, provenance = page_of(make_record(run_id="a"))
    assert fields_of(provenance, line_of(lines, FIRST[:12]), 3) == {(0, "$")}


def test_a_template_of_ones_own_has_a_provenance_too(tmp_path):
    (tmp_path / "report.md.j2").write_text(
        '{% extends "core/report.md.j2" %}{% block notes %}\n{{ super() }}{% endblock %}'
        "{% block licence %}\nrun {{ view.rows[0].record.run_id }} of {{ view.rows[0].p_whole | number }}\n"
        "{% endblock %}"
    )
    lines, provenance = page_of(make_record(run_id="r-1"), user_templates=tmp_path)
    assert provenance.template == "user/report.md.j2"
    assert fields_of(provenance, line_of(lines, "run r-1 of")) == {
        (0, "$.run_id"),
        (0, "$.metrics.p_whole"),
        (0, "$.status.state"),
    }
    assert (0, "$.metrics.quality") in fields_of(provenance, line_of(lines, "converged, target"))


def test_tracing_changes_no_page():
    records = [make_record(run_id="a", **curve([0.1, 0.8])), make_record(run_id="b", metrics__p_core=UNKNOWN)]
    for language in LANGUAGES:
        plain = render_page(build_view(records), language=language)
        lines, _ = page_of(*records, language=language)
        assert plain.parts == ()
        short = [record_digest(record)[:12] for record in records]
        assert plain.text.replace(short[0], FIRST[:12]).replace(short[1], SECOND[:12]).split("\n") == lines


def test_reads_are_fields_and_several_items_are_their_list():
    record = trace(make_record(warnings=["a", "b"], metrics__p_train=throughput(3.0)), FIRST)
    with watch() as reads:
        assert record.metrics.p_train.median == 3.0
        assert list(record.warnings) == ["a", "b"]
        assert record.knobs[-1].name == "ACME_TF32"
    assert [source.json_path for source in simplify(reads.sources)] == [
        "$.metrics.p_train.median",
        "$.warnings",
        "$.knobs[0].name",
    ]


def test_the_digest_is_that_of_the_bytes_on_disk(tmp_path):
    """A record that another program formatted has another digest than chipperf would write."""
    file = tmp_path / "record.json"
    content = json.dumps(json.loads(record_text(make_record(run_id="a"))), indent=7).encode()
    file.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()

    stored = read_stored(tmp_path)
    result = CliRunner().invoke(app, ["report", str(file), "--lang", "en", "--out", str(tmp_path / "r.md")])

    assert result.exception is None
    assert stored.sha256 == digest != record_digest(stored.record)
    assert f"| {digest[:12]} |" in (tmp_path / "r.md").read_text(encoding="utf-8")
    assert read_provenance(provenance_file(tmp_path / "r.md")).records[0].sha256 == digest


def test_the_same_records_give_the_same_bytes(tmp_path):
    RunDirectory(tmp_path).write_record(make_record(run_id="a", **curve([0.1, 0.8])))
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        CliRunner().invoke(app, ["report", str(tmp_path), "--out", str(tmp_path / name / "README.md")])
    x, y = ((tmp_path / name / "README.md.provenance.json").read_bytes() for name in ("x", "y"))
    assert x == y
    assert str(tmp_path).encode() not in x


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "top level"),
        (b"\xff", "top level"),
        (b"[" * 100_000, "top level"),
        (b'{"provenance_version": 2}', "provenance_version"),
        (b"{}", "language"),
    ],
)
def test_what_is_no_provenance_is_refused_with_the_place(tmp_path, content, message):
    file = tmp_path / "r.md.provenance.json"
    file.write_bytes(content)
    with pytest.raises(RecordError, match=message) as caught:
        read_provenance(file)
    assert str(file) in caught.value.message
