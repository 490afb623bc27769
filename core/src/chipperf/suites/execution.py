"""Execution of a suite's runs, one after another; a failed run does not stop the suite."""

from __future__ import annotations

import signal
import time
from contextlib import nullcontext
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Protocol

from chipperf.errors import RecordError
from chipperf.records.store import read_record
from chipperf.suites.state import Attempt

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from chipperf.launch.sequence import ProcessSequence
    from chipperf.suites.leader import Leader
    from chipperf.suites.state import SuiteDirectory, SuiteRun, SuiteState

_ERROR_PREFIX = "perf: error: "
_OUTPUT_TAIL_BYTES = 8192


class Overview(Protocol):
    """Shows the user the progress of a suite."""

    def began(self, run: SuiteRun) -> None:
        """Show that a run has started."""

    def ended(self, run: SuiteRun) -> None:
        """Show how a run ended."""


def execute(
    runs: Sequence[SuiteRun],
    state: SuiteState,
    directory: SuiteDirectory,
    sequence: ProcessSequence,
    overview: Overview,
    *,
    command: Sequence[str],
    leader: Leader | None = None,
) -> None:
    """Execute runs of a suite. Write the state to disk after each change.

    Args:
        runs: The runs of ``state`` to execute.
        state: State of all runs. It is changed.
        directory: The suite's directory.
        sequence: Starts the processes and handles signals.
        overview: Shows each start and end.
        command: Command that starts a run, without its arguments.
        leader: Announces the current run to the other machines; ``None`` with one machine.

    Raises:
        RecordError: The state cannot be written.
    """
    for run in runs:
        if sequence.interrupted:
            return
        attempt = directory.next_attempt(run)
        where = directory.path / attempt.directory
        number = sum(len(each.attempts) for each in state.runs)
        joint, place, port = None, [], None
        if leader is not None and run.planned.nnodes > 1:
            joint = leader.joint_attempt(run.planned, attempt, number=number)
            place, port = leader.machine.options(joint.port), joint.port
        run.attempts.append(Attempt(directory=attempt.directory, started_at=datetime.now(timezone.utc), port=port))
        run.state = "running"
        directory.write(state)
        overview.began(run)
        start_s = time.monotonic()
        output = log_of(where)
        output.parent.mkdir(parents=True, exist_ok=True)
        arguments = [*directory.arguments(run.planned, attempt), *place]
        with leader.announced(joint) if leader and joint else nullcontext():
            code = sequence.run([*command, *arguments], output=output)
        if code is None:
            # A signal came before the process started.
            run.attempts.pop()
            run.state = "interrupted" if run.attempts else "waiting"
        else:
            run.state = "completed" if code == 0 else "interrupted" if sequence.interrupted else "failed"
            run.attempts[-1] = run.attempts[-1].model_copy(
                update={
                    "seconds": time.monotonic() - start_s,
                    "exit_code": code,
                    "error": None if code == 0 else _why(code, where),
                }
            )
        directory.write(state)
        overview.ended(run)


def log_of(where: Path, node_rank: int = 0) -> Path:
    """Return the file for the output of ``perf train``.

    It is outside the run's directory, because a run that fails early does not create its directory.
    """
    return where.with_name(f"{where.name}.node{node_rank}.log" if node_rank else f"{where.name}.log")


def _why(code: int, where: Path) -> str:
    """Return the cause of a failure from the record, or else from the output."""
    try:
        failure = read_record(where).status.failure
        if failure is not None:
            return failure.message
    except RecordError:
        pass
    return printed_cause(code, log_of(where))


def printed_cause(code: int, log: Path) -> str:
    """Return the cause of a failure from the last lines of output, or else from the exit code."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _OUTPUT_TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        lines = []
    for line in reversed(lines):
        if line.startswith(_ERROR_PREFIX):
            return line.removeprefix(_ERROR_PREFIX)
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}" + (f": {lines[-1]}" if lines else "")
