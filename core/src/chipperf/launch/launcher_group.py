"""How the launchers of one run on several machines agree on its plan, its end and its restarts.

The first launcher decides. The others report to it how their ranks ended, and follow its decision. A launcher that
receives nothing from the first launcher for some time ends on its own.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING

from chipperf.errors import DataError, PerfError, TrainingError, TrainingStopped, UsageError
from chipperf.launch.channel import SECRET_VARIABLE, Channel, ChannelLost, ChannelRefused
from chipperf.launch.launcher_info import JOINING_STEP
from chipperf.records.schema import Failure, NodeResult, Status, StrictModel
from chipperf.run.failure import INTERRUPTED
from chipperf.run.plan import RunPlan, read_plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from chipperf.launch.launcher_info import LauncherInfo
    from chipperf.run.directory import RunDirectory

JOIN_S = 300.0
"""Time within which all launchers of a run must start."""

_REPORT_S = 60.0
"""Time within which all launchers must report after the ranks of one ended. Ranks are killed after 25 seconds."""

_ACK_S = 5.0

_STORE_S = 120.0
"""Time within which the first launcher must start its ranks after all have joined."""

_SILENT_S = 5.0
"""Time of waiting after which the user is told for whom."""

_POLL_S = 0.1

_STOPPED = "a signal told it to stop"

_PORT_KEY = "chipperf/port"
"""Key in the store of torchrun's agent for the port at which the first launcher listens."""

NODE_LOST = "node_lost"
PEER_STOPPED = "peer_stopped"
HANG = "hang"

_SAME = ("vendor", "case", "case_version", "preset", "precision", "hyperparameters", "limits", "topology")
"""Fields of the plan that must be equal on all launchers."""

_SECONDARY = frozenset({"RuntimeError", "DistBackendError", "DistNetworkError", "DistStoreError", "ConnectionError"})
"""Classes of failures that a rank reports after it lost another rank."""


class LauncherReport(StrictModel):
    """How the ranks of one launcher ended, whether that ``recurs`` after a restart, and facts about its machine."""

    status: Status
    exit_code: int
    recurs: bool
    node: NodeResult | None = None


class Decision(StrictModel):
    """Decision of the first launcher after all ranks ended.

    With a ``plan`` the ranks are restarted, and meet at another ``port`` of the first launcher; without one the run
    ends.
    """

    status: Status
    exit_code: int
    plan: RunPlan | None = None
    port: int | None = None


class LauncherGroup:
    """Communication of one launcher with the other launchers of its run.

    Every call that waits for them raises :class:`TrainingError` if they are not found, do not answer or have ended.

    Args:
        launcher: This launcher.
        origin_s: ``time.monotonic()`` when this machine's part of the run began.
        idle_memory_bytes: Memory in use on each device of this machine before the run.
        tell: Shows the user a line.
    """

    def __init__(
        self,
        launcher: LauncherInfo,
        *,
        origin_s: float,
        idle_memory_bytes: Mapping[str, int],
        tell: Callable[[str], None],
    ) -> None:
        self.launcher = launcher
        self._tell = tell
        self.origin_s = origin_s
        self.idle_memory_bytes = idle_memory_bytes
        self._lost: set[int] = set()
        self._told_refused = 0
        self._place = f"{launcher.host}:{launcher.port}"
        try:
            with self._waiting_for(f"{launcher.name_of(0)} to listen on {self._place}"):
                self._joining = _meet(launcher)
        except ChannelLost as error:
            what = "cannot listen on" if launcher.is_first else "found nobody at"
            if isinstance(error, ChannelRefused):
                what = "was refused at"
            raise self._not_joined(f"{launcher.name_of(launcher.index)} {what} {self._place}: {error}") from error
        self.session = self._joining
        if not launcher.is_first and self._joining.read("start") is not None:
            name = launcher.name_of(launcher.index)
            raise self._not_joined(f"{name} is too late: the run at {self._place} has begun with another one")

    @contextmanager
    def _waiting_for(self, what: str, silent_s: float = _SILENT_S) -> Iterator[None]:
        """If the block takes longer than some seconds, tell the user what this launcher waits for."""
        timer = threading.Timer(silent_s, self._tell, (f"waiting for {what}",))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    @contextmanager
    def announcing_errors(self) -> Iterator[None]:
        """Tell the other launchers if the block fails on this one, so that they do not wait for it."""
        try:
            yield
        except (PerfError, TrainingStopped) as error:
            with suppress(ChannelLost):
                self._joining.write(f"ended/{self.launcher.index}", getattr(error, "message", _STOPPED))
                # The channel ends with the first launcher, so those who listen must have read it before.
                for index in range(1, self.launcher.count if self.launcher.is_first else 0):
                    if self._joining.read(f"request/{index}") is not None:
                        self._joining.wait_for(f"ended/{index}", _ACK_S)
            raise

    def gather_requests(self, plan: RunPlan) -> None:
        """Wait until the others request the plan; another one than the first launcher's is a :class:`UsageError`."""
        for index, text in self._gather("request"):
            other = RunPlan.model_validate_json(text)
            for name in _SAME:
                if getattr(plan, name) != getattr(other, name):
                    raise UsageError(
                        f"{self.launcher.name_of(index)} was started with another {name} than the first",
                        hint="give the same options everywhere, except --node-rank",
                    )

    def request(self, plan: RunPlan) -> RunPlan:
        """Send the plan of this launcher to the first one, and return the first one's plan.

        If this machine lacks the dataset's directory, a :class:`DataError` says so.
        """
        received = self._ask_first("request", plan.model_dump_json(), "plan", "does not say what to do")
        if not received.data_root.is_dir():
            raise DataError(
                f"{received.data_root}, the dataset's directory on the first machine, does not exist here",
                hint="the data has to be in the same place on all machines",
            )
        return received

    def announce(self, plan: RunPlan) -> None:
        """Send the first launcher's plan to the other launchers."""
        self._joining.write("plan", plan.model_dump_json())

    def join(self, directory: RunDirectory, plan: RunPlan) -> RunPlan:
        """Join the run in its directory, or in a directory of this machine, and return the final plan.

        A directory that contains another run is a :class:`UsageError`.
        """
        shared = directory.plan.exists()
        if not shared or read_plan(directory.plan).run_id != plan.run_id:
            directory.require_no_run()
        directory.join(self.launcher.index)
        final = self._ask_first("joined", "shared" if shared else "own", "start", "does not begin")
        if not shared:
            directory.write_plan(final)
        return final

    def gather_joined(self) -> bool:
        """Wait until all launchers have joined, and return whether all of them use the same directory."""
        return {answer for _, answer in self._gather("joined")} == {"shared"}

    def start(self, plan: RunPlan) -> None:
        """Let the other launchers start their ranks with the final plan."""
        self._joining.write("start", plan.model_dump_json())

    def _gather(self, subject: str) -> Iterator[tuple[int, str]]:
        """Yield each of the other launchers with the text that it sends to the first one."""
        launcher = self.launcher
        for index in range(1, launcher.count):
            name = launcher.name_of(index)
            what = f"{name} to join the run at {self._place}"
            if launcher.joining == JOINING_STEP:
                what = f"{launcher.count - index} other tasks of this step ({launcher.joining})"
            try:
                with self._waiting_for(what, 0.0 if launcher.is_shell else _SILENT_S):
                    text = self._read_in_time(f"{subject}/{index}", index)
            except ChannelLost as error:
                raise self._not_joined(f"{name} did not join the run: {error}") from error
            yield index, text

    def _ask_first(self, subject: str, text: str, answer_key: str, complaint: str) -> RunPlan:
        """Send a text to the first launcher, and return the plan that it answers with."""
        first = self.launcher.name_of(0)
        try:
            self._joining.write(f"{subject}/{self.launcher.index}", text)
            with self._waiting_for(f"{first} to start the run"):
                return RunPlan.model_validate_json(self._read_in_time(answer_key, 0))
        except ChannelLost as error:
            raise self._not_joined(f"{first} {complaint}: {error}") from error

    def _read_in_time(self, key: str, other: int) -> str:
        """Return the text of a key, unless the other launcher first tells that it has ended."""
        deadline_s = time.monotonic() + JOIN_S
        while (text := self._joining.read(key)) is None:
            refused = [
                f"somebody at {each} with another {SECRET_VARIABLE} wants to join" for each in self._joining.refused
            ]
            for line in refused[self._told_refused :]:
                self._tell(line)
            self._told_refused = len(refused)
            end = self._joining.read(f"ended/{other}")
            if end == _STOPPED:
                raise TrainingStopped
            if end is not None:
                raise TrainingError(f"{self.launcher.name_of(other)} ended: {end}", failure_class="not_begun")
            if time.monotonic() > deadline_s:
                raise ChannelLost("; ".join([f"nothing came within {JOIN_S:.0f} s", *refused]))
            time.sleep(_POLL_S)
        return text

    def announce_store(self, port: int) -> None:
        """Tell the other launchers at which port of the first one's machine the ranks' store listens."""
        self.session.write("store", str(port))

    def store_port(self) -> int:
        """Return the port at which the ranks' store listens on the first launcher's machine."""
        try:
            with self._waiting_for(f"{self.launcher.name_of(0)} to start its ranks"):
                return int(self.session.wait_for("store", _STORE_S))
        except ChannelLost as error:
            raise self._not_joined(f"{self.launcher.name_of(0)} does not start its ranks: {error}") from error

    def lose(self, index: int) -> Failure:
        """Mark a launcher without signs of life as lost, and return the failure to report."""
        self._lost.add(index)
        return Failure(
            failure_class=NODE_LOST,
            message=f"{self.launcher.name_of(index)} does not respond",
            hint="check that machine and the network between the machines; with checkpoints the run can be resumed",
        )

    def gather_reports(self, own: LauncherReport) -> list[LauncherReport]:
        """Return the reports of all launchers, starting with this launcher's. A launcher that sends none is lost."""
        reports = [own]
        if own.status.state != "completed":
            stopped = Failure(failure_class=PEER_STOPPED, message=f"{self.launcher.name_of(0)} has ended")
            with suppress(ChannelLost):
                self.session.write("halt", stopped.model_dump_json())
        deadline_s = time.monotonic() + _REPORT_S
        for index in range(1, self.launcher.count):
            try:
                left_s = 0.0 if index in self._lost else max(0.0, deadline_s - time.monotonic())
                with self._waiting_for(f"the ranks of {self.launcher.name_of(index)} to end"):
                    text = self.session.wait_for(f"report/{index}", left_s)
                reports.append(LauncherReport.model_validate_json(text))
            except ChannelLost:
                lost = Status(state="failed", failure=self.lose(index))
                reports.append(LauncherReport(status=lost, exit_code=1, recurs=True))
        return reports

    def decide(self, decision: Decision) -> None:
        """Send the first launcher's decision to the others, and wait until they have it. Then this process may end.

        Restarted ranks get a new channel, so that they do not read old keys.
        """
        channel = self.session
        if decision.plan is not None:
            self.session = Channel(self.launcher.host, 0, listens=True)
            decision = decision.model_copy(update={"port": self.session.port})
        with suppress(ChannelLost):
            channel.write("decision", decision.model_dump_json())
            for index in set(range(1, self.launcher.count)) - self._lost:
                channel.wait_for(f"ack/{index}", _ACK_S)

    def report(self, own: LauncherReport) -> Decision:
        """Report to the first launcher and return its decision. Without an answer, decide from this report alone."""
        try:
            self.session.write(f"report/{self.launcher.index}", own.model_dump_json())
            with self._waiting_for(f"{self.launcher.name_of(0)} to say how the run ended"):
                decision = Decision.model_validate_json(self.session.wait_for("decision", _REPORT_S + _ACK_S))
            self.session.write(f"ack/{self.launcher.index}", "")
        except ChannelLost:
            if own.status.state == "completed" or is_secondary(own.status):
                return Decision(status=Status(state="failed", failure=self.lose(0)), exit_code=1)
            return Decision(status=own.status, exit_code=own.exit_code)
        if decision.port is not None:
            try:
                self.session = Channel(self.launcher.host, decision.port)
            except ChannelLost as error:
                raise self._not_joined(f"{self.launcher.name_of(0)} is gone: {error}") from error
        return decision

    def _not_joined(self, message: str) -> TrainingError:
        return TrainingError(message, failure_class="not_joined", hint=self.launcher.joining)


def _meet(launcher: LauncherInfo) -> Channel:
    """Return the channel on which all launchers meet. The first one listens."""
    if not launcher.torchrun_listens:
        return Channel(launcher.host, launcher.port, listens=launcher.is_first, timeout_s=JOIN_S)
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    store = TCPStore(launcher.host, launcher.port, is_master=False, timeout=timedelta(seconds=JOIN_S))
    if launcher.is_first:
        channel = Channel(launcher.host, 0, listens=True)
        store.set(_PORT_KEY, str(channel.port))
        return channel
    return Channel(launcher.host, int(store.get(_PORT_KEY)), timeout_s=JOIN_S)


def cause_of(reports: Sequence[LauncherReport]) -> LauncherReport:
    """Return the report that says why a run ended.

    Reports of the loss of another rank have the lowest priority: a rank that was told to stop is also lost to others.
    """

    def order(report: LauncherReport) -> int:
        status = report.status
        if status.state == "completed":
            return 4
        if status.state == "interrupted":
            return 2
        if is_secondary(status):
            return 3
        return 0 if status.failure and status.failure.failure_class in (HANG, "rank_died") else 1

    return min(reports, key=order)


def is_secondary(status: Status) -> bool:
    """Return whether a failure may follow from the end of another rank."""
    return status.failure is not None and status.failure.failure_class in (*_SECONDARY, PEER_STOPPED, INTERRUPTED)
