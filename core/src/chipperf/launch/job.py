"""One training run, from its options to its result."""

from __future__ import annotations

import os
import secrets
import time
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import psutil

from chipperf.cases.registry import find_case
from chipperf.errors import TrainingStopped, UsageError
from chipperf.launch.channel import SECRET_VARIABLE
from chipperf.launch.launcher_group import LauncherGroup
from chipperf.launch.local import INTERRUPTED_STATUS, finish, run_workers
from chipperf.launch.options import check_options
from chipperf.launch.rank_processes import StopSignals
from chipperf.launch.resume import require_same_software, resume
from chipperf.launch.sequence import require_torch
from chipperf.plugin import installed
from chipperf.plugin.selection import select_vendor
from chipperf.plugin.session import bind
from chipperf.plugin.torch_helpers import require_precision
from chipperf.plugin.types import Rank
from chipperf.precisions import PRECISIONS
from chipperf.records.checkpoints import newest_complete_step
from chipperf.records.schema import HyperparametersRecord, Topology
from chipperf.records.store import read_record
from chipperf.run.device_check import DEFAULT_TIMEOUT_S
from chipperf.run.directory import RunDirectory
from chipperf.run.plan import RunPlan, read_plan
from chipperf.run.planned_record import planned_record
from chipperf.run.ranks import require_free_cards
from chipperf.run.rendezvous import is_loopback
from chipperf.run.telemetry_process import read_idle_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from chipperf.cases.base import Case
    from chipperf.launch.launcher_info import LauncherInfo
    from chipperf.launch.options import TrainOptions
    from chipperf.plugin.selection import Selection
    from chipperf.plugin.session import Session
    from chipperf.records.schema import Record, Status


class JobObserver(Protocol):
    """Shows the user the progress of a job."""

    def vendor_selected(self, selection: Selection) -> None:
        """Show which vendor was selected, and why."""

    def notice(self, text: str) -> None:
        """Show a line, for example what this launcher waits for."""

    def preparing_sample(self) -> AbstractContextManager[Callable[[int, int], None]]:
        """Show that the sample dataset is generated.

        The block calls the returned function with the numbers of finished and of all images.
        """

    def started(self, plan: RunPlan, directory: RunDirectory) -> None:
        """Show that the directory of a new run was created."""

    def resumed(self, plan: RunPlan, directory: RunDirectory, warnings: Sequence[str]) -> None:
        """Show that a run continues, and the warnings that this adds to its record."""

    def training(self, plan: RunPlan, directory: RunDirectory) -> AbstractContextManager[None]:
        """Show the progress of the workers while the block runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A planned run. Only a resumed run has files on disk.

    Attributes:
        plan: Plan of the run; if it ``resumes`` one, the plan before that, with the start of this process.
        out: The run's directory; ``None`` means ``runs/`` and the run's name.
        launcher: This process as one of the run's launchers; ``None`` if it is the only launcher.
    """

    plan: RunPlan
    session: Session
    case: Case
    out: Path | None
    launcher: LauncherInfo | None
    resumes: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class JobResult:
    """How a run ended.

    ``record`` is ``None`` on a machine that does not write it. The run can be resumed from ``checkpoint_step``; it is
    ``None`` if there is no checkpoint.
    """

    directory: RunDirectory
    status: Status
    exit_code: int
    record: Record | None
    checkpoint_step: int | None = None


def plan_job(options: TrainOptions, *, started_s: float, observer: JobObserver) -> Job:
    """Plan a new run, which began at ``started_s``, ``time.monotonic()`` at the start of this process.

    A :class:`PerfError` says that the options name something that does not exist, does not fit, or is not ready.
    """
    checked = check_options(options)
    selection = select_vendor(options.vendor)
    observer.vendor_selected(selection)
    session = bind(selection.entry)
    require_precision(options.precision, session.vendor_info().capabilities, who=str(selection.entry))
    if PRECISIONS[options.precision].autocast_type and session.vendor_info().device_type == "cpu":
        what = f"{options.precision} on a CPU can be slower than fp32"
        observer.notice(f"{what}: compare short runs ({selection.probe.reason})")
    topology = options.topology
    # A vendor's tuning is for the full benchmark; a preset has its own values for a smaller task.
    overrides = None
    if options.preset == "full":
        rank = Rank(world_size=topology.world_size, local_world_size=topology.nproc_per_node)
        overrides = session.case_overrides(options.case, rank, selection.probe.devices[0].name)
    resolved = checked.hyperparameters(vendor=selection.entry.name, vendor_overrides=overrides)
    values = resolved.values
    if options.data is None:
        # The sample is generated once per machine, so no run's end-to-end time includes it.
        generation_start_s = time.monotonic()
        if checked.case.data.ensure_sample is None:
            hint = "give a dataset's directory with --data"
            raise UsageError(f"case {checked.case.name} has no sample dataset", hint=hint)
        with observer.preparing_sample() as advance:
            data_root = checked.case.data.ensure_sample(advance)
        started_s += time.monotonic() - generation_start_s
    else:
        data_root = options.data
    idle_memory_bytes = read_idle_memory(session, selection.probe.devices)
    vendor_info = session.vendor_info()
    require_free_cards(
        vendor_info,
        selection.probe.devices,
        idle_memory_bytes if options.device_check else {},
        options.processes_started_here,
    )
    checks_devices = options.device_check and vendor_info.device_type != "cpu"
    now = datetime.now(timezone.utc)
    what = f"{checked.case.name}-{selection.entry.name}-{options.precision}-{topology.label}"
    plan = RunPlan(
        run_id=f"{what}-{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}",
        created_at=now,
        started_s=started_s,
        vendor=selection.entry.name,
        case=checked.case.name,
        case_version=checked.case.version,
        preset=options.preset,
        precision=options.precision,
        hyperparameters=HyperparametersRecord(
            values=values.model_dump(),
            changes=list(resolved.changes),
            notes=list(resolved.notes),
            samples_per_item=values.samples_per_item,
            global_batch_size=values.global_batch_size(topology.world_size),
        ),
        limits=options.limits,
        topology=topology,
        data_root=data_root.resolve(),
        stated_environment=dict(checked.file.environment),
        device_check_timeout_s=DEFAULT_TIMEOUT_S if checks_devices else None,
        idle_memory_bytes=idle_memory_bytes,
        max_restarts=options.max_restarts,
        hang_timeout_s=options.hang_timeout_s,
        session_started_at=now - timedelta(seconds=time.monotonic() - started_s),
    )
    # What is not UTF-8 ends the run here, before anything is created.
    plan.model_dump_json()
    return Job(plan=plan, session=session, case=checked.case, out=options.out, launcher=options.launcher)


def plan_resumed_job(
    path: Path, *, case: str | None, data: Path | None, launcher: LauncherInfo | None, started_s: float
) -> Job | None:
    """Return the job that continues a stopped run; ``None`` if the run is complete.

    A :class:`PerfError` says that it cannot be continued: it has another case, topology or software, or still runs.

    Args:
        path: The run's directory.
        case: Name of the case that the user expects; ``None`` accepts any case.
        data: Where the run's dataset is now; ``None`` if it is where it was.
        launcher: This process as one of the run's launchers; ``None`` if it is the only launcher.
        started_s: ``time.monotonic()`` at the start of this process.
    """
    directory = RunDirectory(path)
    record = read_record(directory.path)
    if case is not None and case != record.case.name:
        raise UsageError(f"the run in {path} is one of {record.case.name}, not of {case}", hint="leave the case out")
    if record.status.state == "completed":
        return None
    plan = read_plan(directory.plan)
    _require_same_topology(plan, launcher)
    if launcher is None:
        directory.require_ended()
    hint = "if its data have moved: perf train --resume RUN --data DIR"
    found = find_case(plan.case)
    root = found.data.require((data or plan.data_root).resolve(), hint)
    plan = plan.model_copy(update={"data_root": root, "started_s": started_s})
    session = bind(installed.find_vendor(plan.vendor))
    require_same_software(plan, record, found, session)
    return Job(plan=plan, session=session, case=found, out=path, launcher=launcher, resumes=True)


def run_job(job: Job, observer: JobObserver) -> JobResult:
    """Start the workers and wait until the run ends; a :class:`PerfError` says why it could not start."""
    require_torch()
    with StopSignals() as signals:
        try:
            group = None
            if job.launcher is not None:
                group = LauncherGroup(
                    job.launcher,
                    origin_s=job.plan.started_s,
                    idle_memory_bytes=job.plan.idle_memory_bytes,
                    tell=observer.notice,
                )
                if not job.launcher.is_first:
                    return _run_for_first_launcher(job, group, signals)
            return _run_as_first_launcher(job, group, signals, observer)
        except TrainingStopped:
            directory = RunDirectory(job.out or Path("runs") / job.plan.run_id)
            return JobResult(directory=directory, status=INTERRUPTED_STATUS, exit_code=1, record=None)


def process_start_s() -> float:
    """Return ``time.monotonic()`` at the start of this process, before its imports.

    Linux counts it in clock ticks since boot (proc(5), ``starttime``). On other systems psutil has a resolution of
    about one second.
    """
    try:
        ticks = int(Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19])
        age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError):
        age_s = time.time() - psutil.Process().create_time()
    return time.monotonic() - age_s


def _run_as_first_launcher(
    job: Job, group: LauncherGroup | None, signals: StopSignals, observer: JobObserver
) -> JobResult:
    """Prepare the run's directory, run the ranks of this launcher, and write the record."""
    plan = job.plan
    directory = RunDirectory(job.out or Path("runs") / plan.run_id)
    try:
        with group.announcing_errors() if group else nullcontext():
            warnings = _without_secret(group, observer) if group else []
            if group is not None:
                group.gather_requests(plan)
            plan = _prepare_directory(job, directory, observer)
            if group is not None:
                plan = _start_group(plan, directory, group, warnings)
        if not job.resumes:
            observer.started(plan, directory)
        with observer.training(plan, directory):
            status, exit_code = run_workers(plan, directory, signals, group)
    except TrainingStopped:
        if not (directory.held and directory.record.exists()):
            raise
        status, exit_code = INTERRUPTED_STATUS, 1
        finish(plan, directory, status, [])
    return JobResult(
        directory=directory,
        status=status,
        exit_code=exit_code,
        record=read_record(directory.record),
        checkpoint_step=newest_complete_step(directory.checkpoints),
    )


def _run_for_first_launcher(job: Job, group: LauncherGroup, signals: StopSignals) -> JobResult:
    """Run the ranks of this launcher with the first launcher's plan."""
    with group.announcing_errors():
        plan = group.request(job.plan)
        directory = RunDirectory(job.out or Path("runs") / plan.run_id)
        plan = group.join(directory, plan)
    status, exit_code = run_workers(plan, directory, signals, group)
    return JobResult(directory=directory, status=status, exit_code=exit_code, record=None)


def _prepare_directory(job: Job, directory: RunDirectory, observer: JobObserver) -> RunPlan:
    """Create the directory of a new run, or reuse that of a resumed run. Return the plan in the directory."""
    plan = job.plan
    if not job.resumes:
        directory.create()
        directory.write_plan(plan)
        lower = job.case.lower_is_better
        directory.write_record(planned_record(plan, job.session, metric=job.case.metric, lower_is_better=lower))
        return plan
    import torch

    resumed = resume(directory, torch.__version__, started_s=plan.started_s, data_root=plan.data_root)
    observer.resumed(resumed, directory, resumed.warnings[len(plan.warnings) :])
    return resumed


def _without_secret(group: LauncherGroup, observer: JobObserver) -> list[str]:
    """Return the warning that launchers on several machines do not know each other, and show it."""
    if os.environ.get(SECRET_VARIABLE) or is_loopback(group.launcher.host):
        return []
    place = f"{group.launcher.host}:{group.launcher.port}"
    warning = f"{SECRET_VARIABLE} is not set: everybody who reaches {place} could have taken part in this run"
    observer.notice(f"warning: {warning}")
    return [warning]


def _start_group(plan: RunPlan, directory: RunDirectory, group: LauncherGroup, warnings: Sequence[str]) -> RunPlan:
    """Let the other launchers prepare their directories and start. Return the plan that all launchers use."""
    group.announce(plan)
    new = [warning for warning in warnings if warning not in plan.warnings]
    if not group.gather_joined() and plan.shared_directory:
        new.append("the machines share no directory: no checkpoints were written, and the run cannot be resumed")
        plan = plan.model_copy(update={"shared_directory": False})
    if new:
        plan = plan.model_copy(update={"warnings": [*plan.warnings, *new]})
        directory.write_plan(plan)
        record = read_record(directory.path)
        directory.write_record(record.model_copy(update={"warnings": plan.warnings}))
    group.start(plan)
    return plan


def _require_same_topology(plan: RunPlan, launcher: LauncherInfo | None) -> None:
    topology = launcher.topology if launcher else Topology(nnodes=1, nproc_per_node=plan.topology.nproc_per_node)
    if topology != plan.topology:
        raise UsageError(
            f"the run was started as {plan.topology.label}, and this is {topology.label}",
            hint="resume it on as many machines and processes: perf train --resume RUN --nnodes N --nproc M "
            "--node-rank I --rdzv HOST:PORT on each machine",
        )
