"""Workers on this machine, started and watched by torch's elastic launcher (the engine behind ``torchrun``)."""

from __future__ import annotations

import logging
import signal
import sys
import tempfile
import time
from typing import TYPE_CHECKING

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from chipperf.launch.failure import INTERRUPTED, first_failure, rank_log_name, reported_recurring
from chipperf.launch.resume import restart
from chipperf.records.schema import Failure, Missing, Span, Status
from chipperf.records.store import RunDirectory, read_record

if TYPE_CHECKING:
    from chipperf.launch.plan import RunPlan

_WATCH_INTERVAL_S = 0.2

_KILLING_SIGNALS = (signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL)
"""Signals by which a process dies of itself or of its machine; an abort may also follow a peer's failure."""


def run_workers(plan: RunPlan, directory: RunDirectory) -> tuple[Status, int]:
    """Start one worker per device, wait for all of them, and finish the run's record.

    The first rank that fails stops the others. As often as the plan allows they are started again then, from the newest
    checkpoint, unless the failure would recur.

    Args:
        plan: The run.
        directory: Its directory, with the plan in it.

    Returns:
        How the run ended, and the exit code that says so.
    """
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    restarts_left = plan.max_restarts
    died: dict[int, int] = {}
    try:
        while died := _launch(plan, directory):
            status, _ = _outcome(plan, directory, died, interrupted=False)
            if not restarts_left or not _may_restart(status, directory):
                break
            restarts_left -= 1
            plan = restart(plan, directory, status)
    except (SignalException, KeyboardInterrupt):
        return _finish(plan, directory, died, interrupted=True)
    return _finish(plan, directory, died, interrupted=False)


def _launch(plan: RunPlan, directory: RunDirectory) -> dict[int, int]:
    """Start the workers and wait for them; return the exit codes of those that failed, by rank."""
    with tempfile.TemporaryDirectory(prefix="chipperf-launch-") as scratch:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=plan.topology.nproc_per_node,
            run_id=plan.run_id,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            # Without it the workers look for each other under this machine's name, which need not resolve.
            local_addr="localhost",
            # The launcher itself restarts: it has to choose a checkpoint, and to know why the workers died.
            max_restarts=0,
            monitor_interval=_WATCH_INTERVAL_S,
            logs_specs=DefaultLogsSpecs(log_dir=scratch),
        )
        try:
            elastic_launch(config, sys.executable)("-m", "chipperf.launch.worker", str(directory.path))
        except ChildFailedError as error:
            return {rank: failure.exitcode for rank, failure in error.failures.items()}
    return {}


def _may_restart(status: Status, directory: RunDirectory) -> bool:
    failure = status.failure
    if status.state != "failed" or failure is None:
        return False
    return failure.rank is None or not reported_recurring(directory, failure.rank)


def _finish(plan: RunPlan, directory: RunDirectory, died: dict[int, int], interrupted: bool) -> tuple[Status, int]:
    """Write the status and the end-to-end time, which only the launcher can know."""
    ended_s = time.monotonic()
    status, code = _outcome(plan, directory, died, interrupted)
    record = read_record(directory.record)
    spans = list(record.metrics.spans)
    if spans:
        last_end_s = plan.origin_s + max(span.start_s + span.seconds for span in spans)
        spans.append(Span(name="teardown", start_s=last_end_s - plan.origin_s, seconds=max(0.0, ended_s - last_end_s)))
    e2e_time_s = ended_s - plan.origin_s
    failed = Missing(missing="failed", reason=status.failure.failure_class if status.failure else "")
    metrics = record.metrics.model_copy(
        update={"spans": spans, "e2e_time_s": e2e_time_s if status.state == "completed" else failed}
    )
    directory.write_record(record.model_copy(update={"status": status, "metrics": metrics}))
    directory.release_reserve()
    if status.state == "completed":
        directory.remove_checkpoints()
    return status, code


def _outcome(plan: RunPlan, directory: RunDirectory, died: dict[int, int], interrupted: bool) -> tuple[Status, int]:
    if not died and not interrupted:
        return Status(state="completed"), 0
    silent = {rank: code for rank, code in sorted(died.items()) if not directory.failure(rank).exists()}
    killed = {rank: code for rank, code in silent.items() if -code in _KILLING_SIGNALS}
    reported = first_failure(directory, plan.topology.world_size)
    if not interrupted:
        # What the others report then is that their peer left them, or that they were stopped because of it.
        if killed:
            # A peer's death can crash a process, but hardly ever kill it: SIGKILL comes from outside, and came first.
            return _silent_death(*min(killed.items(), key=lambda death: -death[1] != signal.SIGKILL))
        if reported and reported[0].failure_class != INTERRUPTED:
            return Status(state="failed", failure=reported[0]), reported[1]
        if silent:
            return _silent_death(*next(iter(silent.items())))
    failure = Failure(failure_class=INTERRUPTED, message="stopped by a signal (Ctrl-C or a scheduler)")
    return Status(state="interrupted", failure=failure), 1


def _silent_death(rank: int, exit_code: int) -> tuple[Status, int]:
    how = f"was killed by {signal.Signals(-exit_code).name}" if exit_code < 0 else f"exited with code {exit_code}"
    failure = Failure(
        failure_class="rank_died",
        message=f"the process {how} without saying why",
        rank=rank,
        hint=f"see {rank_log_name(rank)}; SIGKILL usually means that memory ran out",
    )
    return Status(state="failed", failure=failure), 1
