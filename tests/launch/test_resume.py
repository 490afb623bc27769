"""Runs that are stopped or killed and go on: with real processes where it matters, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import torch
from chipperf.cases.classification.case import MOBILENETV2 as CASE
from chipperf.errors import DataError, DeviceError, PerfError, RecordError, TrainingError, UsageError, VendorHookError
from chipperf.launch import resume as resume_module
from chipperf.launch.local import _may_restart
from chipperf.launch.resume import require_same_software, restart, resume
from chipperf.plugin import installed
from chipperf.plugin.session import bind
from chipperf.plugin.types import Rank
from chipperf.records.checkpoints import list_checkpoints, newest_valid
from chipperf.records.files import write_atomically
from chipperf.records.process_files import has_live_process, hold_process_file
from chipperf.records.schema import Failure, Limits, Missing, Status, Throughput
from chipperf.records.store import read_record
from chipperf.run.collectives import Collectives
from chipperf.run.directory import RunDirectory
from chipperf.run.failure import describe, reported_recurring, would_recur
from chipperf.run.plan import read_plan
from chipperf.train.checkpoint import CheckpointWriter
from chipperf.verify.evidence import examine
from quick_cases import install_quick_cases
from support import (
    TIMEOUT_S,
    evaluations,
    events_of,
    perf_command,
    perf_environment,
    process_starter,
    processes_naming,
    ranks_of,
    wait_for,
)
from test_processes import BOUNDED_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from chipperf.records.schema import Record
    from support import FakeDistributions, FinishedRun, MakePlan, Perf


HERE = Path("images")


@pytest.fixture
def perf_train(
    image_folder: Path, tmp_path: Path, distributions: FakeDistributions
) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts ``perf train`` with a case that records a digest of its weights at every evaluation."""
    environment = perf_environment(PYTHONPATH=install_quick_cases(distributions), OMP_NUM_THREADS="1")
    with process_starter(tmp_path) as start_process:

        def start(
            directory: Path, *arguments: object, resumes: bool = False, **variables: str
        ) -> subprocess.Popen[str]:
            new = ("watched", "--vendor", "cpu", "--data", image_folder, "--set", "workers=1", "--out", directory)
            command = perf_command("train", *(("--resume", directory) if resumes else new), *arguments)
            return start_process(command, {**environment, **variables})

        yield start


def completed(process: subprocess.Popen[str], directory: Path) -> Record:
    out, complaints = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, complaints
    assert "Traceback" not in complaints
    record = read_record(directory)
    assert record.status.state == "completed"
    assert not RunDirectory(directory).checkpoints.exists()
    assert examine(record, directory).contradictions == []
    return record


def measured(record: Record) -> dict[str, Any]:
    """Everything that is not a time."""
    metrics = record.metrics
    windows = [*metrics.restart_windows, *(metrics.p_train.windows if isinstance(metrics.p_train, Throughput) else [])]
    return {
        "windows": {
            window.first_step: (window.epoch, window.steps, window.samples, window.loss)
            for window in sorted(windows, key=lambda window: window.first_step)
        },
        "curve": [point.model_dump(exclude={"elapsed_s"}) for point in metrics.curve],
        "counts": (metrics.steps, metrics.train_samples, metrics.epochs, metrics.quality, metrics.best_quality),
    }


@pytest.fixture(scope="module")
def known() -> dict[int, dict[str, Any]]:
    """What uninterrupted runs measured, by their number of ranks."""
    return {}


@pytest.fixture
def uninterrupted(tmp_path: Path, perf_train: Any, known: dict[int, dict[str, Any]]) -> Callable[[int], dict[str, Any]]:
    """Trains without a stop, once for each number of ranks."""

    def train(ranks: int) -> dict[str, Any]:
        if ranks not in known:
            known[ranks] = measured(completed(perf_train(tmp_path / "whole", "--nproc", ranks), tmp_path / "whole"))
        return known[ranks]

    return train


@pytest.mark.slow
def test_interrupted_run_goes_on_to_the_same_end(
    tmp_path: Path, perf_train: Any, uninterrupted: Callable[[int], dict[str, Any]]
) -> None:
    """Slow: three real runs of two ranks. The newest checkpoint is damaged before the last one."""
    out = tmp_path / "run"
    process = perf_train(out, "--nproc", 2)
    wait_for(lambda: evaluations(RunDirectory(out)) >= 2, process)

    process.terminate()
    _, complaints = process.communicate(timeout=BOUNDED_S)

    assert process.returncode == 1
    assert "perf: error: stopped by a signal" in complaints
    record = read_record(out)
    assert record.status.state == "interrupted"
    found, faults = newest_valid(RunDirectory(out).checkpoints)
    assert found is not None
    assert faults == []
    assert f"to continue after step {found[1].step}: perf train --resume {out}" in complaints
    assert events_of(RunDirectory(out))[-1]["event"] == "RUN_STOP"
    assert processes_naming(str(out)) == []
    newest, before = list_checkpoints(RunDirectory(out).checkpoints)
    (newest / "rank1.pt").unlink()

    process = perf_train(out, resumes=True)
    resumed = completed(process, out)

    assert measured(resumed) == uninterrupted(2)
    [interruption] = resumed.interruptions
    assert interruption.cause.failure_class == "interrupted"
    assert interruption.step == int(before.name.partition("-step")[2])
    [damage] = [warning for warning in resumed.warnings if "rank1.pt cannot be read" in warning]
    assert damage.endswith(f"resumed from {before.name} instead")
    metrics = resumed.metrics
    assert isinstance(metrics.e2e_time_s, float)
    assert isinstance(metrics.train_seconds, float)
    assert metrics.e2e_time_s > interruption.session_seconds + metrics.train_seconds / 2
    last = metrics.spans[-1]
    assert last.start_s + last.seconds == pytest.approx(metrics.e2e_time_s)
    assert not [path for path in out.iterdir() if path.name.startswith((".", "process"))]


@pytest.mark.slow
def test_run_survives_the_death_of_its_rank_and_of_its_launcher(
    tmp_path: Path, image_folder: Path, perf_train: Any, uninterrupted: Callable[[int], dict[str, Any]]
) -> None:
    """Slow: two real runs, one of which is started four times: last where the data lie elsewhere."""
    out = tmp_path / "run"
    process = perf_train(out, "--max-restarts", 1)
    wait_for(lambda: evaluations(RunDirectory(out)) >= 1, process)
    [rank] = ranks_of(process)
    rank.kill()
    wait_for(lambda: len(read_record(out).interruptions) == 1, process)
    before = evaluations(RunDirectory(out))
    wait_for(lambda: evaluations(RunDirectory(out)) > before, process)
    [rank] = ranks_of(process)
    process.kill()
    process.communicate()
    # The rank saves and ends; its loader processes do so seconds later.
    _, alive = psutil.wait_procs([rank, *processes_naming(str(out))], timeout=BOUNDED_S)

    assert alive == []
    assert not has_live_process(out, thorough=True)
    assert read_record(out).status.state == "interrupted"
    found, _ = newest_valid(RunDirectory(out).checkpoints)
    assert found is not None
    other, moved = shutil.copytree(image_folder, tmp_path / "other"), shutil.copytree(image_folder, tmp_path / "moved")
    (other / "dataset.json").unlink()
    next((other / "train").rglob("*.jpg")).unlink()
    refused = perf_train(out, "--data", other, resumes=True)
    _, complaints = refused.communicate(timeout=TIMEOUT_S)
    assert refused.returncode == 2, complaints
    assert "the run was started on another dataset: chipperf-sample-3 with 24 samples for training" in complaints
    resumed = completed(perf_train(out, "--data", moved, resumes=True, OMP_WAIT_POLICY="active"), out)

    assert measured(resumed) == uninterrupted(1)
    first, second, third = resumed.interruptions
    assert (third.cause.failure_class, third.step) == ("UsageError", second.step)
    [warning] = [warning for warning in resumed.warnings if warning.startswith("continued with other settings")]
    assert "knob OMP_WAIT_POLICY passive, then active" in warning
    assert resumed.dataset.name == "chipperf-sample-3"
    assert {knob.name: knob.value for knob in resumed.knobs}["OMP_WAIT_POLICY"] == "passive"
    assert (first.cause.failure_class, first.cause.rank, first.gap_seconds) == ("rank_died", 0, 0)
    assert (first.step % 6, second.cause.failure_class, second.step) == (0, "interrupted", found[1].step)


def test_completed_run_is_left_alone(perf: Perf, trained_run: FinishedRun) -> None:
    before = (trained_run.directory / "record.json").read_bytes()

    process = perf("train", "--resume", trained_run.directory)

    assert process.returncode == 0
    assert "is complete: there is nothing to resume" in process.stdout
    assert (trained_run.directory / "record.json").read_bytes() == before


@pytest.fixture
def stopped(tmp_path: Path, make_plan: MakePlan, planned: Record) -> RunDirectory:
    """A run on two ranks that was interrupted after its checkpoints of steps 10 and 20, when it had done 24."""
    directory = RunDirectory(tmp_path / "run")
    directory.create()
    plan = make_plan(created_at=datetime.now(timezone.utc) - timedelta(seconds=100), warnings=["mind the gap"])
    write_atomically(directory.plan, plan.model_dump_json())
    failure = Failure(failure_class="interrupted", message="stopped by a signal")
    directory.write_record(
        planned.model_copy(
            update={"status": Status(state="interrupted", failure=failure), "warnings": ["mind the gap", "it was slow"]}
        )
    )
    directory.progress.write_text(json.dumps({"step": 24}))
    directory.failure(1).write_text("{}")
    for step in (10, 20):
        save(directory, step)
    directory.release_reserve()
    return directory


class TwoRanks(Collectives):
    """Lets one process write the files of two ranks."""

    def gather(self, item: Any) -> list[Any]:
        if not isinstance(item, tuple):
            return [item, item]
        written, fault = item
        return [item, ({"rank1.pt": written["rank0.pt"]}, fault)]


def save(directory: RunDirectory, step: int) -> None:
    rank = Rank(world_size=2, local_world_size=2)
    writer = CheckpointWriter(
        directory.checkpoints,
        run_id="run-1",
        session=1,
        keep=9,
        rank=rank,
        collectives=TwoRanks(Rank(), torch.device("cpu")),
    )
    assert writer.save(step, {"step": step}, {"rank": 0}) is None
    newest = list_checkpoints(directory.checkpoints)[0]
    (newest / "rank1.pt").write_bytes((newest / "rank0.pt").read_bytes())


def test_plan_and_record_say_how_the_run_goes_on(stopped: RunDirectory) -> None:
    plan = resume(stopped, torch.__version__, started_s=50.0, data_root=HERE)

    assert plan == read_plan(stopped.plan)
    assert plan.data_root == HERE
    assert (plan.session, plan.checkpoint, plan.run_id) == (2, "session001-step000000020", "run-1")
    assert plan.earlier_s == pytest.approx(100, abs=30)
    assert plan.origin_s == 50.0 - plan.earlier_s
    record = read_record(stopped.path)
    assert record.status.state == "running"
    # What a session warned of is found again by the next one; what was known before it began stays.
    assert record.warnings == plan.warnings == ["mind the gap"]
    [interruption] = record.interruptions
    assert (interruption.step, interruption.lost_steps, interruption.cause.message) == (20, 4, "stopped by a signal")
    assert interruption.session_seconds == plan.earlier_s
    assert not stopped.progress.exists()
    assert not stopped.failure(1).exists()
    assert has_live_process(stopped.path, thorough=True)


def test_sessions_add_up(stopped: RunDirectory) -> None:
    first = resume(stopped, torch.__version__, started_s=50.0, data_root=HERE)
    stopped.release_reserve()

    second = resume(stopped, torch.__version__, started_s=70.0, data_root=HERE)

    assert second.session == 3
    assert second.earlier_s >= first.earlier_s
    interruptions = read_record(stopped.path).interruptions
    assert sum(each.session_seconds for each in interruptions) == second.earlier_s
    assert interruptions[1].lost_steps == Missing(missing="unknown", reason="the run left no progress")


@pytest.mark.parametrize("events", [True, False])
def test_time_of_a_copy_is_not_the_time_of_the_run(stopped: RunDirectory, events: bool) -> None:
    plan = read_plan(stopped.plan)
    if events:
        stopped.events.write_text(
            json.dumps({"metadata": {"time_ms": 1000 * (plan.created_at.timestamp() + 60)}}) + "\n{"
        )
    for path in stopped.path.rglob("*"):
        os.utime(path, (time.time() + 90_000, time.time() + 90_000))

    resumed = resume(stopped, torch.__version__, started_s=50.0, data_root=HERE)

    assert resumed.earlier_s == pytest.approx(60 if events else 0, abs=0.01)


def test_damaged_checkpoint_is_left_out_and_that_is_said(stopped: RunDirectory) -> None:
    newest = list_checkpoints(stopped.checkpoints)[0]
    (newest / "shared.pt").write_bytes(b"")

    plan = resume(stopped, torch.__version__, started_s=50.0, data_root=HERE)

    assert plan.checkpoint == "session001-step000000010"
    assert plan.warnings[1].startswith("checkpoint session001-step000000020: shared.pt has 0 bytes instead of")
    assert plan.warnings[1].endswith("; resumed from session001-step000000010 instead")
    # It could never be resumed from again, and would be counted among those that are kept.
    assert not newest.exists()


@pytest.mark.parametrize("damaged", [True, False])
def test_run_without_a_checkpoint_cannot_be_resumed(stopped: RunDirectory, damaged: bool) -> None:
    for checkpoint in list_checkpoints(stopped.checkpoints):
        for path in checkpoint.iterdir():
            path.unlink()
        if not damaged:
            checkpoint.rmdir()
    before = stopped.record.read_bytes()

    with pytest.raises(RecordError, match="has no checkpoint to resume from") as caught:
        resume(stopped, torch.__version__, started_s=50.0, data_root=HERE)

    assert ("is incomplete" in caught.value.message) == damaged
    assert stopped.record.read_bytes() == before


@pytest.mark.parametrize("name", ["process.json", "process-rank1.json"])
def test_living_run_is_not_resumed(stopped: RunDirectory, name: str) -> None:
    held = hold_process_file(stopped.path / name)

    with pytest.raises(UsageError, match="is still running"):
        resume(stopped, torch.__version__, started_s=50.0, data_root=HERE)

    os.close(held)


def test_run_that_another_process_has_resumed_meanwhile_is_refused(
    stopped: RunDirectory, make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While this process reads the checkpoints, the other one resumes the run and completes it."""
    before = stopped.record.read_bytes()
    reopen = RunDirectory.reopen

    def reopen_late(directory: RunDirectory) -> None:
        write_atomically(directory.plan, make_plan(session=2).model_dump_json())
        reopen(directory)

    monkeypatch.setattr(RunDirectory, "reopen", reopen_late)

    with pytest.raises(UsageError, match="was resumed in the meantime"):
        resume(stopped, torch.__version__, started_s=50.0, data_root=None)

    assert stopped.record.read_bytes() == before


def test_checkpoint_of_another_run_is_refused(stopped: RunDirectory, make_plan: MakePlan) -> None:
    write_atomically(stopped.plan, make_plan(run_id="run-2").model_dump_json())

    with pytest.raises(RecordError, match="belongs to run run-1 on 2 ranks, not to run-2 on 2"):
        resume(stopped, torch.__version__, started_s=50.0, data_root=HERE)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"chipperf_version": "0.0.1"}, "chipperf 0.0.1"),
        ({"metrics_version": 0}, "the definitions of the metrics 0"),
    ],
)
def test_other_software_is_refused(make_plan: MakePlan, planned: Record, changes: dict[str, Any], what: str) -> None:
    session = bind(installed.find_vendor("cpu"))
    require_same_software(make_plan(), planned, CASE, session)

    with pytest.raises(UsageError, match=f"started with {what}, and this is"):
        require_same_software(make_plan(), planned.model_copy(update=changes), CASE, session)
    with pytest.raises(UsageError, match="started with case mobilenetv2 0.9"):
        require_same_software(make_plan(case_version="0.9"), planned, CASE, session)


@pytest.mark.parametrize(
    "change",
    [
        {"precision": "bf16"},
        {"preset": "demo"},
        {"vendor": "metax"},
        {"run_id": "another"},
        {"limits": Limits(max_epochs=1)},
        {"hyperparameters": {"lr": 9.0}},
        {"created_at": datetime(2030, 1, 1, tzinfo=timezone.utc)},
        {"session": 2},
    ],
    ids=lambda change: next(iter(change)),
)
def test_plan_that_was_changed_after_its_record_is_refused(
    make_plan: MakePlan, planned: Record, change: dict[str, Any]
) -> None:
    plan = make_plan()
    if values := change.get("hyperparameters"):
        kept = plan.hyperparameters
        change = {"hyperparameters": kept.model_copy(update={"values": {**kept.values, **values}})}

    with pytest.raises(RecordError, match=f"do not agree on: {next(iter(change))}$"):
        require_same_software(plan.model_copy(update=change), planned, CASE, bind(installed.find_vendor("cpu")))


def test_other_torch_is_refused(stopped: RunDirectory) -> None:
    before = stopped.record.read_bytes()

    with pytest.raises(UsageError, match="started with torch .*, and this is 1.0"):
        resume(stopped, "1.0", started_s=50.0, data_root=HERE)
    assert stopped.record.read_bytes() == before
    resume(stopped, torch.__version__, started_s=50.0, data_root=HERE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--resume", "RUN", "--nproc", "2", "--preset", "tiny"], "--preset, --nproc cannot change a run"),
        (["resnet50", "--resume", "RUN"], "is one of mobilenetv2, not of resnet50"),
        (["--resume", "RUN/nowhere"], "no record at"),
        ([], "no case is named"),
    ],
)
def test_command_line_that_contradicts_the_run(
    perf: Perf, stopped: RunDirectory, arguments: list[str], message: str
) -> None:
    before = stopped.record.read_bytes()

    process = perf("train", *(argument.replace("RUN", str(stopped.path)) for argument in arguments))

    assert process.returncode in (1, 2)
    assert message in process.stderr
    assert "Traceback" not in process.stderr
    assert stopped.record.read_bytes() == before


def test_restart_goes_on_from_the_newest_checkpoint(stopped: RunDirectory) -> None:
    cause = Failure(failure_class="rank_died", message="it died", rank=1)
    plan = restart(read_plan(stopped.plan), stopped, Status(state="failed", failure=cause))

    assert (plan.session, plan.checkpoint, plan.earlier_s) == (2, "session001-step000000020", 0.0)
    [interruption] = read_record(stopped.path).interruptions
    assert (interruption.cause, interruption.step, interruption.gap_seconds) == (cause, 20, 0.0)
    assert not stopped.failure(1).exists()


def test_restart_without_a_checkpoint_begins_anew(stopped: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume_module, "newest_valid", lambda directory: (None, []))

    plan = restart(read_plan(stopped.plan), stopped, Status(state="failed"))

    assert plan.checkpoint is None
    assert read_record(stopped.path).interruptions[0].lost_steps == 24


@pytest.mark.parametrize(
    ("error", "recurs"),
    [
        (DataError("broken image"), True),
        (TrainingError("loss is nan", failure_class="non_finite_loss"), True),
        (MemoryError(), True),
        (RuntimeError("connection closed by peer"), False),
        (VendorHookError("perf_synchronize raised"), False),
        (DeviceError("lost"), False),
    ],
)
def test_only_failures_that_may_be_over_are_worth_a_restart(
    stopped: RunDirectory, error: BaseException, recurs: bool
) -> None:
    assert would_recur(error) == recurs
    report = describe(error, 0).model_dump() | {"monotonic_s": 1.0, "exit_code": 1, "would_recur": would_recur(error)}
    stopped.failure(0).write_text(json.dumps(report))

    assert reported_recurring(stopped, 0) == recurs
    assert _may_restart(Status(state="failed", failure=describe(error, 0)), stopped) != recurs


def test_interrupted_run_is_not_restarted(stopped: RunDirectory) -> None:
    failure = Failure(failure_class="interrupted", message="stopped")

    assert not _may_restart(Status(state="interrupted", failure=failure), stopped)


def test_listing_checkpoints_needs_no_torch() -> None:
    program = "import sys, chipperf.launch.resume, chipperf.records.checkpoints; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_errors_have_a_remedy(stopped: RunDirectory) -> None:
    with pytest.raises(PerfError) as caught:
        resume(stopped, "1.0", started_s=50.0, data_root=HERE)
    assert caught.value.hint
