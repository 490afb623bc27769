"""Two real ranks: what they share after training, and what the record of such a run says."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from chipperf.records.schema import Spread, StepBreakdown, Throughput
from chipperf.records.store import read_record
from support import started

if TYPE_CHECKING:
    from chipperf.records.schema import Record
    from support import FinishedRun

PROGRAM = Path(__file__).with_name("rank_program.py")


@pytest.fixture(scope="module")
def ranks(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two ranks holds after two steps and an evaluation."""
    rendezvous = tmp_path_factory.mktemp("rendezvous") / "store"
    processes = [
        started([sys.executable, str(PROGRAM), str(rank), "2", str(rendezvous), str(image_folder)], os.environ)
        for rank in range(2)
    ]
    results = []
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        results.append(json.loads(out.splitlines()[-1]))
    return results


@pytest.fixture(scope="module")
def record(trained_run: FinishedRun) -> Record:
    return read_record(trained_run.directory)


def test_ranks_hold_equal_weights_that_were_trained(ranks: list[dict[str, Any]]) -> None:
    assert ranks[0]["weights"] == ranks[1]["weights"]
    assert ranks[0]["weights"] != ranks[0]["initial"]


def test_ranks_evaluate_with_equal_batch_statistics(ranks: list[dict[str, Any]]) -> None:
    assert ranks[0]["buffers"] == ranks[1]["buffers"]


def test_distributed_accuracy_is_that_of_one_process(ranks: list[dict[str, Any]]) -> None:
    """Nine samples do not divide by two: padding or dropping one would show."""
    for rank in ranks:
        assert rank["accuracy"] == rank["accuracy_alone"]
        assert rank["counted"] == 9


def test_samples_of_all_ranks_are_counted(ranks: list[dict[str, Any]]) -> None:
    assert [rank["samples"] for rank in ranks] == [2 * 2 * 4] * 2


def test_run_is_complete(record: Record) -> None:
    assert record.status.state == "completed"
    assert record.status.failure is None
    assert record.topology.label == "1x2"
    assert record.hyperparameters.global_batch_size == 8
    assert record.seed == 5
    assert [card.rank for card in record.environment.cards] == [0, 1]
    assert record.precision.effective == "fp32"
    assert "seed_of_ranks" in {knob.name for knob in record.knobs}
    assert set(record.precision.measured_products.values()) == {"fp32"}
    assert "gradient exchange" in record.precision.measured_products


def test_samples_and_steps_are_exact(record: Record) -> None:
    metrics = record.metrics

    assert (metrics.steps, metrics.epochs, metrics.train_samples) == (6, 2, 48)
    assert isinstance(metrics.p_train, Throughput)
    assert sum(window.samples for window in metrics.p_train.windows) == 48 - 8
    assert [point.samples for point in metrics.curve] == [9, 9]
    assert [point.step for point in metrics.curve] == [3, 6]


def test_figures_fit_together(record: Record) -> None:
    metrics = record.metrics

    assert isinstance(metrics.p_train, Throughput)
    assert isinstance(metrics.p_core, Throughput)
    assert isinstance(metrics.train_seconds, float)
    assert isinstance(metrics.e2e_time_s, float)
    assert metrics.p_whole == pytest.approx(48 / metrics.train_seconds)
    assert metrics.data_stall == pytest.approx(1 - metrics.p_train.median / metrics.p_core.median)
    assert metrics.e2e_time_s > metrics.train_seconds > sum(window.seconds for window in metrics.p_train.windows)
    assert metrics.quality == metrics.curve[-1].value
    assert metrics.best_quality == max(point.value for point in metrics.curve)
    assert isinstance(metrics.data_wait, Spread)
    assert isinstance(metrics.step_breakdown, StepBreakdown)


def test_spans_cover_the_run_in_order(record: Record) -> None:
    spans = record.metrics.spans

    assert [span.start_s for span in spans] == sorted(span.start_s for span in spans)
    expected = {"launch", "first_step", "init", "warmup", "train", "eval", "core_pass", "diagnostic_pass", "teardown"}
    assert expected <= {span.name for span in spans}
    assert isinstance(record.metrics.e2e_time_s, float)
    last = spans[-1]
    assert last.name == "teardown"
    assert last.start_s + last.seconds == pytest.approx(record.metrics.e2e_time_s)


def test_record_names_the_data_without_its_place(record: Record, image_folder: Path) -> None:
    assert record.dataset.is_sample
    assert record.dataset.name
    assert str(image_folder.parent) not in record.model_dump_json()


def test_directory_holds_a_log_per_rank_and_no_leftovers(trained_run: FinishedRun) -> None:
    names = {path.relative_to(trained_run.directory).as_posix() for path in trained_run.directory.rglob("*")}

    assert {"record.json", "plan.json", "events.jsonl", "logs", "logs/rank0.log", "logs/rank1.log"} <= names
    assert "telemetry-node0.jsonl" in names
    assert not {name for name in names if name.startswith(".") or "failure" in name or name == "process.json"}
    for rank in (0, 1):
        log = (trained_run.directory / f"logs/rank{rank}.log").read_text(encoding="utf-8")
        assert f'"rank": {rank}' in log
        assert "Traceback" not in log


def test_run_prints_its_figures_and_where_they_are(trained_run: FinishedRun) -> None:
    out = trained_run.process.stdout

    for name in ("p_whole", "p_train", "p_core", "top1", "e2e_time"):
        assert name in out
    assert f"record: {trained_run.directory / 'record.json'}" in out
    assert f"perf report {trained_run.directory} --lang zh" in out
