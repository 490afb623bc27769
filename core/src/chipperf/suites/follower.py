"""The other machines of a suite: each joins what the first one runs on several, for as long as its suite goes on."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from chipperf.errors import RecordError, TrainingError
from chipperf.suites.execution import log_of, printed_cause
from chipperf.suites.state import require_same

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from chipperf.launch.sequence import ProcessSequence
    from chipperf.suites.machines import Machine
    from chipperf.suites.plan import SuitePlan
    from chipperf.suites.state import SuiteDirectory, SuiteRun, SuiteState

BEGIN_S = 300.0
"""Time within which the first machine's suite must begin, as long as launchers of one run wait for each other."""

LOST_S = 60.0
"""A suite that gives no sign of life for so long is gone."""

_POLL_S = 0.5
_LEAVE_S = 60.0
"""Time a run has to end here after it has ended for the first machine, whose launcher gives those here as much."""


def follow(
    plan: SuitePlan,
    directory: SuiteDirectory,
    machine: Machine,
    sequence: ProcessSequence,
    *,
    resume: bool,
    retry_failed: bool,
    command: Sequence[str],
    tell: Callable[[str], None],
) -> list[int]:
    """Join the runs of the first machine's suite that need this one, until that has ended or a signal comes.

    Args:
        plan: The plan here.
        directory: The suite's, which all machines share.
        machine: This one.
        sequence: Starts the processes, and knows of signals.
        resume: Whether a suite is continued.
        retry_failed: Whether failed runs are done again.
        command: What starts a run, without its arguments.
        tell: Shows a line.

    Returns:
        The exit codes of the runs that were joined.

    Raises:
        ConfigError: The first machine's suite has another plan.
        RecordError: Its state cannot be read, or its directory not be written to.
        TrainingError: It does not begin in time, or gives no sign of life any more.
        UsageError: One that is not to be continued has ended already.
    """
    first = _FirstMachine(directory)
    joined: set[tuple[str, datetime]] = set()
    codes: list[int] = []
    if first.state is not None and not first.state.going_on:
        if not resume:
            directory.require_no_suite()
        require_same(first.state, plan)
        if not any(run.planned.nnodes > machine.node_rank for run in first.state.select(retry_failed=retry_failed)):
            tell("no run that needs this machine is left")
            return codes
    tell(f"machine {machine.node_rank} waits for the suite of machine 0 in {directory.path}")
    known_session = None
    while not sequence.interrupted:
        state = first.look()
        if state is not None and state.session != known_session:
            require_same(state, plan)
            known_session = state.session
        if state is not None and not state.going_on:
            break
        run = _to_join(state, machine, joined)
        if run is None:
            time.sleep(_POLL_S)
            continue
        joined.add(_last_attempt(run))
        code = _join(run, directory, machine, sequence, first, command=command, tell=tell)
        if code is not None:
            codes.append(code)
    return codes


class _FirstMachine:
    """The suite of the first machine, as far as the shared directory shows it."""

    def __init__(self, directory: SuiteDirectory) -> None:
        self.state = directory.load()
        self._directory = directory
        self._earlier_session = self.state.session if self.state else 0
        self._heartbeat = self._read_heartbeat()
        self._heard_s = time.monotonic()
        self._has_begun = False

    def look(self) -> SuiteState | None:
        """Return the state of the session that goes on or has just ended; ``None`` before one is seen.

        A session that was there before counts only if it gives signs of life: a killed one says for ever that it goes
        on.

        Raises:
            RecordError: The state is damaged.
            TrainingError: Nothing was heard for too long.
        """
        now_s = time.monotonic()
        heartbeat = self._read_heartbeat()
        is_alive = heartbeat not in ("", self._heartbeat)
        if is_alive:
            self._heartbeat, self._heard_s = heartbeat, now_s
        self._load()
        if self.state is not None and not self._has_begun:
            lives = is_alive and heartbeat.split()[0] == str(self.state.session)
            self._has_begun = self.state.session != self._earlier_session or lives
            if self._has_begun:
                self._heard_s = now_s
        if self._has_begun and self.state is not None:
            if self.state.going_on and now_s - self._heard_s > LOST_S:
                raise TrainingError(
                    f"machine 0's suite in {self._directory.path} has given no sign of life for {LOST_S:g} s",
                    hint="look after machine 0; start the suite with --resume on all machines to go on",
                )
            return self.state
        if now_s - self._heard_s > BEGIN_S:
            raise TrainingError(
                f"machine 0 began no suite in {self._directory.path} within {BEGIN_S:g} s",
                hint="start the same command on all machines, with an --out that all of them share",
            )
        return None

    def is_running(self, attempt: tuple[str, datetime]) -> bool:
        """Return whether an attempt goes on there, as far as can be seen."""
        with suppress(RecordError):
            self._load()
        runs = self.state.runs if self.state is not None else []
        return any(run.state == "running" and _last_attempt(run) == attempt for run in runs)

    def _load(self) -> None:
        try:
            self.state = self._directory.load()
        except RecordError as error:
            # A file that is replaced on another machine may be out of reach for a moment.
            if not isinstance(error.__cause__, OSError):
                raise

    def _read_heartbeat(self) -> str:
        try:
            return self._directory.heartbeat.read_text(encoding="utf-8").strip()
        except OSError:
            return ""


def _to_join(state: SuiteState | None, machine: Machine, joined: set[tuple[str, datetime]]) -> SuiteRun | None:
    for run in state.runs if state is not None else ():
        if run.state == "running" and run.planned.nnodes > machine.node_rank and _last_attempt(run) not in joined:
            return run
    return None


def _last_attempt(run: SuiteRun) -> tuple[str, datetime]:
    return run.attempts[-1].directory, run.attempts[-1].started_at


def _join(
    run: SuiteRun,
    directory: SuiteDirectory,
    machine: Machine,
    sequence: ProcessSequence,
    first: _FirstMachine,
    *,
    command: Sequence[str],
    tell: Callable[[str], None],
) -> int | None:
    """Run this machine's part of the run's last attempt, and return its exit code; ``None`` if it was not started."""
    attempt = run.attempts[-1]
    log = log_of(directory.path / attempt.directory, machine.node_rank)
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.touch()
    except OSError as error:
        raise RecordError(
            f"cannot write {log}: {error.strerror}", hint="all machines have to be able to write to --out"
        ) from error
    left_s: float | None = None

    def is_overdue() -> bool:
        nonlocal left_s
        if first.is_running(_last_attempt(run)):
            return False
        left_s = left_s or time.monotonic()
        return time.monotonic() - left_s > _LEAVE_S

    tell(f"{run.planned.name}: joins")
    arguments = [*directory.arguments_of_last_attempt(run), *machine.options(attempt.port or machine.port)]
    code = sequence.run([*command, *arguments], output=log, is_overdue=is_overdue)
    if code is not None:
        tell(f"{run.planned.name}: {'completed' if code == 0 else printed_cause(code, log)}")
    return code
