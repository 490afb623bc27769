"""Workers on this machine, started and watched by torch's elastic launcher (the engine behind ``torchrun``)."""

from __future__ import annotations

import logging
import signal
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from chipperf.errors import RecordError
from chipperf.launch.launcher_group import PEER_STOPPED, Decision, LauncherReport, cause_of
from chipperf.launch.resume import restart
from chipperf.launch.single import run_single_worker
from chipperf.launch.watch import DIRECTORY_DELETED, Watch
from chipperf.records.environment import read_cpu, read_machine
from chipperf.records.schema import Failure, Missing, NodeResult, Power, Span, Status
from chipperf.records.store import read_record
from chipperf.run.directory import rank_log_name
from chipperf.run.failure import INTERRUPTED, first_failure, reported_recurring
from chipperf.run.telemetry_process import measured_everywhere, read_telemetry, summarize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chipperf.launch.launcher_group import LauncherGroup
    from chipperf.run.directory import RunDirectory
    from chipperf.run.plan import RunPlan

WORKER_COMMAND = (sys.executable, "-m", "chipperf.train.worker_environment")
"""Command that starts one rank's worker. Its argument is the run's directory."""

_WATCH_INTERVAL_S = 0.2

_RENDEZVOUS_S = 120
"""Time within which all launchers must start their workers after they have met."""

_INTERRUPTED = Status(
    state="interrupted",
    failure=Failure(failure_class=INTERRUPTED, message="stopped by a signal (Ctrl-C or a scheduler)"),
)

_KILLING_SIGNALS = (signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL)
"""Signals whose cause is the process itself or its machine. An abort may also follow the failure of another rank."""


def run_workers(
    plan: RunPlan,
    directory: RunDirectory,
    group: LauncherGroup | None = None,
    *,
    worker: Sequence[str] = WORKER_COMMAND,
) -> tuple[Status, int]:
    """Start one worker per device, wait for all of them, and finish the run's record.

    The first rank that fails stops the others. Then the workers are restarted from the newest checkpoint, as often as
    the plan allows, unless the failure would recur.

    Args:
        plan: The run.
        directory: The run's directory, which contains the plan.
        group: The launchers of all machines. The first one writes the record.
        worker: Command that starts one worker. The run's directory is added as its argument.

    Returns:
        Status of the run and its exit code.
    """
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    restarts_left = plan.max_restarts
    while True:
        report = _run_session(plan, directory, group, worker)
        decision, nodes = _decide(plan, directory, group, report, may_restart=restarts_left > 0)
        if decision.plan is None:
            break
        restarts_left -= 1
        plan = decision.plan
    if group is None or group.launcher.is_first:
        _finish(plan, directory, decision.status, nodes)
    else:
        directory.leave(group.launcher.index, group.launcher.ranks)
    return decision.status, decision.exit_code


def _run_session(
    plan: RunPlan, directory: RunDirectory, group: LauncherGroup | None, worker: Sequence[str]
) -> LauncherReport:
    """Let the workers of this launcher train until they end or are stopped, and return how they ended."""
    ranks = group.launcher.ranks if group else range(plan.topology.world_size)
    died: dict[int, int] = {}
    interrupted = False
    with Watch(plan, directory, group) as watch:
        try:
            died = _launch(plan, group, [*worker, str(directory.path)])
        except (SignalException, KeyboardInterrupt):
            interrupted = True
    status, code = _outcome(directory, ranks, died, interrupted)
    verdict = watch.verdict
    if verdict is not None and not interrupted:
        status, code = _judged(verdict, status, code)
    recurs = not _may_restart(status, directory)
    return LauncherReport(
        status=status, exit_code=code, recurs=recurs, node=_node_result(plan, directory, group, status)
    )


def _judged(verdict: Failure, status: Status, code: int) -> tuple[Status, int]:
    """Return the status of ranks that the launcher stopped. The ranks do not know the reason; the launcher does."""
    if verdict.failure_class == INTERRUPTED:
        return (_INTERRUPTED, 1) if status.state != "completed" else (status, code)
    if verdict.failure_class == PEER_STOPPED and status.state == "completed":
        return status, code
    return Status(state="failed", failure=verdict), 1


def _decide(
    plan: RunPlan, directory: RunDirectory, group: LauncherGroup | None, report: LauncherReport, *, may_restart: bool
) -> tuple[Decision, list[NodeResult]]:
    """Agree with the other launchers on why the ranks ended and whether to restart them."""
    if group is not None and not group.launcher.is_first:
        decision = group.report(report)
        if decision.plan is not None and decision.port is not None:
            if not plan.shared_directory:
                directory.forget_failures()
                directory.write_plan(decision.plan.model_dump_json(indent=2) + "\n")
            group.follow_session(decision.port)
        return decision, []
    reports = group.gather_reports(report) if group else [report]
    cause = cause_of(reports)
    status = cause.status
    nodes = [each.node for each in reports if each.node is not None]
    if not may_restart or cause.recurs:
        decision = Decision(status=status, exit_code=cause.exit_code)
        if group:
            group.decide(decision)
        return decision, nodes
    plan = restart(plan, directory, status)
    decision = Decision(status=status, exit_code=cause.exit_code, plan=plan)
    if group:
        before, port = group.session, group.open_session()
        group.decide(decision.model_copy(update={"port": port}), through=before)
    return decision, nodes


def _launch(plan: RunPlan, group: LauncherGroup | None, command: Sequence[str]) -> dict[int, int]:
    """Start the workers and wait for them. Return the exit codes of failed workers by rank."""
    if group is not None and group.launcher.worker is not None:
        return run_single_worker(group.launcher.worker, command, group.session.host, group.session.port)
    with tempfile.TemporaryDirectory(prefix="chipperf-launch-") as scratch:
        config = LaunchConfig(
            min_nodes=plan.topology.nnodes,
            max_nodes=plan.topology.nnodes,
            nproc_per_node=plan.topology.nproc_per_node,
            run_id=plan.run_id,
            # Our launcher restarts workers itself: it must choose a checkpoint and know why the workers died.
            max_restarts=0,
            monitor_interval=_WATCH_INTERVAL_S,
            logs_specs=DefaultLogsSpecs(log_dir=scratch),
            **_rendezvous(group),
        )
        try:
            elastic_launch(config, command[0])(*command[1:])
        except ChildFailedError as error:
            return {rank: failure.exitcode for rank, failure in error.failures.items()}
    return {}


def _rendezvous(group: LauncherGroup | None) -> dict[str, Any]:
    """Return the arguments with which the elastic launchers of a run find each other."""
    if group is None:
        # Without local_addr the workers search for each other by this machine's name, which may not resolve.
        return {"rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0", "local_addr": "localhost"}
    host = f"[{group.session.host}]" if ":" in group.session.host else group.session.host
    return {
        "rdzv_backend": "static",
        "rdzv_endpoint": f"{host}:{group.session.port}",
        "rdzv_configs": {"rank": group.launcher.index, "timeout": _RENDEZVOUS_S},
    }


def _may_restart(status: Status, directory: RunDirectory) -> bool:
    failure = status.failure
    if status.state != "failed" or failure is None or failure.failure_class == DIRECTORY_DELETED:
        return False
    return failure.rank is None or not reported_recurring(directory, failure.rank)


def _node_result(
    plan: RunPlan, directory: RunDirectory, group: LauncherGroup | None, status: Status
) -> NodeResult | None:
    """Return the results of this launcher's machine; ``None`` with one machine or if another launcher returns them."""
    if group is None or plan.topology.nnodes == 1 or not group.launcher.speaks_for_node:
        return None
    readings = read_telemetry(directory.telemetry(group.launcher.node_rank))
    failed = Missing(missing="failed", reason=status.failure.failure_class if status.failure else "")
    return NodeResult(
        node_rank=group.launcher.node_rank,
        machine=read_machine(),
        cpu=read_cpu(),
        e2e_time_s=time.monotonic() - group.origin_s if status.state == "completed" else failed,
        power=summarize(readings, group.idle_memory_bytes),
    )


def _finish(plan: RunPlan, directory: RunDirectory, status: Status, nodes: list[NodeResult]) -> None:
    """Write the status and the end-to-end time. Only the launcher knows them.

    Raises:
        RecordError: The directory does not exist any more.
    """
    ended_s = time.monotonic()
    if not directory.plan.exists():
        raise RecordError(
            f"{directory.path} was deleted while the run was going on", hint="there is no record; start the run again"
        )
    record = read_record(directory.record)
    spans = list(record.metrics.spans)
    if spans:
        last_end_s = plan.origin_s + max(span.start_s + span.seconds for span in spans)
        spans.append(Span(name="teardown", start_s=last_end_s - plan.origin_s, seconds=max(0.0, ended_s - last_end_s)))
    e2e_time_s = ended_s - plan.origin_s
    failed = Missing(missing="failed", reason=status.failure.failure_class if status.failure else "")
    changes: dict[str, Any] = {"spans": spans, "e2e_time_s": e2e_time_s if status.state == "completed" else failed}
    if nodes and isinstance(record.metrics.power, Power):
        changes |= measured_everywhere(record.metrics, [node.power for node in nodes])
    directory.write_record(
        record.model_copy(
            update={"status": status, "metrics": record.metrics.model_copy(update=changes), "nodes": nodes}
        )
    )
    directory.release_reserve()
    if status.state == "completed":
        directory.remove_checkpoints()


def _outcome(
    directory: RunDirectory, ranks: Sequence[int], died: dict[int, int], interrupted: bool
) -> tuple[Status, int]:
    if not died and not interrupted:
        return Status(state="completed"), 0
    silent = {rank: code for rank, code in sorted(died.items()) if not directory.failure(rank).exists()}
    killed = {rank: code for rank, code in silent.items() if -code in _KILLING_SIGNALS}
    reported = first_failure(directory, ranks)
    if not interrupted:
        # The other ranks then report only that they lost a peer or that they were stopped.
        if killed:
            # A peer's death may crash a process but rarely sends SIGKILL. SIGKILL comes from outside, so it came first.
            return _silent_death(*min(killed.items(), key=lambda death: -death[1] != signal.SIGKILL))
        if reported and reported[0].failure_class != INTERRUPTED:
            return Status(state="failed", failure=reported[0]), reported[1]
        if silent:
            return _silent_death(*next(iter(silent.items())))
    return _INTERRUPTED, 1


def _silent_death(rank: int, exit_code: int) -> tuple[Status, int]:
    how = f"was killed by {signal.Signals(-exit_code).name}" if exit_code < 0 else f"exited with code {exit_code}"
    failure = Failure(
        failure_class="rank_died",
        message=f"the process {how} without saying why",
        rank=rank,
        hint=f"see {rank_log_name(rank)}; SIGKILL usually means that memory ran out",
    )
    return Status(state="failed", failure=failure), 1
