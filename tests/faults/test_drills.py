"""Every fault ends a run in bounded time, with its cause on record and nothing left behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from acme_build import CompilerMissing
from chipperf.records.store import read_record

from faults.drills import DRILLS, Drill, Workplace, run_drill

if TYPE_CHECKING:
    from pathlib import Path

    from faults.drills import Outcome

BY_NAME = {drill.fault: drill for drill in DRILLS}


def drilled(drill: Drill, root: Path, images: Path, disk: Path | None = None) -> Outcome:
    try:
        outcome = run_drill(drill, Workplace(root, images, disk))
    except CompilerMissing as error:
        pytest.skip(str(error))
    assert (outcome.state, outcome.failure_class) == (drill.state, drill.failure_class), outcome.complaints
    assert outcome.exit_code == drill.exit_code, outcome.complaints
    assert "Traceback" not in outcome.complaints
    assert outcome.earlier_intact
    assert outcome.orphans == []
    return outcome


@pytest.mark.slow
def test_rank_that_hangs_is_ended_with_the_stacks_of_all(tmp_path: Path, image_folder: Path) -> None:
    """Slow: a real run of two ranks, and the time until it counts as hanging."""
    outcome = drilled(BY_NAME["a rank hangs"], tmp_path, image_folder)

    assert "perf: error: no rank has made progress for 30 s" in outcome.complaints
    logs = [(tmp_path / f"run/logs/rank{rank}.log").read_text(encoding="utf-8") for rank in range(2)]
    assert all("most recent call first" in log for log in logs)
    assert "quick_workloads.py" in logs[1].split("most recent call first")[-1]


@pytest.mark.slow
def test_loss_that_is_not_a_number_is_named(tmp_path: Path, image_folder: Path) -> None:
    """Slow: a real run."""
    outcome = drilled(BY_NAME["the loss becomes NaN"], tmp_path, image_folder)

    assert "the training loss is nan" in outcome.complaints
    assert "lower lr" in outcome.complaints


@pytest.mark.slow
def test_device_without_memory_says_what_to_lower(tmp_path: Path, image_folder: Path) -> None:
    """Slow: a real run on a simulated card."""
    outcome = drilled(BY_NAME["the device is out of memory"], tmp_path, image_folder)

    assert "is out of memory" in outcome.complaints
    assert "lower batch_size" in outcome.complaints


@pytest.mark.slow
def test_clock_that_jumps_changes_no_time(tmp_path: Path, image_folder: Path) -> None:
    """Slow: a real run."""
    drilled(BY_NAME["the clock jumps by a day, back and forth"], tmp_path, image_folder)

    metrics = read_record(tmp_path / "run").metrics
    assert isinstance(metrics.e2e_time_s, float)
    assert isinstance(metrics.train_seconds, float)
    assert 0 < metrics.train_seconds < metrics.e2e_time_s < 3600
    assert all(span.start_s >= 0 and 0 <= span.seconds < 3600 for span in metrics.spans)
    assert all(0 <= point.elapsed_s < 3600 for point in metrics.curve)


@pytest.mark.slow
def test_directory_that_is_deleted_ends_the_run(tmp_path: Path, image_folder: Path) -> None:
    """Slow: a real run."""
    outcome = drilled(BY_NAME["the run's directory is deleted"], tmp_path, image_folder)

    assert "was deleted during the run" in outcome.complaints
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_run_completes_on_a_disk_too_small_for_its_checkpoints(
    tmp_path: Path, image_folder: Path, small_disk: Path
) -> None:
    """Slow: a real run."""
    drilled(BY_NAME["the disk is too small for checkpoints"], tmp_path, image_folder, small_disk)

    record = read_record(small_disk / "run")
    [warning] = [warning for warning in record.warnings if "checkpoint" in warning]
    assert warning == "no checkpoint after step 6: the disk is full; older ones were kept"
    assert record.metrics.steps == 7


def test_drills_have_names_of_their_own() -> None:
    assert len(BY_NAME) == len(DRILLS)
