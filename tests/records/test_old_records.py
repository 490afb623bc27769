"""Records, and what lies beside them in a run's directory, as earlier versions wrote them: each still says the same."""

from __future__ import annotations

import shutil
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from chipperf.errors import RecordError
from chipperf.launch.resume import resume
from chipperf.records.checkpoints import newest_complete_step, read_manifest
from chipperf.records.repeats import read_repeats
from chipperf.records.store import find_records, read_record
from chipperf.run.directory import RunDirectory
from chipperf.run.plan import read_plan
from chipperf.run.progress import read_progress
from chipperf.run.telemetry_process import read_telemetry, summarize
from kept_files import V010, written_in

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RUNS = V010 / "runs"
RECORDS = tuple(find_records(V010))

MAIN_VALUES = (
    *("kind", "run_id", "created_at", "chipperf_version", "metrics_version", "metrics_definition", "seed", "limits"),
    *("vendor", "case", "topology", "dataset", "loader", "knobs", "nodes.0.node_rank", "nodes.1.e2e_time_s"),
    *("precision.requested", "precision.effective", "precision.measured_matmul", "precision.autocast_dtype"),
    *("hyperparameters.values", "hyperparameters.changes", "hyperparameters.global_batch_size"),
    *("environment.cpu", "environment.driver", "environment.stated", "environment.distributions"),
    *(f"environment.cards.{rank}.{name}" for rank in (0, 1) for name in ("rank", "name", "uuid", "total_bytes")),
    *("metrics.e2e_time_s", "metrics.p_whole", "metrics.p_train", "metrics.p_core", "metrics.quality"),
    *("metrics.best_quality", "metrics.data_stall", "metrics.time_to_target", "metrics.projected_train_seconds"),
    *("metrics.memory", "metrics.power.mean_w", "metrics.power.used_peak_bytes", "metrics.step_breakdown.backward_s"),
    *("metrics.steps", "metrics.curve", "metrics.spans", "metrics.restart_windows", "metrics.rank_steps"),
    *("interruptions", "warnings", "remarks", "withheld"),
)
"""Paths whose names are the same in every version."""

ENDS = {
    "runs/failed": ("failed", "non_finite_loss"),
    "runs/interrupted": ("interrupted", "interrupted"),
    "suite/results/too-fast-mobilenetv2-fp32-1x1/repeat-1": ("failed", "non_finite_loss"),
}
"""How the runs ended that did not complete; of ``runs/killed`` no process said it."""


def look_up(content: Any, path: str) -> Any:
    """Return the value at a path; nothing lies below a value that is missing or a list that ends before."""
    for name in path.split("."):
        if isinstance(content, list):
            content = content[int(name)] if int(name) < len(content) else None
        elif content is None or "missing" in content:
            return content
        else:
            content = content[name]
    return content


def of_its_fields(read: Any, written: Any) -> Any:
    """Return what was read, without the fields that an earlier version did not have."""
    return {name: read[name] for name in written} if isinstance(written, dict) else read


def leaves(content: Any) -> Iterator[bool | float | str | None]:
    """Yield every value, whatever the fields are called that hold it."""
    if isinstance(content, dict | list):
        for value in content.values() if isinstance(content, dict) else content:
            yield from leaves(value)
    else:
        yield content


def name_of(file: Path) -> str:
    return file.parent.relative_to(V010).as_posix()


def test_something_of_every_kind_is_kept() -> None:
    kept = [written_in(file) for file in RECORDS]

    assert {record["kind"] for record in kept} == {"measured", "simulated", "imported"}
    assert {"resnet50", "mobilenetv2", "detr", "easy"} == {record["case"]["name"] for record in kept}
    assert {record["status"]["state"] for record in kept} == {"completed", "failed", "interrupted", "running"}
    assert {record["schema_version"] for record in kept} == {1}


@pytest.mark.parametrize("file", RECORDS, ids=name_of)
def test_record_has_every_value_of_its_file(file: Path) -> None:
    written = written_in(file)

    read = read_record(file).model_dump(mode="json")

    for path in MAIN_VALUES:
        expected = look_up(written, path)
        assert of_its_fields(look_up(read, path), expected) == expected, path
    # Of this version, and of a run whose process is gone.
    del written["schema_version"], written["status"]
    assert Counter(leaves(written)) - Counter(leaves(read)) == Counter()


@pytest.mark.parametrize("file", [file for file in RECORDS if name_of(file) != "runs/killed"], ids=name_of)
def test_record_ended_as_it_did(file: Path) -> None:
    status = read_record(file).status

    state, failure_class = ENDS.get(name_of(file), ("completed", None))
    assert status.state == state
    assert (status.failure and status.failure.failure_class) == failure_class
    assert list(leaves(status.model_dump())) == list(leaves(written_in(file)["status"]))


def test_durations_of_a_step_are_told_apart() -> None:
    """Their names change with the version, and their order does not."""
    read = read_record(RUNS / "mobilenetv2").metrics.step_breakdown.model_dump()

    written = written_in(RUNS / "mobilenetv2" / "record.json")["metrics"]["step_breakdown"]
    phases = ("h2d_s", "forward_s", "backward_s", "optimiser_s")
    assert [value for name, value in read.items() if name.endswith("_s")] == [written[name] for name in phases]
    assert (read["step"], read["steps"]) == (written["step"], written["steps"])


def test_run_whose_process_is_gone_was_killed() -> None:
    assert read_record(RUNS / "killed").status.state == "killed"


@pytest.mark.parametrize("run", ["failed", "interrupted", "killed", "mobilenetv2", "resumed"])
def test_plan_is_read(run: str) -> None:
    file = RunDirectory(RUNS / run).plan
    written = written_in(file)

    plan = read_plan(file)

    read = plan.model_dump(mode="json")
    for name in (
        "run_id",
        "created_at",
        "vendor",
        "case",
        "preset",
        "precision",
        "hyperparameters",
        "limits",
        "topology",
    ):
        assert of_its_fields(read[name], written[name]) == written[name]
    assert Counter(leaves(written)) - Counter(leaves(read)) == Counter()
    assert plan.run_id == read_record(RUNS / run).run_id


def test_plan_of_a_resumed_run_names_its_checkpoint() -> None:
    plan = read_plan(RunDirectory(RUNS / "resumed").plan)

    assert (plan.session, plan.checkpoint) == (2, "session001-step000000040")
    [interruption] = read_record(RUNS / "resumed").interruptions
    assert (interruption.step, interruption.lost_steps, interruption.cause.failure_class) == (40, 1, "killed")
    assert interruption.session_seconds == plan.earlier_s


@pytest.mark.parametrize(("run", "step"), [("killed", 40), ("interrupted", 41)])
def test_newest_checkpoint_is_found(run: str, step: int) -> None:
    directory = RunDirectory(RUNS / run)
    place = directory.checkpoints / f"session001-step{step:09}"

    assert newest_complete_step(directory.checkpoints) == step
    manifest = read_manifest(place)
    assert (manifest.step, manifest.run_id) == (step, read_plan(directory.plan).run_id)
    assert manifest.model_dump(mode="json") == written_in(place / "manifest.json")


def test_only_the_weights_are_missed_when_an_old_run_is_resumed(tmp_path: Path) -> None:
    """They were not kept: plan, record and manifests are read before them."""
    shutil.copytree(RUNS / "killed", tmp_path / "run")
    missing = "checkpoint session001-step0000000{step}: (shared|rank0).pt cannot be read: No such file"

    with pytest.raises(RecordError, match=f"{missing.format(step=40)}.*; {missing.format(step=20)}"):
        resume(RunDirectory(tmp_path / "run"), "2.14.1", started_s=0.0, data_root=tmp_path)


@pytest.mark.parametrize(("run", "step"), [("killed", 41), ("mobilenetv2", 12)])
def test_progress_is_read(run: str, step: int) -> None:
    file = RunDirectory(RUNS / run).progress

    progress = read_progress(file)

    assert progress is not None
    assert progress.step == step
    assert [progress.steps, progress.samples_per_s] == [written_in(file)[name] for name in ("steps", "samples_per_s")]


def test_telemetry_is_read() -> None:
    directory = RunDirectory(RUNS / "mobilenetv2")
    idle_bytes = read_plan(directory.plan).idle_memory_bytes

    readings = read_telemetry(directory.telemetry(0))

    assert summarize(readings, idle_bytes) == read_record(directory.path).metrics.power


@pytest.mark.parametrize("place", ["runs/repeats", "suite/results/mobilenetv2-fp32-1x1"])
def test_repeats_are_read(place: str) -> None:
    written = written_in(V010 / place / "repeats.json")

    repeats = read_repeats(V010 / place)

    assert repeats is not None
    assert (repeats.planned, repeats.completed, [run.seed for run in repeats.runs]) == (2, 2, [1, 2])
    for run in repeats.runs:
        assert read_record(V010 / place / run.directory).run_id == run.run_id
    assert repeats.model_dump(mode="json") == written
    lowest, highest = written["metrics"]["p_core"]["lowest"], written["metrics"]["p_core"]["highest"]
    assert repeats.metrics["p_core"].value == (lowest + highest) / 2
