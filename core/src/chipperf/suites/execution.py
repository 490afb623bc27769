"""Doing a suite's runs, one after another; one that fails keeps no other from its turn."""

from __future__ import annotations

import signal
import time
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Protocol

from chipperf.errors import RecordError
from chipperf.records.store import read_record
from chipperf.suites.state import Attempt

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from chipperf.launch.sequence import ProcessSequence
    from chipperf.suites.leader import Leader
    from chipperf.suites.state import NextAttempt, SuiteDirectory, SuiteRun, SuiteState

_ERROR_PREFIX = "perf: error: "
_OUTPUT_TAIL_BYTES = 8192


class Overview(Protocol):
    """Whoever shows how far a suite is."""

    def began(self, run: SuiteRun) -> None:
        """Show that a run has begun."""

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
    """Do runs of a suite; after each change the state is on disk.

    Args:
        runs: Those to do, of ``state``.
        state: All of them; changed.
        directory: The suite's.
        sequence: Starts the processes, and knows of signals.
        overview: Told of each start and end.
        command: What starts a run, without its arguments.
        leader: Tells the other machines, if there are any, what runs.

    Raises:
        RecordError: The state cannot be written.
    """
    for run in runs:
        if sequence.interrupted:
            return
        attempt = directory.next_attempt(run)
        where = directory.path / attempt.directory
        number = sum(len(each.attempts) for each in state.runs)
        run.attempts.append(Attempt(directory=attempt.directory, started_at=datetime.now(timezone.utc)))
        run.state = "running"
        directory.write(state)
        overview.began(run)
        start_s = time.monotonic()
        output = log_of(where)
        output.parent.mkdir(parents=True, exist_ok=True)
        with _announced(run, attempt, number, leader) as place:
            arguments = [*directory.arguments(run.planned, attempt), *place]
            code = sequence.run([*command, *arguments], output=output)
        if code is None:
            # A signal came before the process did: nothing was begun.
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


@contextmanager
def _announced(run: SuiteRun, attempt: NextAttempt, number: int, leader: Leader | None) -> Iterator[list[str]]:
    """Let the other machines join an attempt that needs them; yield the options that say where this one stands."""
    if leader is None or run.planned.nnodes == 1:
        yield []
        return
    with leader.announced(run.planned, attempt, number=number) as place:
        yield place


def log_of(where: Path, node_rank: int = 0) -> Path:
    """Return the file with what ``perf train`` printed: beside the run, whose directory may not come to be."""
    return where.with_name(f"{where.name}.node{node_rank}.log" if node_rank else f"{where.name}.log")


def _why(code: int, where: Path) -> str:
    """Return the cause of a failure: the record's, or what was printed last."""
    try:
        failure = read_record(where).status.failure
        if failure is not None:
            return failure.message
    except RecordError:
        pass
    return printed_cause(code, log_of(where))


def printed_cause(code: int, log: Path) -> str:
    """Return the cause of a failure as far as the exit code and what was printed last say it."""
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
