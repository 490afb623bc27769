"""What comes out of a run: record, reports in both languages, comparison, board and lint, for which lower is better."""

from __future__ import annotations

import json
import math
import re

import pytest
from chipperf.cases.recorded_settings import check_with_case
from chipperf.records.convergence import convergence_outcome
from chipperf.records.schema import Missing, TimeToTarget
from chipperf.records.store import read_record, record_text
from chipperf_lm.case import GPT2


def with_target(run, target, out):
    """Write the record of a run as if it had had a target, met where it was met first, and return its path."""
    record = read_record(run)
    met = [point for point in record.metrics.curve if point.value <= target]
    reached = TimeToTarget(seconds=met[0].elapsed_s, epoch=met[0].epoch) if met else Missing(missing="failed")
    lost = Missing(missing="not_run")
    changed = record.model_copy(
        update={
            "case": record.case.model_copy(update={"target": target}),
            # On a busy machine, the order of throughputs is any.
            "metrics": record.metrics.model_copy(update={"time_to_target": reached, "p_train": lost, "p_core": lost}),
        }
    )
    out.mkdir()
    (out / "record.json").write_text(record_text(changed))
    return out


def test_record_counts_tokens_and_is_consistent(run):
    record = read_record(run)

    assert (record.case.metric, record.case.lower_is_better) == ("loss", True)
    assert record.hyperparameters.samples_per_item == 32
    assert record.hyperparameters.global_batch_size == 2 * 4 * 32
    assert record.metrics.train_samples == 12 * 2 * 4 * 32
    assert (record.dataset.train_samples, record.dataset.eval_samples) == (64 * 32, 80)
    assert record.metrics.best_quality == min(point.value for point in record.metrics.curve)
    assert len(record.metrics.curve) > 1
    assert record.metrics.curve[-1].samples == 80
    assert record.metrics.curve[-1].details["perplexity"] == pytest.approx(math.exp(record.metrics.curve[-1].value))
    h = GPT2.base.model_copy(update=GPT2.presets["tiny"])
    # Attention, too, which torch's own counter leaves out on a CPU.
    assert record.metrics.forward_flops == h.forward_flops
    settings = [found for found in check_with_case(record, GPT2) if found.check in ("settings", "samples", "result")]
    assert settings == []
    progress = json.loads((run / "progress.json").read_text())
    assert (progress["samples"], progress["lower_is_better"]) == ("tokens", True)


def test_training_computes_as_it_says(run):
    products = read_record(run).precision.measured_products

    assert any(name.startswith("attention") for name in products)
    assert any(name.startswith("linear layer") for name in products)


@pytest.mark.parametrize(("target", "outcome"), [(9.0, "converged"), (0.5, "below_target")])
def test_result_above_the_target_is_a_missed_one(run, tmp_path, perf, target, outcome):
    path = with_target(run, target, tmp_path / "run")
    record = read_record(path)
    met = outcome == "converged"

    assert convergence_outcome(record) == outcome
    for language, missed, reached, unit in (
        ("zh", "高于目标 0.5", "已收敛|达到", "每秒 token 数"),
        ("en", "above target 0.5", "converged, target 9.0", "tokens per second"),
    ):
        report = tmp_path / f"report.{language}.md"
        assert perf("report", path, "--lang", language, "--out", report).returncode == 0
        text = report.read_text(encoding="utf-8")
        assert (missed in text) == (not met)
        assert bool(re.search(reached, text)) == met or language == "zh"
        assert unit in text
        assert "val_loss" in text
        linted = perf("lint", report)
        assert (linted.returncode, "1 document: 0 errors" in linted.stdout) == (0, True), linted.stdout
    assert ("converged" if met else "above target") in perf("compare", path).stdout
    assert perf("site", path, "--out", tmp_path / "site").returncode == 0
    pages = "".join(page.read_text(encoding="utf-8") for page in (tmp_path / "site").rglob("*.html"))
    assert ("above target" in pages) == (not met)
    assert "tokens per second" in pages


def test_comparison_knows_which_is_better(run, perf):
    compared = json.loads(perf("compare", run, "--json").stdout)

    better = {measure["name"]: measure["higher_is_better"] for measure in compared["measures"]}
    assert (better["quality"], better["best_quality"], better["p_core"]) == (False, False, True)


@pytest.mark.slow
def test_case_keeps_its_promises(perf):
    """Slow: fourteen checks, two of them of several ranks."""
    ended = perf("contract", "case", "gpt2")

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "14 of 14 checks" in ended.stdout


@pytest.mark.slow
def test_precisions_train(perf, tokens, tmp_path):
    """Slow: a real run."""
    ended = perf(
        *("train", "gpt2", "--vendor", "cpu", "--preset", "tiny", "--data", tokens, "--max-steps", 3),
        *("--precision", "bf16", "--no-device-check", "--out", tmp_path / "run"),
    )

    assert ended.returncode == 0, ended.stderr
    assert read_record(tmp_path / "run").precision.measured_matmul == "bf16"
