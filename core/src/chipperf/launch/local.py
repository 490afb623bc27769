"""The ranks of this launcher: starting them, watching them, and finishing the run's record."""

from __future__ import annotations

import shutil
import signal
import time
from typing import TYPE_CHECKING, Any

from chipperf.errors import RecordError
from chipperf.launch.launcher_group import PEER_STOPPED, Decision, LauncherReport, cause_of, is_secondary
from chipperf.launch.rank_processes import RankProcesses
from chipperf.launch.resume import restart
from chipperf.launch.watch import DIRECTORY_DELETED, Watch
from chipperf.records.environment import read_cpu, read_machine
from chipperf.records.event_metrics import measured_in_events
from chipperf.records.machine_limits import take_limits
from chipperf.records.process_files import host_digest
from chipperf.records.schema import Failure, Missing, NodeResult, Power, Span, Status
from chipperf.records.store import read_record
from chipperf.run.directory import rank_log_name
from chipperf.run.failure import INTERRUPTED, first_failure, reported_recurring, stopped_from_outside
from chipperf.run.programs import describe_exit, program
from chipperf.run.progress import FINISHED, Progress, read_progress
from chipperf.run.ranks import job_ranks
from chipperf.run.rendezvous import LOOPBACK, listen
from chipperf.run.signals import STOP_SIGNALS
from chipperf.run.telemetry_process import measured_everywhere, read_telemetry, summarize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chipperf.launch.launcher_group import LauncherGroup
    from chipperf.launch.rank_processes import StopSignals
    from chipperf.records.schema import Number
    from chipperf.run.directory import RunDirectory
    from chipperf.run.plan import RunPlan, SessionPlan

WORKER_COMMAND = tuple(program("chipperf.train.worker_environment"))
"""Command that starts one rank's worker. Its argument is the run's directory."""

INTERRUPTED_STATUS = Status(
    state="interrupted",
    failure=Failure(failure_class=INTERRUPTED, message="stopped by a signal (Ctrl-C or a scheduler)"),
)

_KILLING_SIGNALS = (signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL)
"""Signals whose cause is the process itself or its machine. An abort may also follow the failure of another rank."""


def run_workers(
    plan: RunPlan,
    directory: RunDirectory,
    signals: StopSignals,
    group: LauncherGroup | None = None,
    *,
    worker: Sequence[str] = WORKER_COMMAND,
) -> tuple[Status, int]:
    """Start one worker per device, wait for all, finish the run's record, and return its status and exit code.

    The first rank that fails stops the others. Then the workers are restarted from the newest checkpoint, as often as
    the plan allows, unless the failure would recur. ``worker`` is the command that starts one, on ``directory``.
    """
    signals.interrupts = False
    restarts_left = plan.max_restarts
    while True:
        report = run_session(plan, directory, signals, group, worker)
        may_restart = restarts_left > 0 and not signals.requested
        decision, nodes = _decide(plan, directory, group, report, may_restart=may_restart)
        if decision.plan is None:
            break
        restarts_left -= 1
        plan = decision.plan
    if group is None or group.launcher.is_first:
        finish(plan, directory, decision.status, nodes)
    else:
        directory.leave(group.launcher.index, group.launcher.ranks)
    return decision.status, decision.exit_code


def run_session(
    plan: SessionPlan,
    directory: RunDirectory,
    signals: StopSignals,
    group: LauncherGroup | None,
    worker: Sequence[str],
) -> LauncherReport:
    """Let the ranks of this launcher work until they end or are stopped, and return how they ended."""
    processes = _start(plan, group, [*worker, str(directory.path)])
    with Watch(plan, directory, group, processes) as watch:
        died = processes.wait(signals, on_signal=watch.announce_interruption)
    ranks = group.launcher.ranks if group else range(plan.topology.world_size)
    verdict = watch.verdict
    # While a rank imports, a signal ends it silently.
    ended_by_signal = verdict is None and any(-number in STOP_SIGNALS for number in died.values())
    is_stopped = signals.requested or ended_by_signal or stopped_from_outside(directory, ranks, processes.told_s)
    status, code = _outcome(directory, ranks, died, is_stopped)
    if verdict is not None and not is_stopped:
        # The launcher has stopped the ranks, and only it knows why. Ranks that had completed or failed may stay so.
        is_told = verdict.failure_class == INTERRUPTED
        died_silently = status.failure is not None and status.failure.failure_class == "rank_died"
        if verdict.failure_class not in (INTERRUPTED, PEER_STOPPED) or died_silently or is_secondary(status):
            status = INTERRUPTED_STATUS if is_told else Status(state="failed", failure=verdict)
            code = 1
    node = _node_result(plan, directory, group, status)
    return LauncherReport(status=status, exit_code=code, recurs=not _may_restart(status, directory), node=node)


def _start(plan: SessionPlan, group: LauncherGroup | None, command: Sequence[str]) -> RankProcesses:
    """Start the ranks of this launcher. The launcher of rank 0 tells the others where the ranks' store listens."""
    if group is not None and group.launcher.worker is not None:
        ranks = [group.launcher.worker]
    else:
        ranks = job_ranks(plan.topology.nproc_per_node, machines=plan.topology.nnodes)
        if group:
            ranks = [ranks[number] for number in group.launcher.ranks]
    host = group.launcher.host if group else LOOPBACK
    if not ranks[0].is_main:
        return RankProcesses(command, ranks, host, group.store_port() if group else 0, None)
    with listen(host) as listener:
        port = listener.getsockname()[1]
        if group:
            group.announce_store(port)
        return RankProcesses(command, ranks, host, port, listener)


def _decide(
    plan: RunPlan, directory: RunDirectory, group: LauncherGroup | None, report: LauncherReport, *, may_restart: bool
) -> tuple[Decision, list[NodeResult]]:
    """Agree with the other launchers on why the ranks ended and whether to restart them."""
    if group is not None and not group.launcher.is_first:
        decision = group.report(report)
        if decision.plan is not None and not plan.shared_directory:
            directory.forget_failures()
            directory.write_plan(decision.plan)
        return decision, []
    reports = group.gather_reports(report) if group else [report]
    cause = cause_of(reports)
    new_plan = restart(plan, directory, cause.status) if may_restart and not cause.recurs else None
    decision = Decision(status=cause.status, exit_code=cause.exit_code, plan=new_plan)
    if group:
        group.decide(decision)
    return decision, [each.node for each in reports if each.node is not None]


def _may_restart(status: Status, directory: RunDirectory) -> bool:
    failure = status.failure
    if status.state != "failed" or failure is None or failure.failure_class == DIRECTORY_DELETED:
        return False
    return failure.rank is None or not reported_recurring(directory, failure.rank)


def _node_result(
    plan: SessionPlan, directory: RunDirectory, group: LauncherGroup | None, status: Status
) -> NodeResult | None:
    """Return the results of this launcher's machine; ``None`` with one machine or if another launcher returns them."""
    if group is None or plan.topology.nnodes == 1 or not group.launcher.speaks_for_node:
        return None
    readings = read_telemetry(directory.telemetry(group.launcher.node_rank))
    return NodeResult(
        node_rank=group.launcher.node_rank,
        machine=read_machine(),
        cpu=read_cpu(),
        e2e_time_s=_if_completed(status, time.monotonic() - group.origin_s),
        power=summarize(readings, group.idle_memory_bytes),
    )


def _if_completed(status: Status, seconds: float) -> Number:
    failed = Missing(missing="failed", reason=status.failure.failure_class if status.failure else "")
    return seconds if status.state == "completed" else failed


def finish(plan: RunPlan, directory: RunDirectory, status: Status, nodes: list[NodeResult]) -> None:
    """Write the status and the end-to-end time, which only the launcher knows, and the machine's limits."""
    ended_s = time.monotonic()
    if not directory.plan.exists():
        raise RecordError(
            f"{directory.path} was deleted during the run", hint="there is no record; start the run again"
        )
    record = read_record(directory.record)
    if record.status.state == "running":
        record = measured_in_events(record, directory.events)
    spans = list(record.metrics.spans)
    if spans:
        last_end_s = max(span.start_s + span.seconds for span in spans)
        teardown_s = max(0.0, ended_s - plan.origin_s - last_end_s)
        spans.append(Span(name="teardown", start_s=last_end_s, seconds=teardown_s))
    changes: dict[str, Any] = {"spans": spans, "e2e_time_s": _if_completed(status, ended_s - plan.origin_s)}
    if nodes and isinstance(record.metrics.power, Power):
        changes |= measured_everywhere(record.metrics, [node.power for node in nodes])
    metrics = record.metrics.model_copy(update=changes)
    limits = (
        take_limits(directory.path, record, host_digest()) if status.state == "completed" else record.machine_limits
    )
    results = {
        "status": status,
        "metrics": metrics,
        "nodes": nodes,
        "machine_limits": limits,
        "evidence": directory.evidence(),
    }
    directory.write_record(record.model_copy(update=results))
    directory.release_reserve()
    if status.state == "completed":
        shutil.rmtree(directory.checkpoints, ignore_errors=True)


def _outcome(
    directory: RunDirectory, ranks: Sequence[int], died: dict[int, int], interrupted: bool
) -> tuple[Status, int]:
    if interrupted:
        return INTERRUPTED_STATUS, 1
    has_finished = 0 in ranks and (read_progress(directory.progress) or Progress()).phase == FINISHED
    if not died and 0 in ranks and not has_finished:
        # A library may end a process with code 0, and then there are no results.
        died = {0: 0}
    if has_finished and died.keys() == {0} and not directory.failure(0).exists():
        record, how = read_record(directory.record), describe_exit(died[0])
        warning = f"the process of rank 0 {how} after training: an observer or a library failed at its end"
        directory.write_record(record.model_copy(update={"warnings": [*record.warnings, warning]}))
        died = {}
    if not died:
        return Status(state="completed"), 0
    silent = [rank for rank in sorted(died) if not directory.failure(rank).exists()]
    killed = [rank for rank in silent if -died[rank] in _KILLING_SIGNALS]
    reported = first_failure(directory, ranks)
    # After a killed rank, the others report only that they lost a peer or that they were stopped.
    if not killed and reported and reported[0].failure_class != INTERRUPTED:
        return Status(state="failed", failure=reported[0]), reported[1]
    if not silent:
        return INTERRUPTED_STATUS, 1
    # A peer's death may crash a process but rarely sends SIGKILL. SIGKILL comes from outside, so it came first.
    rank = min(killed or silent[:1], key=lambda rank: -died[rank] != signal.SIGKILL)
    code = died[rank]
    failure = Failure(
        failure_class="rank_died",
        message=f"the process {describe_exit(code) or 'exited with code 0'} without saying why",
        rank=rank,
        hint=f"see {rank_log_name(rank)}; SIGKILL usually means that memory ran out",
    )
    return Status(state="failed", failure=failure), 1
