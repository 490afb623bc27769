"""Execution of a suite's runs, one after another; a failed run does not stop the suite.

Of several machines, machine 0 announces its attempts through a channel, and the others join them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

from chipperf.errors import PerfError, RecordError, TrainingError, UsageError
from chipperf.launch.channel import Channel, ChannelLost, SignsOfLife
from chipperf.launch.launcher_group import JOIN_S
from chipperf.launch.launcher_info import from_options
from chipperf.launch.sequence import TRAIN_COMMAND, ProcessSequence
from chipperf.records.store import read_record
from chipperf.suites.state import Attempt, NextAttempt, SuiteDirectory, SuiteRun, SuiteState, printed_cause
from chipperf.suites.suite_plan import PlannedRun, SuitePlan

_PORTS = 16
"""The suite itself listens on the last port. Attempts use the others in turn, so that a machine that still waits for an
ended attempt does not join the next one."""

_LAST_PORT = 2**16 - 1

_PLAN_KEY, _ATTEMPT_KEY, _END_KEY = "plan", "attempt", "end"
"""Machine 0 writes its plan, its current :class:`NextAttempt` on several machines or an empty text, and its end."""

_JOINED_KEY, _HERE, _LEFT = "joined/{}", "here", "left"
"""Texts that a machine writes at the key with its number when it joins and when it leaves the suite."""

BEGIN_S = JOIN_S
"""Time within which the suite of machine 0 must start."""

LOST_S = 60.0
"""Time without a sign of life after which the suite of machine 0 counts as gone."""

OVERDUE_S = 60.0
"""Time within which a run must end here after it ended on machine 0. The launchers of a run use the same limit."""

Announce = Callable[[NextAttempt | None], None]
"""Lets the other machines join an attempt, or none."""

_BEAT_S = 1.0
_POLL_S = 0.5
_CONNECT_S = 2.0
_LEAVE_S = 5.0
"""Time within which the other machines must read that the suite has ended."""

_LEAVE_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Machine:
    """This machine as one of a suite's machines, and the host of machine 0, which decides what runs.

    ``port`` is the first of the ports on machine 0 that the runs and the suite use.
    """

    node_rank: int
    host: str
    port: int

    def port_of_attempt(self, number: int) -> int:
        """Return the port for an attempt. ``number`` counts all attempts of the suite."""
        return self.port + number % (_PORTS - 1)

    @property
    def suite_port(self) -> int:
        """Port of the channel on which machine 0 announces attempts."""
        return self.port + _PORTS - 1

    def options(self, number: int = 0) -> list[str]:
        """Return the options of ``perf train`` for this machine's number and the rendezvous of an attempt."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return [f"--node-rank={self.node_rank}", f"--rdzv={host}:{self.port_of_attempt(number)}"]


def machine_from_options(nnodes: int, node_rank: int | None, rendezvous: str | None) -> Machine | None:
    """Return the machine that the options describe; ``None`` if no run of the suite needs several machines."""
    if nnodes == 1 and (node_rank is not None or rendezvous is not None):
        raise UsageError(
            "--node-rank and --rdzv belong to a suite with runs on several machines",
            hint="leave them out; a topology of two machines is 2x8, for example",
        )
    launcher = from_options(nnodes, 1, node_rank, rendezvous)
    if launcher is None:
        return None
    if launcher.port + _PORTS - 1 > _LAST_PORT:
        raise UsageError(
            f"--rdzv: port {launcher.port} is too high: a suite uses {_PORTS} ports from there on",
            hint=f"choose one up to {_LAST_PORT - _PORTS + 1}",
        )
    return Machine(launcher.index, launcher.host, launcher.port)


@contextmanager
def leading(machine: Machine, plan: SuitePlan) -> Iterator[Announce]:
    """Let the other machines of a suite find this machine, and join what the block announces, while it runs."""
    try:
        channel = Channel(machine.host, machine.suite_port, listens=True)
        signs = SignsOfLife(())
        signs.send(channel, 0)
        # A machine that has read the plan expects signs of life.
        channel.write(_PLAN_KEY, plan.model_dump_json())
    except ChannelLost as error:
        raise TrainingError(
            f"machine 0 cannot listen on {machine.host}:{machine.suite_port}: {error}",
            hint="--rdzv names this machine, and the first of 16 free ports",
        ) from error
    ended = threading.Event()

    def announce(attempt: NextAttempt | None) -> None:
        # This process holds the store. If it does not answer, the run fails, because the others do not join it.
        with suppress(ChannelLost):
            channel.write(_ATTEMPT_KEY, attempt.model_dump_json() if attempt else "")

    def beat() -> None:
        while not ended.wait(_BEAT_S):
            with suppress(ChannelLost):
                signs.send(channel, 0)

    beating = threading.Thread(target=beat, daemon=True)
    beating.start()
    try:
        yield announce
    finally:
        with suppress(ChannelLost):
            channel.write(_END_KEY, "")
            # Keep the store until every joined machine knows that the suite has ended.
            deadline_s = time.monotonic() + _LEAVE_S
            others = [_JOINED_KEY.format(node_rank) for node_rank in range(1, plan.nnodes)]
            while any(channel.read(key) == _HERE for key in others) and time.monotonic() <= deadline_s:
                time.sleep(_LEAVE_POLL_S)
        ended.set()
        beating.join()
        channel.close()


def execute(
    runs: Sequence[SuiteRun],
    state: SuiteState,
    directory: SuiteDirectory,
    sequence: ProcessSequence,
    *,
    show: Callable[[SuiteRun], None],
    machine: Machine | None,
    announce: Announce | None,
) -> None:
    """Execute runs of ``state``. Change the state, write it to disk, and show the run, after each start and end."""
    for run in runs:
        if sequence.interrupted:
            return
        attempt = directory.next_attempt(run, number=sum(len(each.attempts) for each in state.runs))
        joint = machine if run.planned.nnodes > 1 else None
        port = joint.port_of_attempt(attempt.number) if joint else None
        run.attempts.append(Attempt(directory=attempt.directory, started_at=datetime.now(timezone.utc), port=port))
        run.state = "running"
        directory.write(state)
        show(run)
        start_s = time.monotonic()
        log = directory.log(attempt)
        log.parent.mkdir(parents=True, exist_ok=True)
        arguments = directory.arguments(run.planned, attempt, joint.options(attempt.number) if joint else [])
        if joint and announce:
            announce(attempt)
        code = sequence.run([*TRAIN_COMMAND, *arguments], output=log)
        if joint and announce:
            announce(None)
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


class Follower:
    """Another machine of a suite, which joins the attempts of machine 0. ``attempt`` is the current one, if any."""

    def __init__(self, machine: Machine, plan: SuitePlan, directory: SuiteDirectory) -> None:
        self.attempt: NextAttempt | None = None
        self.has_ended = False
        self._machine = machine
        self._plan = plan
        self._directory = directory
        self._channel: Channel | None = None
        self._signs = SignsOfLife([0])
        self._has_begun = False

    def follow(
        self, sequence: ProcessSequence, *, resume: bool, retry_failed: bool, tell: Callable[[str], None]
    ) -> list[int]:
        """Join the attempts that need this machine, until the suite ends or a signal comes. Return their exit codes.

        ``resume`` and ``retry_failed`` are the options of machine 0's suite; ``tell`` shows a line.
        """
        planned = {run.name: run for run in self._plan.runs if run.nnodes > self._machine.node_rank}
        state = self._directory.load()
        if state is not None and not state.going_on:
            if not resume:
                self._directory.require_no_suite()
            self._plan.require_same(run.planned for run in state.runs)
            if not any(run.planned.name in planned for run in state.select(retry_failed=retry_failed)):
                tell("no remaining run needs this machine")
                return []
        tell(f"machine {self._machine.node_rank} waits for the suite of machine 0 in {self._directory.path}")
        codes: list[int] = []
        joined = -1
        try:
            while not sequence.interrupted:
                self.listen()
                if self.has_ended:
                    break
                attempt = self.attempt
                if attempt is None or attempt.number == joined or attempt.run not in planned:
                    time.sleep(_POLL_S)
                    continue
                joined = attempt.number
                code = self._join(planned[attempt.run], attempt, sequence, tell)
                if code is not None:
                    codes.append(code)
        finally:
            self.leave()
        return codes

    def listen(self) -> None:
        """Read the state of the suite from machine 0. If there is no answer, keep the last state for a while."""
        try:
            channel = self._channel = self._channel or self._connect()
            self._signs.listen(channel)
            text = channel.read(_ATTEMPT_KEY)
            self.attempt = NextAttempt.model_validate_json(text) if text else None
            self.has_ended = channel.read(_END_KEY) is not None
        except ChannelLost:
            # A machine or network may be slow once.
            self._channel = None
        silence_s = self._signs.silence_s(0)
        if self._has_begun and silence_s > LOST_S:
            raise TrainingError(
                f"machine 0's suite in {self._directory.path} has not responded for {LOST_S:g} s",
                hint="check machine 0; start the suite with --resume on all machines to continue",
            )
        if not self._has_begun and silence_s > BEGIN_S:
            raise TrainingError(
                f"machine 0 started no suite in {self._directory.path} within {BEGIN_S:g} s",
                hint="start the same command on all machines, with an --out that all of them share",
            )

    def is_at(self, attempt: NextAttempt) -> bool:
        """Return whether machine 0 still runs an attempt. Without an answer, the last state counts."""
        # The launchers of the run detect on their own that machine 0 is gone.
        with suppress(PerfError):
            self.listen()
        return self.attempt == attempt

    def leave(self) -> None:
        """Tell machine 0 that this machine leaves the suite."""
        with suppress(ChannelLost):
            if self._channel is not None:
                self._channel.write(_JOINED_KEY.format(self._machine.node_rank), _LEFT)

    def _connect(self) -> Channel:
        channel = Channel(self._machine.host, self._machine.suite_port, timeout_s=_CONNECT_S)
        theirs = SuitePlan.model_validate_json(channel.wait_for(_PLAN_KEY, _CONNECT_S))
        self._plan.require_same(theirs.runs)
        channel.write(_JOINED_KEY.format(self._machine.node_rank), _HERE)
        self._has_begun = True
        return channel

    def _join(
        self, planned: PlannedRun, attempt: NextAttempt, sequence: ProcessSequence, tell: Callable[[str], None]
    ) -> int | None:
        """Run this machine's part of an attempt and return its exit code; ``None`` if it was not started."""
        log = self._directory.log(attempt, self._machine.node_rank)
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
            if self.is_at(attempt):
                return False
            left_s = left_s or time.monotonic()
            return time.monotonic() - left_s > OVERDUE_S

        tell(f"{planned.name}: joins")
        arguments = self._directory.arguments(planned, attempt, self._machine.options(attempt.number))
        code = sequence.run([*TRAIN_COMMAND, *arguments], output=log, is_overdue=is_overdue)
        if code is not None:
            tell(f"{planned.name}: {'completed' if code == 0 else printed_cause(code, log)}")
        return code
