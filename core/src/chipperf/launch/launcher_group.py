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

from pydantic import BaseModel, ConfigDict

from chipperf.errors import DataError, PerfError, TrainingError, TrainingStopped, UsageError
from chipperf.launch.channel import Channel, ChannelLost
from chipperf.records.schema import Failure, NodeResult, Status
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

_STORE_S = 120.0
"""Time within which the first launcher must start its ranks after all have joined."""

_SILENT_S = 5.0
"""Time of waiting after which the user is told for whom."""

_POLL_S = 0.1

STOPPED = "a signal told it to stop"

_PORT_KEY = "chipperf/port"
"""Key in the store of torchrun's agent for the port at which the first launcher listens."""

_ACK_S = 5.0

NODE_LOST = "node_lost"
PEER_STOPPED = "peer_stopped"
HANG = "hang"

_SAME = ("vendor", "case", "case_version", "preset", "precision", "hyperparameters", "limits", "topology")
"""Fields of the plan that must be equal on all launchers."""

_SECONDARY = frozenset({"RuntimeError", "DistBackendError", "DistNetworkError", "DistStoreError", "ConnectionError"})
"""Classes of failures that a rank reports after it lost another rank."""


class LauncherReport(BaseModel):
    """How the ranks of one launcher ended.

    Attributes:
        status: State of its ranks and, if they failed, the reason.
        exit_code: Exit code for this status.
        recurs: Whether the same failure is expected after a restart.
        node: Facts about the launcher's machine that other launchers do not know.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    status: Status
    exit_code: int
    recurs: bool
    node: NodeResult | None = None


class Decision(BaseModel):
    """Decision of the first launcher after all ranks ended.

    Attributes:
        status: How the ranks ended.
        exit_code: Exit code for this status.
        plan: Plan with which the ranks are restarted; ``None`` ends the run.
        port: Port of the first launcher's new store if there is a ``plan``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    status: Status
    exit_code: int
    plan: RunPlan | None = None
    port: int | None = None


class LauncherGroup:
    """Communication of one launcher with the other launchers of its run.

    Args:
        launcher: This launcher.
        origin_s: ``time.monotonic()`` when this machine's part of the run began.
        idle_memory_bytes: Memory in use on each device of this machine before the run.
        tell: Shows the user a line.

    Raises:
        TrainingError: The first launcher is not found in time.
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
        try:
            with self._waiting_for(f"{launcher.name_of(0)} to listen on {launcher.host}:{launcher.port}"):
                self._joining = _meet(launcher)
        except ChannelLost as error:
            place = f"{launcher.host}:{launcher.port}"
            what = "cannot listen on" if launcher.is_first else "found nobody at"
            raise _not_joined(f"{launcher.name_of(launcher.index)} {what} {place}: {error}") from error
        self.session = self._joining

    @contextmanager
    def _waiting_for(self, what: str) -> Iterator[None]:
        """If the block takes longer than some seconds, tell the user what this launcher waits for."""
        timer = threading.Timer(_SILENT_S, self._tell, (f"waiting for {what}",))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    @contextmanager
    def announcing_errors(self) -> Iterator[None]:
        """Tell the other launchers if the block fails on the first launcher, so that they do not wait for it."""
        try:
            yield
        except PerfError as error:
            self._joining.write("refused", error.message)
            raise
        except TrainingStopped:
            self._joining.write("refused", STOPPED)
            raise

    @contextmanager
    def announcing_end(self) -> Iterator[None]:
        """Tell the first launcher if a signal stops this launcher in the block, so that it does not wait for it."""
        try:
            yield
        except TrainingStopped:
            self._joining.write(f"stopped/{self.launcher.index}", "")
            raise

    def gather_requests(self, plan: RunPlan) -> None:
        """Wait until the other launchers request the plan, and check that their options are equal.

        Only the first launcher calls this.

        Raises:
            TrainingError: A launcher sends no request in time.
            UsageError: A launcher was started with other options.
        """
        for index in range(1, self.launcher.count):
            self._require_same(plan, RunPlan.model_validate_json(self._wait_for_other(index, "request")), index)

    def _require_same(self, plan: RunPlan, other: RunPlan, index: int) -> None:
        for name in _SAME:
            if getattr(plan, name) != getattr(other, name):
                raise UsageError(
                    f"{self.launcher.name_of(index)} was started with another {name} than the first",
                    hint="give the same options everywhere, except --node-rank",
                )

    def request(self, plan: RunPlan) -> RunPlan:
        """Send the plan of this launcher to the first launcher, and return the first launcher's plan.

        Raises:
            TrainingError: The first launcher does not answer, or does not start the run.
            DataError: The dataset's directory does not exist on this machine.
        """
        try:
            self._joining.write(f"request/{self.launcher.index}", plan.model_dump_json())
            received = RunPlan.model_validate_json(self._wait_for_first("plan"))
        except ChannelLost as error:
            raise _not_joined(f"{self.launcher.name_of(0)} does not say what to do: {error}") from error
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

        Raises:
            UsageError: The directory contains another run.
            TrainingError: The first launcher does not answer, or does not start the run.
        """
        shared = directory.plan.exists() and read_plan(directory.plan).run_id == plan.run_id
        if directory.plan.exists() and not shared:
            raise UsageError(
                f"{directory.path} already holds another run", hint="choose another --out; runs are never overwritten"
            )
        directory.join(self.launcher.index)
        self._joining.write(f"joined/{self.launcher.index}", "shared" if shared else "own")
        try:
            final = RunPlan.model_validate_json(self._wait_for_first("start"))
        except ChannelLost as error:
            raise _not_joined(f"{self.launcher.name_of(0)} does not begin: {error}") from error
        if not shared:
            directory.write_plan(final.model_dump_json(indent=2) + "\n")
        return final

    def gather_joined(self) -> bool:
        """Wait until all launchers have joined, and return whether all of them use the same directory.

        Raises:
            TrainingError: A launcher does not join in time.
        """
        answers = [self._wait_for_other(index, "joined") for index in range(1, self.launcher.count)]
        return all(answer == "shared" for answer in answers)

    def start(self, plan: RunPlan) -> None:
        """Let the other launchers start their ranks with the final plan."""
        self._joining.write("start", plan.model_dump_json())

    def announce_store(self, port: int) -> None:
        """Tell the other launchers at which port of the first one's machine the ranks' store listens."""
        self.session.write("store", str(port))

    def store_port(self) -> int:
        """Return the port at which the ranks' store listens on the first launcher's machine.

        Raises:
            TrainingError: The first launcher does not answer.
        """
        try:
            return int(self.session.wait_for("store", _STORE_S))
        except ChannelLost as error:
            raise _not_joined(f"{self.launcher.name_of(0)} does not start its ranks: {error}") from error

    def _wait_for_other(self, index: int, key: str) -> str:
        """Return what another launcher writes at its key.

        Raises:
            TrainingError: It writes nothing in time.
            TrainingStopped: A signal stopped the other launcher.
        """
        deadline_s = time.monotonic() + JOIN_S
        name = self.launcher.name_of(index)
        try:
            with self._waiting_for(f"{name} to join the run at {self.launcher.host}:{self.launcher.port}"):
                while (text := self._joining.read(f"{key}/{index}")) is None:
                    if self._joining.read(f"stopped/{index}") is not None:
                        raise TrainingStopped
                    if time.monotonic() > deadline_s:
                        raise ChannelLost(f"nothing came within {JOIN_S:.0f} s")
                    time.sleep(_POLL_S)
        except ChannelLost as error:
            raise _not_joined(f"{name} did not join the run: {error}") from error
        return text

    def _wait_for_first(self, key: str) -> str:
        deadline_s = time.monotonic() + JOIN_S
        with self._waiting_for(f"{self.launcher.name_of(0)} to start the run"):
            while (text := self._joining.read(key)) is None:
                refusal = self._joining.read("refused")
                if refusal == STOPPED:
                    raise TrainingStopped
                if refusal is not None:
                    raise TrainingError(f"{self.launcher.name_of(0)} ended: {refusal}", failure_class="not_begun")
                if time.monotonic() > deadline_s:
                    raise ChannelLost(f"nothing came within {JOIN_S:.0f} s")
                time.sleep(_POLL_S)
        return text

    def lose(self, index: int) -> Failure:
        """Mark a launcher without signs of life as lost, and return the failure to report."""
        self._lost.add(index)
        return Failure(
            failure_class=NODE_LOST,
            message=f"{self.launcher.name_of(index)} gives no sign of life",
            hint="look at that machine and at the network between them; with checkpoints the run can be resumed",
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
                reports.append(LauncherReport.model_validate_json(self.session.wait_for(f"report/{index}", left_s)))
            except ChannelLost:
                lost = Status(state="failed", failure=self.lose(index))
                reports.append(LauncherReport(status=lost, exit_code=1, recurs=True))
        return reports

    def decide(self, decision: Decision, *, through: Channel | None = None) -> None:
        """Send the first launcher's decision to the others, and wait until they have it. Then this process may end.

        Args:
            decision: The decision.
            through: Channel on which the others wait for the decision; ``None`` means the current session's channel.
        """
        channel = through or self.session
        try:
            channel.write("decision", decision.model_dump_json())
            for index in set(range(1, self.launcher.count)) - self._lost:
                channel.wait_for(f"ack/{index}", _ACK_S)
        except ChannelLost:
            return

    def report(self, own: LauncherReport) -> Decision:
        """Report to the first launcher and return its decision. Without an answer, decide from this report alone."""
        try:
            self.session.write(f"report/{self.launcher.index}", own.model_dump_json())
            decision = Decision.model_validate_json(self.session.wait_for("decision", _REPORT_S + _ACK_S))
            self.session.write(f"ack/{self.launcher.index}", "")
        except ChannelLost:
            status, code = own.status, own.exit_code
            if status.state == "completed" or _is_secondary(status):
                status, code = Status(state="failed", failure=self.lose(0)), 1
            return Decision(status=status, exit_code=code)
        return decision

    def open_session(self) -> int:
        """Open a new channel for restarted ranks, so that they do not read old keys. Return its port."""
        self.session = Channel(self.launcher.host, 0, listens=True)
        return self.session.port

    def follow_session(self, port: int) -> None:
        """Use the channel that the first launcher has opened on another port.

        Raises:
            TrainingError: No launcher listens on the port.
        """
        try:
            self.session = Channel(self.launcher.host, port)
        except ChannelLost as error:
            raise _not_joined(f"{self.launcher.name_of(0)} is gone: {error}") from error


def _meet(launcher: LauncherInfo) -> Channel:
    """Return the channel on which all launchers meet; the first one listens.

    Raises:
        ChannelLost: The first launcher is not found in time, or its port is taken.
    """
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
    """Return the report that tells why a run ended.

    Reports of the loss of another rank have the lowest priority: a rank that was told to stop is also lost to others.
    """

    def order(report: LauncherReport) -> int:
        status = report.status
        if status.state == "completed":
            return 4
        if status.state == "interrupted":
            return 2
        return 3 if _is_secondary(status) else 0 if _is_certain(status) else 1

    return min(reports, key=order)


def _is_certain(status: Status) -> bool:
    return status.failure is not None and status.failure.failure_class in (HANG, "rank_died")


def _is_secondary(status: Status) -> bool:
    return status.failure is not None and status.failure.failure_class in (*_SECONDARY, PEER_STOPPED, INTERRUPTED)


def _not_joined(message: str) -> TrainingError:
    return TrainingError(
        message,
        failure_class="not_joined",
        hint="start the same command on all machines; --rdzv is a free port that all of them can reach",
    )
