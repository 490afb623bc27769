"""A case of another package, on data of a layout that core does not have: every command asks the case."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import table_case
from chipperf.records.schema import Missing
from chipperf.records.store import read_record, record_text
from table_case import CASE, FILE, install_table_case, write_table

if TYPE_CHECKING:
    from pathlib import Path

    from invocation import Invoke
    from support import FakeDistributions, Perf


@pytest.fixture(autouse=True)
def python_path(distributions: FakeDistributions) -> str:
    return install_table_case(distributions)


def test_data_are_checked_by_the_case(invoke: Invoke, tmp_path: Path) -> None:
    ended = invoke("data", "check", "sums", write_table(tmp_path / "table"), "--full")

    assert (ended.code, ended.out) == (0, "48 training and 16 evaluation samples\n")


def test_faults_are_those_that_the_case_finds(invoke: Invoke, tmp_path: Path) -> None:
    small = write_table(tmp_path / "small", rows=8)

    ended = invoke("data", "check", "sums", small)
    assert ended.code == 4
    assert "error: 6 training samples; sums2026 has 48\nerror: 2 evaluation samples; sums2026 has 16" in ended.out
    assert invoke("data", "check", "sums", small, "--any-size").code == 0

    np.save(small / FILE, np.full((8, 9), np.nan))
    assert invoke("data", "check", "sums", small, "--any-size").code == 0
    report = json.loads(invoke("data", "check", "sums", small, "--any-size", "--full", "--json").out)
    assert ([each["code"] for each in report["findings"]], report["classes"]) == (["not-finite"], None)

    (small / FILE).write_text("no table")
    assert f"error: {small / FILE} is not a table" in invoke("data", "check", "sums", small).out


def test_case_without_a_check_says_so(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_case, "CASE", replace(CASE, data=replace(CASE.data, check=None, ensure_sample=None)))

    ended = invoke("data", "check", "sums", tmp_path)
    assert ended.code == 2
    assert "case sums has no check of its data" in ended.err
    ended = invoke("data", "sample", "--case", "sums")
    assert ended.code == 2
    assert "case sums has no sample dataset" in ended.err


def test_sample_is_generated_by_the_case(invoke: Invoke, tmp_path: Path) -> None:
    ended = invoke("data", "sample", "--case", "sums", "--out", tmp_path / "data")
    assert (ended.code, ended.out) == (0, f"{tmp_path / 'data' / 'sums'}\n")

    ended = invoke("data", "sample", "--case", "sums", "--size", "tiny")
    assert ended.code == 2
    assert "--size does not apply to the sample dataset of sums" in ended.err
    assert "it takes no options but --out" in ended.err


def test_case_whose_data_are_another_dataset_is_refused() -> None:
    with pytest.raises(ValueError, match="the hyperparameter dataset is 'other', its data are those of 'sums2026'"):
        replace(CASE, base=CASE.base.model_copy(update={"dataset": "other"}))


@pytest.mark.slow
def test_run_report_and_lint(perf: Perf, invoke: Invoke, tmp_path: Path, python_path: str) -> None:
    """Slow: a real run."""
    data, out = write_table(tmp_path / "table"), tmp_path / "run"

    trained = perf(
        *("train", "sums", "--vendor", "cpu", "--data", data, "--out", out, "--no-device-check"), PYTHONPATH=python_path
    )
    assert trained.returncode == 0, trained.stderr
    record = read_record(out)
    dataset, target = record.dataset, record.case.target
    assert (dataset.name, dataset.train_samples, dataset.is_sample, target) == ("sums2026", 48, False, 0.5)
    assert isinstance(dataset.classes, Missing)

    # As if the four epochs of 48 rows had taken a while: starting takes longer than they do.
    for epochs, finding in ((4, ""), (8, "e2e_time and p_whole imply 8.0 epochs, sums")):
        metrics = record.metrics.model_copy(update={"e2e_time_s": epochs * 48 / 50, "p_whole": 50.0})
        timed, report = tmp_path / "timed.json", tmp_path / "report.md"
        timed.write_text(record_text(record.model_copy(update={"metrics": metrics})))
        assert invoke("report", timed, "--lang", "en", "--out", report).code == 0
        text = report.read_text()
        assert "This report uses Sums 2026." in text
        assert "rows trained on divided by total time" in text
        ended = invoke("lint", report)
        assert ended.code == (4 if finding else 0), ended.out
        assert finding in ended.out
