"""Monitoring of a launcher's ranks and of the other launchers while the ranks train."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from chipperf.launch.channel import Channel, ChannelLost
from chipperf.launch.launcher_group import HANG, PEER_STOPPED, LauncherReport
from chipperf.launch.rank_processes import GRACE_S
from chipperf.launch.signs_of_life import SignsOfLife
from chipperf.records.schema import Failure
from chipperf.run.failure import INTERRUPTED

if TYPE_CHECKING:
    from types import TracebackType

    from chipperf.launch.launcher_group import LauncherGroup
    from chipperf.launch.rank_processes import RankProcesses
    from chipperf.run.directory import RunDirectory
    from chipperf.run.plan import RunPlan

LOST_AFTER_S = 20.0
"""Time without a sign of life after which a launcher counts as gone: twenty times the interval."""

DIRECTORY_DELETED = "directory_deleted"

_INTERVAL_S = 1.0


class Watch:
    """Watches the ranks of this launcher while they train, and stops them in these situations.

    * The run's directory was deleted. Further training would be lost.
    * No rank makes progress. All ranks write their stacks into their logs and are killed.
    * Another launcher's ranks failed or were told to stop. The ranks of this launcher are told to stop, too.
    * Another launcher is gone. The ranks of this launcher would wait for its ranks without end.

    Args:
        plan: The session's plan.
        directory: The run's directory.
        group: The launchers; ``None`` if this is the only one.
        processes: The ranks of this launcher.
    """

    def __init__(
        self, plan: RunPlan, directory: RunDirectory, group: LauncherGroup | None, processes: RankProcesses
    ) -> None:
        self.verdict: Failure | None = None
        self._plan = plan
        self._directory = directory
        self._group = group
        self._processes = processes
        self._ended = threading.Event()
        self._conversation = _Conversation(group, self._ended) if group else None

    def __enter__(self) -> Watch:
        threading.Thread(target=self._run, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()

    def _run(self) -> None:
        """Check once a second until the block ends or its ranks are stopped."""
        conversation = self._conversation
        progress = _ProgressGuard(self._directory, self._plan.hang_timeout_s)
        decides = self._group is None or self._group.launcher.is_first
        while not self._ended.wait(_INTERVAL_S):
            fault = None
            if decides and not self._directory.plan.exists():
                fault = _deleted(self._directory)
            elif decides and progress.is_overdue():
                fault = _hang(self._plan)
            if fault is not None:
                self.verdict = fault
                if conversation is not None:
                    conversation.halt(fault)
            elif conversation is not None:
                self.verdict = conversation.verdict()
            if self.verdict is not None:
                self._stop(self.verdict)
                return

    def announce_interruption(self) -> None:
        """Tell the other launchers that a signal told this one to stop."""
        if self._conversation is not None:
            self._conversation.announce(Failure(failure_class=INTERRUPTED, message="a signal stopped another launcher"))

    def _stop(self, verdict: Failure) -> None:
        if verdict.failure_class == HANG:
            self._processes.kill_with_stacks()
        else:
            # Without the peer no collective completes, so the ranks cannot write a checkpoint and need less time.
            self._processes.stop(GRACE_S if verdict.failure_class == INTERRUPTED else GRACE_S / 3)


class _ProgressGuard:
    """Detects that the run's files have not changed for too long. Uses a monotonic clock."""

    def __init__(self, directory: RunDirectory, timeout_s: float | None) -> None:
        self._directory = directory
        self._timeout_s = timeout_s
        self._state = directory.state_of_progress()
        self._changed_s = time.monotonic()

    def is_overdue(self) -> bool:
        if self._timeout_s is None:
            return False
        state = self._directory.state_of_progress()
        if state != self._state:
            self._state, self._changed_s = state, time.monotonic()
        return time.monotonic() - self._changed_s > self._timeout_s


class _Conversation:
    """Exchanges signs of life with the other launchers, in its own thread because a call may hang."""

    def __init__(self, group: LauncherGroup, ended: threading.Event) -> None:
        self._group = group
        self._ended = ended
        self._verdict: Failure | None = None
        self._halting: Failure | None = None
        self._signs = SignsOfLife(range(group.launcher.count))
        threading.Thread(target=self._run, daemon=True).start()

    def announce(self, failure: Failure) -> None:
        """Tell the other launchers to stop their ranks for this reason."""
        self._halting = failure

    def halt(self, failure: Failure) -> None:
        """Tell the other launchers to stop their ranks for this reason, and wait until they can have read it."""
        self.announce(failure)
        self._ended.wait(2 * _INTERVAL_S)

    def verdict(self) -> Failure | None:
        """Return the reason why the ranks of this launcher must stop; ``None`` if they may continue."""
        if self._verdict is not None:
            return self._verdict
        watched = range(self._group.launcher.count) if self._group.launcher.is_first else (0,)
        for index in watched:
            if index != self._group.launcher.index and self._signs.silence_s(index) > LOST_AFTER_S:
                return self._group.lose(index)
        return None

    def _run(self) -> None:
        channel = None
        while not self._ended.wait(_INTERVAL_S):
            try:
                # A separate connection: a call that hangs in it must not block the launcher.
                channel = channel or Channel(self._group.session.host, self._group.session.port)
                self._signs.send(channel, self._group.launcher.index)
                if self._halting is not None:
                    channel.write("halt", self._halting.model_dump_json())
                self._listen(channel)
            except ChannelLost:
                # The machine may have been slow once. Only the time limit decides: the other launcher may be about to
                # end with its own report.
                channel = None

    def _listen(self, channel: Channel) -> None:
        launcher = self._group.launcher
        halt = channel.read("halt")
        if halt is not None and self._halting is None:
            self._verdict = Failure.model_validate_json(halt)
        self._signs.listen(channel)
        for index in range(launcher.count):
            if index != launcher.index and channel.read(f"report/{index}") is not None:
                self._peer_stopped(channel, index)

    def _peer_stopped(self, channel: Channel, index: int) -> None:
        """Excuse a launcher whose ranks have ended. If they failed, stop the ranks of this launcher."""
        self._signs.excuse(index)
        report = LauncherReport.model_validate_json(channel.read(f"report/{index}") or "")
        if report.status.state != "completed" and self._verdict is None:
            why = INTERRUPTED if report.status.state == "interrupted" else PEER_STOPPED
            self._verdict = Failure(failure_class=why, message=f"{self._group.launcher.name_of(index)} has ended")


def _deleted(directory: RunDirectory) -> Failure:
    return Failure(failure_class=DIRECTORY_DELETED, message=f"{directory.path} was deleted while the run was going on")


def _hang(plan: RunPlan) -> Failure:
    return Failure(
        failure_class=HANG,
        message=f"no rank has made progress for {plan.hang_timeout_s:g} s",
        hint="the stacks of every rank are at the end of its log; --hang-timeout sets the time",
    )
