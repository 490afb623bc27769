"""Monitoring of a launcher's ranks and of the other launchers while the ranks train."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from chipperf.launch.channel import Channel, ChannelLost, SignsOfLife
from chipperf.launch.launcher_group import HANG, PEER_STOPPED, LauncherReport
from chipperf.launch.rank_processes import GRACE_S
from chipperf.records.schema import Failure
from chipperf.run.failure import INTERRUPTED

if TYPE_CHECKING:
    from chipperf.launch.launcher_group import LauncherGroup
    from chipperf.launch.rank_processes import RankProcesses
    from chipperf.run.directory import RunDirectory
    from chipperf.run.plan import SessionPlan

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
    """

    def __init__(
        self, plan: SessionPlan, directory: RunDirectory, group: LauncherGroup | None, processes: RankProcesses
    ) -> None:
        self.verdict: Failure | None = None
        self._plan = plan
        self._directory = directory
        self._group = group
        self._processes = processes
        self._ended = threading.Event()
        self._conversation = _Conversation(group, self._ended) if group else None
        # A monotonic clock and a comparison of the files' states: the system's clock may jump.
        self._progress, self._progressed_s = directory.state_of_progress(), time.monotonic()

    def __enter__(self) -> Watch:
        threading.Thread(target=self._run, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()

    def _run(self) -> None:
        """Check once a second until the block ends or its ranks are stopped."""
        conversation = self._conversation
        decides = self._group is None or self._group.launcher.is_first
        while not self._ended.wait(_INTERVAL_S):
            self._directory.show_life()
            self.verdict = self._fault() if decides else None
            if self.verdict is not None and conversation is not None:
                conversation.halt(self.verdict)
            elif conversation is not None:
                self.verdict = conversation.verdict()
            if self.verdict is not None:
                self._stop(self.verdict)
                return

    def _fault(self) -> Failure | None:
        try:
            self._directory.plan.stat()
        except (FileNotFoundError, NotADirectoryError):
            message = f"{self._directory.path} was deleted during the run"
            return Failure(failure_class=DIRECTORY_DELETED, message=message)
        except OSError:
            # A file system that does not answer for a moment has not lost the run.
            pass
        timeout_s = self._plan.hang_timeout_s
        if timeout_s is None:
            return None
        progress, now_s = self._directory.state_of_progress(), time.monotonic()
        if progress != self._progress:
            self._progress, self._progressed_s = progress, now_s
        if now_s - self._progressed_s <= timeout_s:
            return None
        return Failure(
            failure_class=HANG,
            message=f"no rank has made progress for {timeout_s:g} s",
            hint="the stacks of every rank are at the end of its log; --hang-timeout sets the time",
        )

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
            text = channel.read(f"report/{index}") if index != launcher.index else None
            if text is not None:
                # A launcher whose ranks have ended gives no more signs of life. If they failed, these ranks stop too.
                self._signs.excuse(index)
                state = LauncherReport.model_validate_json(text).status.state
                if state != "completed" and self._verdict is None:
                    why = INTERRUPTED if state == "interrupted" else PEER_STOPPED
                    self._verdict = Failure(failure_class=why, message=f"{launcher.name_of(index)} has ended")
