"""Runs of a report's rows that lie beside its runs: none of them passes in silence."""

from __future__ import annotations

import json
import os

import pytest
from chipperf.cli.main import app
from chipperf.records.store import record_text
from chipperf.report import beside
from chipperf.report.beside import runs_beside
from factory import make_record
from typer.testing import CliRunner


def perf(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def write(directory, **changes):
    directory.mkdir(parents=True)
    record = make_record(run_id=directory.name, **changes)
    (directory / "record.json").write_text(record_text(record), encoding="utf-8")
    return directory


@pytest.fixture
def runs(tmp_path):
    """A run, others of its row beside it, and runs of other rows."""
    write(tmp_path / "runs" / "best")
    write(tmp_path / "runs" / "slower", metrics__p_whole=1.0)
    write(tmp_path / "runs" / "repeats" / "failed", status={"state": "failed"})
    write(tmp_path / "runs" / "other-row", precision__requested="amp")
    write(tmp_path / "runs" / "other-vendor", vendor__name="other")
    write(tmp_path / "runs" / "other-data", dataset__fingerprint="0")
    write(tmp_path / "runs" / "other-case", case__name="mobilenetv2")
    write(tmp_path / "runs" / "too" / "far" / "away")
    (tmp_path / "runs" / "broken").mkdir()
    (tmp_path / "runs" / "broken" / "record.json").write_text("{")
    return tmp_path / "runs"


def names(found):
    return [(run.run_id, run.state) for run in found]


@pytest.mark.parametrize("place", ["best", "best/record.json", "other-row/../best"])
def test_runs_of_the_same_row_are_found(runs, place):
    found = runs_beside([runs / place], [make_record(run_id="best")])
    assert names(found) == [("failed", "failed"), ("slower", "completed")]


def test_what_is_in_the_report_is_not_beside_it(runs):
    records = [make_record(run_id="best"), make_record(run_id="slower")]
    assert names(runs_beside([runs / "best", runs / "slower"], records)) == [("failed", "failed")]


def test_a_baseline_is_not_beside_the_report(runs):
    found = runs_beside([runs / "best"], [make_record(run_id="best")], [make_record(run_id="slower")])
    assert names(found) == [("failed", "failed")]


def test_rows_of_documents_have_no_runs_beside_them(tmp_path):
    for name in ("one", "other"):
        write(tmp_path / name, kind="imported")
    assert runs_beside([tmp_path / "one"], [make_record(run_id="one", kind="imported")]) == ()


def test_no_more_than_the_newest_records_are_read(runs, monkeypatch):
    monkeypatch.setattr(beside, "MOST_RECORDS", 1)
    os.utime(runs / "slower" / "record.json", (2**31, 2**31))
    assert names(runs_beside([runs / "best"], [make_record(run_id="best")])) == [("slower", "completed")]


@pytest.mark.parametrize("language", ["zh", "en"])
@pytest.mark.parametrize("provenance", [True, False])
def test_a_report_names_them_and_is_verified(runs, tmp_path, language, provenance):
    page = tmp_path / "README.md"
    result = perf("report", runs / "best", "--lang", language, "--out", page)
    assert "run slower (completed) is of a row of this report and beside its runs, but not in it" in result.output
    (line,) = (line for line in page.read_text(encoding="utf-8").splitlines() if "slower" in line)
    assert line.startswith("- ")
    file = tmp_path / "README.md.provenance.json"
    described = json.loads(file.read_text(encoding="utf-8"))["beside"]
    assert [run["run_id"] for run in described] == ["failed", "slower"]
    if not provenance:
        file.unlink()
    verified = perf("verify", page, "--runs", runs)
    assert verified.exception is None, verified.output
    assert "does not say so" not in verified.output


def test_a_page_that_does_not_name_them_any_more_is_found(runs, tmp_path):
    page = tmp_path / "README.md"
    perf("report", runs / "best", "--lang", "en", "--out", page)
    lines = page.read_text(encoding="utf-8").splitlines(keepends=True)
    page.write_text("".join(line for line in lines if "slower" not in line), encoding="utf-8")
    result = perf("verify", page, "--runs", runs)
    assert result.exception.exit_code == 4
    assert "the page lacks: - Run of the same row that lies beside these" in result.output
    (tmp_path / "README.md.provenance.json").unlink()
    result = perf("verify", page, "--runs", runs)
    assert "run slower (completed) of the same row lies beside, and the page does not say so" in result.output


def test_a_later_run_is_a_note_and_no_difference(runs, tmp_path):
    page = tmp_path / "README.md"
    perf("report", runs / "best", "--lang", "en", "--out", page)
    write(runs / "later")
    result = perf("verify", page, "--runs", runs)
    assert result.exception is None
    assert "run later (completed) of the same row lies beside, and the page does not say so" in result.output
