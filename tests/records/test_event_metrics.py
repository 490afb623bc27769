"""What a run whose main rank was killed had measured, from its events."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from chipperf.launch.local import finish
from chipperf.records.event_metrics import measured_in_events
from chipperf.records.process_files import hold_process_file
from chipperf.records.schema import Failure, Metrics, Missing, Record, Status, Throughput, TimeToTarget, Window
from chipperf.records.store import read_record
from chipperf.run.directory import RunDirectory
from chipperf.run.plan import read_plan

if TYPE_CHECKING:
    from pathlib import Path

    from support import FinishedRun


@pytest.fixture
def killed(trained_run: FinishedRun, tmp_path: Path) -> RunDirectory:
    """The run as if its processes had been killed before they wrote a result."""
    directory = RunDirectory(shutil.copytree(trained_run.directory, tmp_path / "run"))
    record = read_record(directory.path)
    directory.write_record(record.model_copy(update={"status": Status(state="running"), "metrics": Metrics()}))
    return directory


def test_killed_run_shows_what_it_had_measured(killed: RunDirectory, trained_run: FinishedRun) -> None:
    whole, found = read_record(trained_run.directory), read_record(killed.path)

    assert found.status.state == "killed"
    assert found.metrics.curve == whole.metrics.curve != []
    assert (found.metrics.quality, found.metrics.best_quality) == (whole.metrics.quality, whole.metrics.best_quality)
    assert isinstance(found.metrics.p_whole, Missing)


def test_launcher_puts_it_on_record_when_the_main_rank_died(killed: RunDirectory, trained_run: FinishedRun) -> None:
    held = hold_process_file(killed.process)
    status = Status(state="failed", failure=Failure(failure_class="hang", message="no rank has made progress"))

    finish(read_plan(killed.plan), killed, status, [])

    assert held
    record = read_record(killed.path)
    assert record.status == status
    assert record.metrics.curve == read_record(trained_run.directory).metrics.curve


def window(last_step: int, kind: str = "measured", loss: float = 1.0) -> dict[str, Any]:
    value = {"samples": 40, "seconds": 2.0, "loss": loss}
    facts = {"epoch": 1, "step": last_step, "first_step": last_step - 4, "kind": kind}
    return {"event": "WINDOW_STOP", "value": value, "metadata": facts}


def evaluation(step: int, value: float) -> dict[str, Any]:
    facts = {"epoch": 1, "step": step, "elapsed_s": 10.0 * step, "samples": 9, "details": {}, "metric": "top1"}
    return {"event": "EVAL_ACCURACY", "value": value, "metadata": facts}


def event(name: str, value: object = None) -> dict[str, Any]:
    return {"event": name, "value": value, "metadata": {}}


def from_events(planned: Record, path: Path, *events: dict[str, Any]) -> Metrics:
    path.write_text("".join(json.dumps(each) + "\n" for each in events) + '{"event": "WINDOW_ST')
    return measured_in_events(planned, path).metrics


def test_windows_and_evaluations_become_metrics(planned: Record, tmp_path: Path) -> None:
    planned = planned.model_copy(update={"case": planned.case.model_copy(update={"target": 0.5})})
    events = [window(step) for step in range(10, 40, 5)]

    metrics = from_events(planned, tmp_path / "events", *events, evaluation(20, 0.6), evaluation(35, 0.4))

    assert isinstance(metrics.p_train, Throughput)
    assert (metrics.p_train.median, len(metrics.p_train.windows)) == (20.0, 6)
    assert metrics.p_train.windows[0] == Window(epoch=1, first_step=6, steps=5, samples=40, seconds=2.0, loss=1.0)
    assert (metrics.quality, metrics.best_quality) == (0.4, 0.6)
    assert metrics.time_to_target == TimeToTarget(seconds=200.0, epoch=1)


@pytest.mark.parametrize(
    ("resumed", "first_steps", "values"), [([event("RUN_RESUME", 10)], [6, 11], [0.1, 0.3]), ([], [11], [0.3])]
)
def test_what_a_session_lost_is_not_counted_twice(
    planned: Record, tmp_path: Path, resumed: list[dict[str, Any]], first_steps: list[int], values: list[float]
) -> None:
    first = [window(10, "restart"), evaluation(10, 0.1), window(15), evaluation(15, 0.2)]
    second = [event("INIT_START"), *resumed, event("RUN_START"), window(15, "restart"), evaluation(15, 0.3)]

    metrics = from_events(planned, tmp_path / "events", *first, *second)

    assert [each.first_step for each in metrics.restart_windows] == first_steps
    assert [point.value for point in metrics.curve] == values


def test_events_that_tell_too_little_change_nothing(planned: Record, tmp_path: Path) -> None:
    old = {"event": "EVAL_ACCURACY", "value": 0.5, "metadata": {"epoch": 1, "step": 3}}

    assert from_events(planned, tmp_path / "events", old) == planned.metrics
    assert measured_in_events(planned, tmp_path / "none") == planned
