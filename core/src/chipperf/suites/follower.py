"""The other machines of a suite, which join attempts of machine 0."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from chipperf.errors import PerfError, RecordError, TrainingError
from chipperf.launch.channel import Channel, ChannelLost, SignsOfLife
from chipperf.launch.launcher_group import JOIN_S
from chipperf.suites.execution import log_of, printed_cause
from chipperf.suites.machines import ATTEMPT_KEY, END_KEY, HERE, LEFT, PLAN_KEY, JointAttempt, joined_key
from chipperf.suites.state import require_same
from chipperf.suites.suite_plan import SuitePlan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chipperf.launch.sequence import ProcessSequence
    from chipperf.suites.machines import Machine
    from chipperf.suites.state import SuiteDirectory
    from chipperf.suites.suite_plan import PlannedRun

BEGIN_S = JOIN_S
"""Time within which the suite of machine 0 must start."""

LOST_S = 60.0
"""Time without a sign of life after which the suite of machine 0 counts as gone."""

_POLL_S = 0.5
_CONNECT_S = 2.0
_LEAVE_S = 60.0
"""Time within which a run must end here after it ended on machine 0. The launchers of a run use the same limit."""


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
    """Join the attempts of machine 0 that need this machine, until the suite ends or a signal comes.

    Args:
        plan: The plan on this machine.
        directory: The suite's directory, which all machines share.
        machine: This machine.
        sequence: Starts the processes and handles signals.
        resume: Whether a suite is continued.
        retry_failed: Whether failed runs are repeated.
        command: Command that starts a run, without its arguments.
        tell: Shows a line.

    Returns:
        Exit codes of the joined runs.

    Raises:
        ConfigError: The suite of machine 0 has another plan.
        RecordError: The state of the suite cannot be read, or its directory cannot be written.
        TrainingError: The suite of machine 0 does not start in time, or its signs of life stop.
        UsageError: The suite has ended, and ``resume`` is false.
    """
    codes: list[int] = []
    state = directory.load()
    if state is not None and not state.going_on:
        if not resume:
            directory.require_no_suite()
        require_same([run.planned for run in state.runs], plan)
        if not any(run.planned.nnodes > machine.node_rank for run in state.select(retry_failed=retry_failed)):
            tell("no run that needs this machine is left")
            return codes
    tell(f"machine {machine.node_rank} waits for the suite of machine 0 in {directory.path}")
    planned = {run.name: run for run in plan.runs if run.nnodes > machine.node_rank}
    first = _FirstMachine(machine, plan, directory)
    joined = -1
    try:
        while not sequence.interrupted:
            first.listen()
            if first.has_ended:
                break
            attempt = first.attempt
            if attempt is None or attempt.number == joined or attempt.run not in planned:
                time.sleep(_POLL_S)
                continue
            joined = attempt.number
            code = _join(planned[attempt.run], attempt, directory, machine, sequence, first, command=command, tell=tell)
            if code is not None:
                codes.append(code)
    finally:
        first.leave()
    return codes


class _FirstMachine:
    """The suite of machine 0, as read from the channel.

    Attributes:
        attempt: The current attempt on several machines, as read last; ``None`` if there is none.
        has_ended: Whether the suite has ended.
    """

    def __init__(self, machine: Machine, plan: SuitePlan, directory: SuiteDirectory) -> None:
        self.attempt: JointAttempt | None = None
        self.has_ended = False
        self._machine = machine
        self._plan = plan
        self._directory = directory
        self._channel: Channel | None = None
        self._signs = SignsOfLife([0])
        self._has_begun = False

    def listen(self) -> None:
        """Read the state of the suite from machine 0. If there is no answer, keep the last state.

        Raises:
            ConfigError: The suite has another plan.
            TrainingError: There was no sign of life for too long.
        """
        try:
            channel = self._channel = self._channel or self._join()
            self._signs.listen(channel)
            text = channel.read(ATTEMPT_KEY)
            self.attempt = JointAttempt.model_validate_json(text) if text else None
            self.has_ended = channel.read(END_KEY) is not None
        except ChannelLost:
            # A machine or network may be slow once.
            self._channel = None
        silence_s = self._signs.silence_s(0)
        if self._has_begun and silence_s > LOST_S:
            raise TrainingError(
                f"machine 0's suite in {self._directory.path} has given no sign of life for {LOST_S:g} s",
                hint="look after machine 0; start the suite with --resume on all machines to go on",
            )
        if not self._has_begun and silence_s > BEGIN_S:
            raise TrainingError(
                f"machine 0 began no suite in {self._directory.path} within {BEGIN_S:g} s",
                hint="start the same command on all machines, with an --out that all of them share",
            )

    def is_at(self, attempt: JointAttempt) -> bool:
        """Return whether machine 0 still runs an attempt. Without an answer, the last state counts."""
        # The launchers of the run detect on their own that machine 0 is gone.
        with suppress(PerfError):
            self.listen()
        return self.attempt == attempt

    def leave(self) -> None:
        """Tell machine 0 that this machine leaves the suite."""
        with suppress(ChannelLost):
            if self._channel is not None:
                self._channel.write(joined_key(self._machine.node_rank), LEFT)

    def _join(self) -> Channel:
        channel = Channel(self._machine.host, self._machine.suite_port, timeout_s=_CONNECT_S)
        theirs = SuitePlan.model_validate_json(channel.wait_for(PLAN_KEY, _CONNECT_S))
        require_same(theirs.runs, self._plan)
        channel.write(joined_key(self._machine.node_rank), HERE)
        self._has_begun = True
        return channel


def _join(
    planned: PlannedRun,
    joint: JointAttempt,
    directory: SuiteDirectory,
    machine: Machine,
    sequence: ProcessSequence,
    first: _FirstMachine,
    *,
    command: Sequence[str],
    tell: Callable[[str], None],
) -> int | None:
    """Run this machine's part of an attempt and return its exit code; ``None`` if it was not started."""
    log = log_of(directory.path / joint.attempt.directory, machine.node_rank)
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
        if first.is_at(joint):
            return False
        left_s = left_s or time.monotonic()
        return time.monotonic() - left_s > _LEAVE_S

    tell(f"{planned.name}: joins")
    arguments = [*directory.arguments(planned, joint.attempt), *machine.options(joint.port)]
    code = sequence.run([*command, *arguments], output=log, is_overdue=is_overdue)
    if code is not None:
        tell(f"{planned.name}: {'completed' if code == 0 else printed_cause(code, log)}")
    return code
