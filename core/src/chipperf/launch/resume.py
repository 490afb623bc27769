"""Resuming and restarting runs whose processes have ended."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import chipperf
from chipperf.errors import RecordError, UsageError
from chipperf.records.checkpoints import newest_valid, remove
from chipperf.records.schema import METRICS_VERSION, Failure, Interruption, Missing, Status
from chipperf.records.store import read_record
from chipperf.run.plan import read_plan
from chipperf.run.progress import read_progress

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from chipperf.cases.base import Case
    from chipperf.plugin.session import Session
    from chipperf.records.schema import Record
    from chipperf.run.directory import RunDirectory
    from chipperf.run.plan import RunPlan


def require_same_software(plan: RunPlan, record: Record, case: Case, session: Session) -> None:
    """Check that a run continues with the versions of case, chipperf, metrics and plugin that it was started with.

    A record describes one set of software. Another one is a :class:`UsageError`. A plan that does not agree with the
    record, which would go on saying what was planned first, is a :class:`RecordError`.
    """
    plugin = record.vendor.plugin
    _require_same(f"case {plan.case}", plan.case_version, case.version)
    _require_same("chipperf", record.chipperf_version, chipperf.__version__)
    _require_same("the definitions of the metrics", str(record.metrics_version), str(METRICS_VERSION))
    _require_same(plugin.name, plugin.version, session.entry.version)
    interruptions = record.interruptions
    facts = {
        "run_id": record.run_id,
        "created_at": record.created_at,
        "session": len(interruptions) + 1,
        "session_started_at": interruptions[-1].resumed_at if interruptions else plan.session_started_at,
        "vendor": record.vendor.name,
        "case": record.case.name,
        "preset": record.case.preset,
        "precision": record.precision.requested,
        "hyperparameters": record.hyperparameters,
        "limits": record.limits,
        "topology": record.topology,
    }
    if differing := [name for name, recorded in facts.items() if getattr(plan, name) != recorded]:
        raise RecordError(
            f"the plan and the record of run {record.run_id} do not agree on: {', '.join(differing)}",
            hint="one of the files was changed; start a new run",
        )


def resume(directory: RunDirectory, torch_version: str, *, started_s: float, data_root: Path) -> RunPlan:
    """Prepare a stopped run to continue: write its new plan and record, and return the plan.

    ``started_s`` is ``time.monotonic()`` at the start of this process, and ``data_root`` the place of the dataset now.
    A run that still runs, or another torch, is a :class:`UsageError`; no intact checkpoint is a :class:`RecordError`.
    """
    plan, record = read_plan(directory.plan), read_record(directory.path)
    planned_s = (plan.session_started_at or plan.created_at).timestamp()
    stopped_at = datetime.fromtimestamp(directory.last_sign_of_life_s(planned_s), timezone.utc)
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
    _require_same("torch", manifest.torch, torch_version)
    directory.reopen()
    if read_plan(directory.plan) != plan:
        raise UsageError(f"the run in {directory.path} was resumed in the meantime", hint="resume it again")
    started_at = datetime.now(timezone.utc) - timedelta(seconds=time.monotonic() - started_s)
    interruption = _interruption(plan, directory, record.status, stopped_at, started_at, manifest.step)
    earlier_s = sum(each.session_seconds for each in (*record.interruptions, interruption))
    plan = plan.model_copy(update={"started_s": started_s, "earlier_s": earlier_s, "data_root": data_root})
    return _continue(plan, directory, record, interruption, checkpoint.name, faults)


def restart(plan: RunPlan, directory: RunDirectory, status: Status) -> RunPlan:
    """Prepare the next session of a launcher after its workers died. Without a checkpoint the run starts again.

    ``plan`` and ``status`` are those of the session that ended.
    """
    record, now = read_record(directory.path), datetime.now(timezone.utc)
    found, faults = newest_valid(directory.checkpoints)
    directory.forget_failures()
    interruption = _interruption(plan, directory, status, now, now, found[1].step if found else 0)
    return _continue(plan, directory, record, interruption, found[0].name if found else None, faults)


def _require_same(what: str, before: str, now: str) -> None:
    if before != now:
        raise UsageError(
            f"the run was started with {what} {before}, and this is {now}",
            hint=f"install {before} again to resume it, or start a new run",
        )


def _interruption(
    plan: RunPlan, directory: RunDirectory, status: Status, stopped_at: datetime, resumed_at: datetime, step: int
) -> Interruption:
    progress = read_progress(directory.progress)
    no_progress = Missing(missing="unknown", reason="the run left no progress")
    return Interruption(
        stopped_at=stopped_at,
        session_seconds=_seconds(plan.session_started_at or plan.created_at, stopped_at),
        cause=status.failure or Failure(failure_class="unknown", message="the run does not say why it stopped"),
        resumed_at=resumed_at,
        gap_seconds=_seconds(stopped_at, resumed_at),
        step=step,
        lost_steps=max(0, progress.step - step) if progress else no_progress,
    )


def _seconds(start: datetime, end: datetime) -> float:
    """Return the time between two readings of the wall clock, which may have been set back in between."""
    return max(0.0, (end - start).total_seconds())


def _continue(
    plan: RunPlan,
    directory: RunDirectory,
    record: Record,
    interruption: Interruption,
    checkpoint: str | None,
    faults: Sequence[tuple[Path, str]],
) -> RunPlan:
    """Write the plan and the record of the session after an interruption, and return the plan."""
    for path, _ in faults:
        remove(path)
    instead = checkpoint or "the beginning"
    plan = plan.model_copy(
        update={
            "session": plan.session + 1,
            "session_started_at": interruption.resumed_at,
            "checkpoint": checkpoint,
            "warnings": [*plan.warnings, *(f"{message}; resumed from {instead} instead" for _, message in faults)],
        }
    )
    directory.write_plan(plan)
    directory.progress.unlink(missing_ok=True)
    # Keep the measurements of earlier sessions: the next session may end before it has measured anything.
    changes = {
        "status": Status(state="running"),
        "interruptions": [*record.interruptions, interruption],
        "warnings": plan.warnings,
    }
    directory.write_record(record.model_copy(update=changes))
    return plan
