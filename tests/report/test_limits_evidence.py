"""A run beside its machine's limits: in a report's evidence, on a page, in a comparison, and checked with its files."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from chipperf.compare.comparison import compare_columns
from chipperf.compare.comparison_formats import as_markdown
from chipperf.compare.sides import Side
from chipperf.launch.local import finish
from chipperf.records.machine_limits import CardLimits, MachineLimits, ProductLimit, limits_text
from chipperf.records.process_files import host_digest
from chipperf.records.schema import LimitsOfRun, Record, Status
from chipperf.records.store import read_record
from chipperf.report.render import render_report
from chipperf.run.directory import RunDirectory
from chipperf.run.plan import read_plan
from chipperf.verify.evidence import examine
from chipperf.web.board import summarize
from chipperf.web.pages import render_runs
from factory import make_record, throughput

if TYPE_CHECKING:
    from support import FinishedRun

SHARES = {"metrics__forward_flops": 8e9, "metrics__gradient_bytes": 10**8}


def beside_limits(**changes: Any) -> Record:
    record = make_record(**SHARES, **changes)
    found = LimitsOfRun(
        limits_id="limits-acme-1",
        sha256="ab" * 32,
        created_at=record.created_at,
        cards=8,
        products_flops_per_s=800e12,
        peak_flops_per_s=1024e12,
        peak_source="data sheet",
        bus_bytes_per_s=200e9,
    )
    return record.model_copy(update={"machine_limits": found})


def test_evidence_of_a_report_has_the_shares() -> None:
    page, zh = (render_report([beside_limits()], language=language) for language in ("en", "zh"))

    # 4659 samples/s x 8 GFLOP x 3 is 111.8 TFLOP/s; 18.2 steps/s x 100 MB x 7/4 is 3.19 GB/s.
    assert "| limits-acme-1 (abababababab) | 800 | 1024 | 200 | 13.97% | 10.91% | 1.59% |" in page
    assert "占本机实测上限的比例" in zh


def test_report_without_limits_is_as_before() -> None:
    assert "measured limits" not in render_report([make_record(**SHARES)], language="en")


def test_page_has_limits_and_shares() -> None:
    record = beside_limits()

    page = render_runs([record], [summarize(record)], language="en")

    assert "limits-acme-1" in page
    assert 'data-field="machine_limits.products_flops_per_s"' in page
    assert "13.97%" in page


def test_comparison_shows_shares_only_if_there_are_limits() -> None:
    first, second = beside_limits(), beside_limits(run_id="other", metrics__p_core=throughput(2329.5))
    columns = [Side(records=(each,)) for each in (first, second)]

    table = as_markdown(compare_columns(columns))

    assert "| mfu | 13.97% | 6.98% |" in table
    assert "| bus\\_share |" in table or "| bus_share |" in table
    plain = as_markdown(compare_columns([Side(records=(make_record(**SHARES),))]))
    assert "mfu" not in plain


@pytest.fixture
def run(trained_run: FinishedRun, tmp_path: Path) -> RunDirectory:
    """A real run of two ranks on the CPU, that ends again beside limits of its machine and day."""
    run = RunDirectory(Path(shutil.copytree(trained_run.directory, tmp_path / "runs" / "run")))
    record = read_record(run.record)
    product = ProductLimit(
        effective="fp32",
        arithmetic="fp32",
        shape=(256, 256, 256),
        rate=throughput(1e12),
        peak_flops_per_s={"missing": "unknown"},
    )
    limits = MachineLimits(
        kind="measured",
        limits_id="limits-cpu-1",
        chipperf_version="0.1.0",
        created_at=record.created_at - timedelta(hours=1),
        seconds=1.0,
        vendor=record.vendor,
        host=host_digest(),
        environment=record.environment,
        cards=[CardLimits(card=record.environment.cards[0], products={"fp32": product})],
        all_reduce={"ranks": 2, "sizes": [{"size_bytes": 1024, "rate": throughput(1e9)}]},
    )
    (tmp_path / "limits-today").mkdir()
    (tmp_path / "limits-today" / "limits.json").write_text(limits_text(limits))
    # It ended before, and its launcher adds its own end.
    spans = [span for span in record.metrics.spans if span.name != "teardown"]
    run.write_record(record.model_copy(update={"metrics": record.metrics.model_copy(update={"spans": spans})}))
    finish(read_plan(run.plan), run, Status(state="completed"), [])
    return run


def test_run_ends_beside_the_limits_of_its_machine(run: RunDirectory) -> None:
    record = read_record(run.record)

    assert isinstance(record.machine_limits, LimitsOfRun)
    assert record.machine_limits.products_flops_per_s == pytest.approx(1e12)
    assert record.machine_limits.bus_bytes_per_s == pytest.approx(1e9)
    assert "limits.json" in record.evidence
    assert examine(record, run.path).contradictions == []


def test_other_limits_in_the_record_are_found(run: RunDirectory) -> None:
    record = read_record(run.record)
    changed = record.machine_limits.model_copy(update={"products_flops_per_s": 2e12})

    (text,) = examine(record.model_copy(update={"machine_limits": changed}), run.path).contradictions

    assert text.startswith("machine_limits.products_flops_per_s is 2000000000000.0, limits.json gives 1")


def test_other_limits_beside_the_record_are_found(run: RunDirectory) -> None:
    copy = run.path / "limits.json"
    copy.write_text(copy.read_text().replace('"limits-cpu-1"', '"limits-cpu-2"'))

    found = examine(read_record(run.record), run.path).contradictions

    assert "limits.json was changed after the run ended" in found
    assert any(text.startswith("machine_limits.limits_id is limits-cpu-1") for text in found)


def test_record_without_its_limits_has_a_note(run: RunDirectory) -> None:
    (run.path / "limits.json").unlink()

    found = examine(read_record(run.record), run.path)

    assert found.contradictions == []
    assert any("nothing confirms machine_limits" in note for note in found.notes)
