"""Resuming and restarting runs whose processes have ended."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import chipperf
from chipperf.errors import RecordError, UsageError
from chipperf.records.checkpoints import newest_valid, remove
from chipperf.records.files import write_atomically
from chipperf.records.schema import METRICS_VERSION, Failure, Interruption, Missing, Status
from chipperf.records.store import read_record
from chipperf.run.plan import read_plan
from chipperf.run.progress import read_progress

if TYPE_CHECKING:
    from chipperf.cases.base import Case
    from chipperf.plugin.session import Session
    from chipperf.records.checkpoints import CheckpointManifest
    from chipperf.records.schema import Record
    from chipperf.run.directory import RunDirectory
    from chipperf.run.plan import RunPlan

UNKNOWN_CAUSE = Failure(failure_class="unknown", message="the run does not say why it stopped")


def require_same_software(plan: RunPlan, record: Record, case: Case, session: Session) -> None:
    """Check that a run continues with the software it was started with: a record describes one set of software.

    Raises:
        UsageError: The case, chipperf, the definitions of metrics or the plugin now has another version.
    """
    plugin = record.vendor.plugin
    for what, before, now in (
        (f"case {plan.case}", plan.case_version, case.version),
        ("chipperf", record.chipperf_version, chipperf.__version__),
        ("the definitions of the metrics", str(record.metrics_version), str(METRICS_VERSION)),
        (plugin.name, plugin.version, session.entry.version),
    ):
        if before != now:
            raise UsageError(
                f"the run was begun with {what} {before}, and this is {now}",
                hint=f"install {before} again to resume it, or start a new run",
            )


def require_same_torch(manifest: CheckpointManifest, torch_version: str) -> None:
    """Check that a run continues with the same version of torch.

    Raises:
        UsageError: Another version wrote the checkpoint.
    """
    if manifest.torch != torch_version:
        raise UsageError(
            f"the run was begun with torch {manifest.torch}, and this is {torch_version}",
            hint=f"install {manifest.torch} again to resume it, or start a new run",
        )


def resume(directory: RunDirectory, torch_version: str, *, started_s: float) -> RunPlan:
    """Prepare a stopped run to continue: write its new plan and record, and return the plan.

    Args:
        directory: The run's directory.
        torch_version: Installed version of torch.
        started_s: ``time.monotonic()`` at the start of this process.

    Raises:
        UsageError: The run's processes still run, torch has another version, or the directory cannot be written.
        RecordError: No checkpoint is intact.
    """
    plan, record = read_plan(directory.plan), read_record(directory.path)
    stopped_at = datetime.fromtimestamp(directory.last_sign_of_life_s(), timezone.utc)
    found, faults = newest_valid(directory.checkpoints)
    if found is None:
        raise RecordError(
            f"the run in {directory.path} has no checkpoint to resume from"
            + "".join(f"; {message}" for _, message in faults),
            hint="start a new run; 'perf train --help' says how often checkpoints are written",
        )
    checkpoint, manifest = found
    if manifest.run_id != plan.run_id or manifest.world_size != plan.topology.world_size:
        raise RecordError(
            f"checkpoint {checkpoint.name} belongs to run {manifest.run_id} on {manifest.world_size} ranks, not to "
            f"{plan.run_id} on {plan.topology.world_size}",
            hint="the directory was put together from several runs; start a new one",
        )
    require_same_torch(manifest, torch_version)
    directory.reopen()
    started_at = datetime.now(timezone.utc) - timedelta(seconds=time.monotonic() - started_s)
    for path, _ in faults:
        remove(path)
    interruption = Interruption(
        stopped_at=stopped_at,
        session_seconds=_seconds(_session_start(plan), stopped_at),
        cause=record.status.failure or UNKNOWN_CAUSE,
        resumed_at=started_at,
        gap_seconds=_seconds(stopped_at, started_at),
        step=manifest.step,
        lost_steps=_lost_steps(directory, manifest.step),
    )
    interruptions = [*record.interruptions, interruption]
    plan = plan.model_copy(
        update={
            "started_s": started_s,
            "session": plan.session + 1,
            "session_started_at": started_at,
            "earlier_s": sum(each.session_seconds for each in interruptions),
            "checkpoint": checkpoint.name,
            "warnings": [*plan.warnings, *(_fallback(message, checkpoint.name) for _, message in faults)],
        }
    )
    _continue(plan, directory, record, interruptions)
    return plan


def restart(plan: RunPlan, directory: RunDirectory, status: Status) -> RunPlan:
    """Prepare the next session of a launcher after its workers died. Without a checkpoint the run starts again.

    Args:
        plan: Plan of the session that ended.
        directory: The run's directory.
        status: How the session ended.
    """
    record, now = read_record(directory.path), datetime.now(timezone.utc)
    found, faults = newest_valid(directory.checkpoints)
    for path, _ in faults:
        remove(path)
    step = found[1].step if found else 0
    interruption = Interruption(
        stopped_at=now,
        session_seconds=_seconds(_session_start(plan), now),
        cause=status.failure or UNKNOWN_CAUSE,
        resumed_at=now,
        gap_seconds=0.0,
        step=step,
        lost_steps=_lost_steps(directory, step),
    )
    name = found[0].name if found else None
    plan = plan.model_copy(
        update={
            "session": plan.session + 1,
            "session_started_at": now,
            "checkpoint": name,
            "warnings": [*plan.warnings, *(_fallback(message, name or "the beginning") for _, message in faults)],
        }
    )
    directory.forget_failures()
    _continue(plan, directory, record, [*record.interruptions, interruption])
    return plan


def _continue(plan: RunPlan, directory: RunDirectory, record: Record, interruptions: list[Interruption]) -> None:
    write_atomically(directory.plan, plan.model_dump_json(indent=2) + "\n")
    directory.progress.unlink(missing_ok=True)
    # Keep the measurements of earlier sessions: the next session may end before it has measured anything.
    directory.write_record(
        record.model_copy(
            update={
                "status": Status(state="running"),
                "interruptions": interruptions,
                "warnings": plan.warnings,
            }
        )
    )


def _fallback(message: str, instead: str) -> str:
    return f"{message}; resumed from {instead} instead"


def _session_start(plan: RunPlan) -> datetime:
    return plan.session_started_at or plan.created_at


def _seconds(start: datetime, end: datetime) -> float:
    """Return the time between two readings of the wall clock, which may have been set back in between."""
    return max(0.0, (end - start).total_seconds())


def _lost_steps(directory: RunDirectory, step: int) -> int | Missing:
    progress = read_progress(directory.progress)
    if progress is None:
        return Missing(missing="unknown", reason="the run left no progress")
    return max(0, progress.step - step)
