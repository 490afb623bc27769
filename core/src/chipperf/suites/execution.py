"""Execution of a suite's runs, one after another; a failed run does not stop the suite."""

from __future__ import annotations

import time
from contextlib import nullcontext
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Literal

from chipperf.errors import RecordError
from chipperf.launch.sequence import TRAIN_COMMAND, ProcessSequence
from chipperf.records.store import read_record
from chipperf.suites.state import Attempt, SuiteDirectory, SuiteRun, SuiteState, printed_cause

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from chipperf.suites.machines import Leader


def execute(
    runs: Sequence[SuiteRun],
    state: SuiteState,
    directory: SuiteDirectory,
    sequence: ProcessSequence,
    *,
    show: Callable[[SuiteRun], None],
    leader: Leader | None,
) -> None:
    """Execute runs of ``state``. Change the state, write it to disk, and show the run, after each start and end.

    ``leader`` announces the current run to the other machines, if there are any.
    """
    for run in runs:
        if sequence.interrupted:
            return
        attempt = directory.next_attempt(run, number=sum(len(each.attempts) for each in state.runs))
        joint = leader if run.planned.nnodes > 1 else None
        port = joint.machine.port_of_attempt(attempt.number) if joint else None
        run.attempts.append(Attempt(directory=attempt.directory, started_at=datetime.now(timezone.utc), port=port))
        run.state = "running"
        directory.write(state)
        show(run)
        start_s = time.monotonic()
        log = directory.log(attempt)
        log.parent.mkdir(parents=True, exist_ok=True)
        arguments = directory.arguments(run.planned, attempt, joint.machine.options(attempt.number) if joint else [])
        with joint.announced(attempt) if joint else nullcontext():
            code = sequence.run([*TRAIN_COMMAND, *arguments], output=log)
        if code is None:
            # A signal came before the process started.
            run.attempts.pop()
            run.state = "interrupted" if run.attempts else "waiting"
        else:
            run.state = state_after(code, sequence)
            error = None if code == 0 else _cause(code, directory.path / attempt.directory, log)
            outcome = {"seconds": time.monotonic() - start_s, "exit_code": code, "error": error}
            run.attempts[-1] = run.attempts[-1].model_copy(update=outcome)
        directory.write(state)
        show(run)


def state_after(code: int, sequence: ProcessSequence) -> Literal["completed", "failed", "interrupted"]:
    """Return the state of a run that ended with an exit code."""
    return "completed" if code == 0 else "interrupted" if sequence.interrupted else "failed"


def _cause(code: int, run: Path, log: Path) -> str:
    """Return the cause of a failure from the record, or else from the output."""
    try:
        failure = read_record(run).status.failure
    except RecordError:
        failure = None
    return failure.message if failure else printed_cause(code, log)
