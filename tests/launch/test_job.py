"""A run from its options to its result, without the processes that train."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from chipperf.cases.classification.case import MOBILENETV2
from chipperf.errors import DataError, TrainingError, TrainingStopped, UnsupportedPrecision, UsageError
from chipperf.launch import job as job_module
from chipperf.launch import launcher_group
from chipperf.launch.channel import SECRET_VARIABLE
from chipperf.launch.job import Job, plan_job, plan_resumed_job, run_job
from chipperf.launch.launcher_info import from_options
from chipperf.launch.options import TrainOptions
from chipperf.plugin import installed
from chipperf.plugin.selection import Selection
from chipperf.plugin.session import bind
from chipperf.plugin.types import ProbedDevice, ProbeResult
from chipperf.records.schema import Failure, Limits, Status
from chipperf.records.store import read_record
from chipperf.run.directory import RunDirectory
from chipperf.run.plan import read_plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from chipperf.launch.launcher_info import LauncherInfo
    from chipperf.run.plan import RunPlan
    from support import MakePlan

COMPLETED = Status(state="completed")


class Observer:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def vendor_selected(self, selection: Selection) -> None:
        self.told.append(f"vendor {selection.entry.name}")

    def notice(self, text: str) -> None:
        self.told.append(text)

    @contextmanager
    def preparing_sample(self) -> Iterator[Callable[[int, int], None]]:
        self.told.append("sample")
        yield lambda done, total: self.told.append(f"{done} of {total}")

    def started(self, plan: RunPlan, directory: RunDirectory) -> None:
        self.told.append(f"started {plan.run_id}")

    def resumed(self, plan: RunPlan, directory: RunDirectory, warnings: Sequence[str]) -> None:
        self.told.append(f"resumed from {plan.checkpoint}: {', '.join(warnings)}")

    @contextmanager
    def training(self, plan: RunPlan, directory: RunDirectory) -> Iterator[None]:
        self.told.append("training")
        yield
        self.told.append("trained")


@pytest.fixture
def observer() -> Observer:
    return Observer()


@pytest.fixture
def cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Selects the CPU reference without asking a process of its own."""
    device = ProbedDevice(index=0, name="CPU", uuid=None, pci_bus_id=None, total_bytes=None)
    probe = ProbeResult(available=True, reason="a CPU is here", devices=(device,))
    selection = Selection(entry=installed.find_vendor("cpu"), origin="option", probe=probe)
    monkeypatch.setattr(job_module, "select_vendor", lambda name: selection)


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> list[tuple[RunPlan, RunDirectory, object]]:
    """Calls of what starts the workers; they complete at once, and train nothing."""
    calls: list[tuple[RunPlan, RunDirectory, object]] = []

    def run_workers(plan: RunPlan, directory: RunDirectory, signals: object, group: object) -> tuple[Status, int]:
        calls.append((plan, directory, group))
        return COMPLETED, 0

    monkeypatch.setattr(job_module, "run_workers", run_workers)
    return calls


@pytest.fixture
def make_job(make_plan: MakePlan, tmp_path: Path) -> Callable[..., Job]:
    def make(launcher: LauncherInfo | None = None, **changes: Any) -> Job:
        return Job(
            plan=make_plan(**changes),
            session=bind(installed.find_vendor("cpu")),
            case=MOBILENETV2,
            out=tmp_path / "run",
            launcher=launcher,
        )

    return make


def make_splits(directory: Path) -> Path:
    """Make a directory that looks like a dataset."""
    for part in MOBILENETV2.data.parts:
        (directory / part).mkdir()
    return directory


def test_options_become_a_plan(cpu: None, observer: Observer, tmp_path: Path) -> None:
    options = TrainOptions(
        case="mobilenetv2",
        preset="tiny",
        precision="bf16",
        data=make_splits(tmp_path),
        settings={"seed": 7},
        limits=Limits(max_steps=3),
        nproc=2,
        hang_timeout_s=None,
        out=tmp_path / "run",
    )

    job = plan_job(options, started_s=5.0, observer=observer)

    plan = job.plan
    slower = "bf16 on a CPU can be slower than fp32: compare short runs (a CPU is here)"
    assert observer.told == ["vendor cpu", slower]
    assert plan.run_id.startswith("mobilenetv2-cpu-bf16-1x2-")
    assert (plan.started_s, plan.data_root, plan.limits) == (5.0, tmp_path.resolve(), Limits(max_steps=3))
    assert plan.hyperparameters.values["seed"] == 7
    assert plan.hyperparameters.global_batch_size == 2 * plan.hyperparameters.values["batch_size"]
    # A CPU needs no check.
    assert (plan.hang_timeout_s, plan.device_check_timeout_s) == (None, None)
    assert not (tmp_path / "run").exists()


def test_sample_is_generated_before_the_time_of_the_run_begins(
    cpu: None, observer: Observer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock_s = [100.0]

    def ensure_sample(advance: Callable[[int, int], None]) -> Path:
        clock_s[0] += 40.0
        advance(1, 2)
        return tmp_path

    case = replace(MOBILENETV2, data=replace(MOBILENETV2.data, ensure_sample=ensure_sample))
    monkeypatch.setattr("chipperf.launch.options.find_case", lambda name: case)
    monkeypatch.setattr(job_module.time, "monotonic", lambda: clock_s[0])

    plan = plan_job(TrainOptions(case="mobilenetv2", preset="tiny"), started_s=90.0, observer=observer).plan

    assert observer.told == ["vendor cpu", "sample", "1 of 2"]
    assert plan.started_s == 130.0


def test_precision_that_the_vendor_refuses_leaves_no_run_behind(cpu: None, observer: Observer, tmp_path: Path) -> None:
    data = make_splits(tmp_path)
    options = TrainOptions(case="mobilenetv2", preset="tiny", precision="amp", data=data, out=tmp_path / "run")

    with pytest.raises(UnsupportedPrecision, match=r"vendor 'cpu' .*does not run amp"):
        plan_job(options, started_s=0.0, observer=observer)


@pytest.mark.parametrize("device_check", [True, False])
def test_cards_are_counted_even_if_they_are_not_checked(
    cpu: None, observer: Observer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device_check: bool
) -> None:
    asked = []
    monkeypatch.setattr(job_module, "read_idle_memory", lambda session, devices: {"CPU #0": 7})
    monkeypatch.setattr(job_module, "require_free_cards", lambda *arguments: asked.append(arguments[2:]))
    options = TrainOptions(
        case="mobilenetv2", preset="tiny", data=make_splits(tmp_path), nproc=3, device_check=device_check
    )

    plan_job(options, started_s=0.0, observer=observer)

    # Without the check, a card in use is one more program's.
    assert asked == [({"CPU #0": 7} if device_check else {}, 3)]


def test_case_without_a_sample_needs_data(cpu: None, observer: Observer, monkeypatch: pytest.MonkeyPatch) -> None:
    case = replace(MOBILENETV2, data=replace(MOBILENETV2.data, ensure_sample=None))
    monkeypatch.setattr("chipperf.launch.options.find_case", lambda name: case)

    with pytest.raises(UsageError, match="has no sample dataset"):
        plan_job(TrainOptions(case="mobilenetv2", preset="tiny"), started_s=0.0, observer=observer)


def test_run_has_plan_and_record_before_its_workers_start(
    make_job: Callable[..., Job], workers: list[Any], observer: Observer, tmp_path: Path
) -> None:
    job = make_job()

    result = run_job(job, observer)

    [(plan, directory, group)] = workers
    assert (plan, group) == (job.plan, None)
    assert directory == result.directory == RunDirectory(tmp_path / "run")
    assert read_plan(directory.plan) == plan
    assert result.record is not None
    assert result.record.run_id == plan.run_id
    assert (result.status, result.exit_code, result.checkpoint_step) == (COMPLETED, 0, None)
    assert observer.told == ["started run-1", "training", "trained"]
    with pytest.raises(UsageError, match="already holds a run"):
        run_job(job, observer)
    assert len(workers) == 1


class FakeGroup:
    """The launchers of other machines, which do as they are told."""

    shared = True
    called: list[str]
    error: BaseException | None = None

    def __init__(
        self,
        launcher: LauncherInfo,
        *,
        origin_s: float,
        idle_memory_bytes: dict[str, int],
        tell: Callable[[str], None],
    ) -> None:
        self.launcher = launcher
        type(self).called = [f"origin {origin_s:g}"]

    @contextmanager
    def announcing_errors(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.called.append("refused")
            raise

    def gather_requests(self, plan: RunPlan) -> None:
        self.called.append("gather_requests")
        if self.error:
            raise self.error

    def announce(self, plan: RunPlan) -> None:
        self.called.append("announce")

    def gather_joined(self) -> bool:
        return self.shared

    def start(self, plan: RunPlan) -> None:
        self.called.append("start")

    def request(self, plan: RunPlan) -> RunPlan:
        return plan.model_copy(update={"run_id": "first-run"})

    def join(self, directory: RunDirectory, plan: RunPlan) -> RunPlan:
        return plan.model_copy(update={"warnings": ["joined"]})


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> type[FakeGroup]:
    class Own(FakeGroup):
        """The test's own."""

    monkeypatch.setattr(job_module, "LauncherGroup", Own)
    monkeypatch.setenv(SECRET_VARIABLE, "known")
    return Own


def test_first_launcher_starts_the_others_when_the_directory_is_there(
    group: type[FakeGroup], make_job: Callable[..., Job], workers: list[Any], observer: Observer
) -> None:
    result = run_job(make_job(from_options(2, 1, 0, "node0:1")), observer)

    assert group.called == ["origin 100", "gather_requests", "announce", "start"]
    assert result.record is not None
    assert result.record.warnings == []
    assert workers[0][0].shared_directory


@pytest.mark.parametrize(
    ("secret", "host", "warns"), [("", "node0", True), ("known", "node0", False), ("", "127.0.0.1", False)]
)
def test_machines_without_a_secret_are_a_warning(
    secret: str,
    host: str,
    warns: bool,
    group: type[FakeGroup],
    make_job: Callable[..., Job],
    workers: list[Any],
    observer: Observer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(SECRET_VARIABLE, secret)

    result = run_job(make_job(from_options(2, 1, 0, f"{host}:1")), observer)

    warning = f"{SECRET_VARIABLE} is not set: everybody who reaches node0:1 could have taken part in this run"
    assert result.record is not None
    assert result.record.warnings == workers[0][0].warnings == ([warning] if warns else [])
    assert (f"warning: {warning}" in observer.told) == warns


def test_machines_without_a_common_directory_are_a_warning(
    group: type[FakeGroup], make_job: Callable[..., Job], workers: list[Any], observer: Observer
) -> None:
    group.shared = False

    result = run_job(make_job(from_options(2, 1, 0, "node0:1")), observer)

    [warning] = workers[0][0].warnings
    assert "share no directory" in warning
    assert not workers[0][0].shared_directory
    assert read_plan(result.directory.plan).warnings == read_record(result.directory.path).warnings == [warning]


def test_other_launchers_hear_why_a_run_does_not_begin(
    group: type[FakeGroup], make_job: Callable[..., Job], workers: list[Any], observer: Observer, tmp_path: Path
) -> None:
    group.error = TrainingError("machine 1 did not join the run", failure_class="not_joined")

    with pytest.raises(TrainingError):
        run_job(make_job(from_options(2, 1, 0, "node0:1")), observer)

    assert group.called[-1] == "refused"
    assert not (tmp_path / "run").exists()
    assert workers == []


def test_signal_before_the_directory_is_taken_leaves_the_run_in_it_alone(
    group: type[FakeGroup], make_job: Callable[..., Job], workers: list[Any], observer: Observer
) -> None:
    directory = run_job(make_job(), observer).directory
    directory.release_reserve()
    before = directory.record.read_bytes()
    group.error = TrainingStopped()

    result = run_job(make_job(from_options(2, 1, 0, "node0:1")), observer)

    assert (result.status.state, result.record, group.called[-1]) == ("interrupted", None, "refused")
    assert directory.record.read_bytes() == before


def test_signal_that_comes_before_the_first_launcher_is_found_ends_the_run(
    make_job: Callable[..., Job], observer: Observer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meet(launcher: LauncherInfo) -> None:
        raise TrainingStopped

    monkeypatch.setattr(launcher_group, "_meet", meet)

    result = run_job(make_job(from_options(2, 1, 1, "node0:1")), observer)

    assert (result.status.state, result.exit_code, result.record) == ("interrupted", 1, None)


def test_another_launcher_follows_the_first(
    group: type[FakeGroup], make_job: Callable[..., Job], workers: list[Any], observer: Observer
) -> None:
    result = run_job(make_job(from_options(2, 1, 1, "node0:1")), observer)

    [(plan, _, _)] = workers
    assert (plan.run_id, plan.warnings) == ("first-run", ["joined"])
    assert (result.status, result.record) == (COMPLETED, None)
    assert observer.told == []


@pytest.fixture
def stopped(make_job: Callable[..., Job], workers: list[Any], observer: Observer) -> RunDirectory:
    """A run of two processes on one machine that was interrupted."""
    directory = run_job(make_job(), observer).directory
    observer.told.clear()
    workers.clear()
    status = Status(state="interrupted", failure=Failure(failure_class="interrupted", message="stopped"))
    record = read_record(directory.path).model_copy(update={"status": status})
    version = MOBILENETV2.version
    directory.write_record(record)
    directory.write_plan(read_plan(directory.plan).model_copy(update={"case_version": version}))
    directory.release_reserve()
    make_splits(directory.path)
    return directory


def test_resumed_run_goes_on_in_its_directory(
    stopped: RunDirectory, workers: list[Any], observer: Observer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resume(directory: RunDirectory, torch_version: str, *, started_s: float, data_root: Path) -> RunPlan:
        assert (directory, started_s, data_root) == (stopped, 9.0, moved)
        return read_plan(directory.plan).model_copy(update={"checkpoint": "epoch-1", "warnings": ["new"]})

    monkeypatch.setattr(job_module, "resume", resume)
    moved = stopped.path

    with pytest.raises(DataError, match=r"images does not exist"):
        plan_resumed_job(stopped.path, case=None, data=None, launcher=None, started_s=9.0)
    job = plan_resumed_job(stopped.path, case="mobilenetv2", data=moved, launcher=None, started_s=9.0)
    assert job is not None
    result = run_job(job, observer)

    assert result.directory == stopped
    assert workers[0][0].checkpoint == "epoch-1"
    assert observer.told == ["resumed from epoch-1: new", "training", "trained"]


def test_complete_run_is_left_alone(stopped: RunDirectory) -> None:
    stopped.write_record(read_record(stopped.path).model_copy(update={"status": COMPLETED}))

    assert plan_resumed_job(stopped.path, case=None, data=None, launcher=None, started_s=0.0) is None


def test_run_is_resumed_as_it_was_begun(stopped: RunDirectory) -> None:
    with pytest.raises(UsageError, match="is one of mobilenetv2, not of resnet50"):
        plan_resumed_job(stopped.path, case="resnet50", data=stopped.path, launcher=None, started_s=0.0)
    with pytest.raises(UsageError, match="was started as 1x2, and this is 2x1"):
        plan_resumed_job(
            stopped.path, case=None, data=stopped.path, launcher=from_options(2, 1, 0, "node0:1"), started_s=0.0
        )
    stopped.write_plan(read_plan(stopped.plan).model_copy(update={"case_version": "0"}))
    with pytest.raises(UsageError, match="was started with case mobilenetv2 0"):
        plan_resumed_job(stopped.path, case=None, data=stopped.path, launcher=None, started_s=0.0)
