"""The launchers of one run on several machines: how they agree on its plan, on its end, and on going on after it.

The first one decides. The others tell it how their ranks ended and do what it says; whoever hears nothing from it for a
while ends by itself.
"""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from chipperf.errors import DataError, PerfError, TrainingError, UsageError
from chipperf.launch.channel import Channel, ChannelLost
from chipperf.records.schema import Failure, NodeResult, Status
from chipperf.run.failure import INTERRUPTED
from chipperf.run.plan import RunPlan, read_plan

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from chipperf.launch.membership import Membership
    from chipperf.run.directory import RunDirectory

JOIN_S = 300.0
"""Time within which all launchers of a run must have been started."""

_REPORT_S = 60.0
"""Time the others have to stop their ranks once one launcher's have ended: elastic kills them after 30 seconds."""

_FAREWELL_S = 5.0

NODE_LOST = "node_lost"
PEER_STOPPED = "peer_stopped"
HANG = "hang"

_SAME = ("vendor", "case", "case_version", "preset", "precision", "hyperparameters", "limits", "topology")
"""What every launcher must have been told alike."""

_SECONDARY = frozenset({"RuntimeError", "DistBackendError", "DistNetworkError", "DistStoreError", "ConnectionError"})
"""What a rank reports when a peer has left it."""


class Report(BaseModel):
    """How the ranks of one launcher ended, whether they would again, and what only it knows about its machine."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    status: Status
    exit_code: int
    recurs: bool
    node: NodeResult | None = None


class Decision(BaseModel):
    """What the first launcher decided after all ranks had ended: the run's end, or with ``plan`` that it goes on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    status: Status
    exit_code: int
    plan: RunPlan | None = None
    port: int | None = None


class Group:
    """This launcher among those of its run.

    Args:
        membership: Its place.
        origin_s: ``time.monotonic()`` when this machine's part of the run began.
        idle_memory_bytes: Memory in use on each device of this machine before the run.

    Raises:
        TrainingError: The first launcher cannot be found in time.
    """

    def __init__(self, membership: Membership, *, origin_s: float, idle_memory_bytes: Mapping[str, int]) -> None:
        self.membership = membership
        self.origin_s = origin_s
        self.idle_memory_bytes = idle_memory_bytes
        self._lost: set[int] = set()
        try:
            self._joining = Channel(membership.host, membership.port, listens=membership.hosts_store, timeout_s=JOIN_S)
        except ChannelLost as error:
            place = f"{membership.host}:{membership.port}"
            what = "cannot listen on" if membership.hosts_store else "found nobody at"
            raise _not_joined(f"{membership.name_of(membership.index)} {what} {place}: {error}") from error
        self.session = self._joining

    @contextmanager
    def announcing_errors(self) -> Iterator[None]:
        """Tell the others that the block failed on the first launcher: they need not wait."""
        try:
            yield
        except PerfError as error:
            self._joining.write("refused", error.message)
            raise

    def gather_requests(self, plan: RunPlan) -> None:
        """Wait for all launchers and see that they were started for the same run; on the first one.

        Raises:
            TrainingError: One does not come.
            UsageError: One was told something else.
        """
        for index in range(1, self.membership.count):
            try:
                other = RunPlan.model_validate_json(self._joining.wait_for(f"request/{index}", JOIN_S))
            except ChannelLost as error:
                raise _not_joined(f"{self.membership.name_of(index)} did not join the run: {error}") from error
            self._require_same(plan, other, index)

    def _require_same(self, plan: RunPlan, other: RunPlan, index: int) -> None:
        for name in _SAME:
            if getattr(plan, name) != getattr(other, name):
                raise UsageError(
                    f"{self.membership.name_of(index)} was started with another {name} than the first",
                    hint="give the same options everywhere, except --node-rank",
                )

    def request(self, plan: RunPlan) -> RunPlan:
        """Return the plan of the first launcher, in exchange for this one's.

        Raises:
            TrainingError: It does not answer, or refuses to begin.
            DataError: The data is not here.
        """
        try:
            self._joining.write(f"request/{self.membership.index}", plan.model_dump_json())
            received = RunPlan.model_validate_json(self._wait_for_first("plan"))
        except ChannelLost as error:
            raise _not_joined(f"{self.membership.name_of(0)} does not say what to do: {error}") from error
        if not received.data_root.is_dir():
            raise DataError(
                f"{received.data_root}, the dataset's directory on the first machine, does not exist here",
                hint="the data has to be in the same place on all machines",
            )
        return received

    def announce(self, plan: RunPlan) -> None:
        """Tell the others the plan."""
        self._joining.write("plan", plan.model_dump_json())

    def enter(self, directory: RunDirectory, plan: RunPlan) -> RunPlan:
        """Take a place in the run's directory, or in one of this machine, and return the plan that is final.

        Raises:
            UsageError: Another run lies in the directory.
            TrainingError: The first launcher does not answer, or refuses to begin.
        """
        shared = directory.plan.exists() and read_plan(directory.plan).run_id == plan.run_id
        if directory.plan.exists() and not shared:
            raise UsageError(
                f"{directory.path} already holds another run", hint="choose another --out; runs are never overwritten"
            )
        directory.join(self.membership.index)
        self._joining.write(f"entered/{self.membership.index}", "shared" if shared else "own")
        try:
            final = RunPlan.model_validate_json(self._wait_for_first("go"))
        except ChannelLost as error:
            raise _not_joined(f"{self.membership.name_of(0)} does not begin: {error}") from error
        if not shared:
            directory.write_plan(final.model_dump_json(indent=2) + "\n")
        return final

    def gather_entered(self) -> bool:
        """Wait until all launchers have a directory; return True if it is the same one everywhere.

        Raises:
            TrainingError: One does not come so far.
        """
        answers = []
        for index in range(1, self.membership.count):
            try:
                answers.append(self._joining.wait_for(f"entered/{index}", JOIN_S))
            except ChannelLost as error:
                raise _not_joined(f"{self.membership.name_of(index)} did not join the run: {error}") from error
        return all(answer == "shared" for answer in answers)

    def begin(self, plan: RunPlan) -> None:
        """Let the others start their ranks."""
        self._joining.write("go", plan.model_dump_json())

    def _wait_for_first(self, key: str) -> str:
        deadline_s = time.monotonic() + JOIN_S
        while (text := self._joining.read(key)) is None:
            refusal = self._joining.read("refused")
            if refusal is not None:
                raise TrainingError(f"{self.membership.name_of(0)} ended: {refusal}", failure_class="not_begun")
            if time.monotonic() > deadline_s:
                raise ChannelLost(f"nothing came within {JOIN_S:.0f} s")
            time.sleep(0.1)
        return text

    def lose(self, index: int) -> Failure:
        """Count a launcher out that gives no sign of life, and return what to say about it."""
        self._lost.add(index)
        return Failure(
            failure_class=NODE_LOST,
            message=f"{self.membership.name_of(index)} gives no sign of life",
            hint="look at that machine and at the network between them; with checkpoints the run can be resumed",
        )

    def gather_reports(self, own: Report) -> list[Report]:
        """Return how the ranks of all launchers ended, this one's first; one that says nothing is lost."""
        reports = [own]
        if own.status.state != "completed":
            stopped = Failure(failure_class=PEER_STOPPED, message=f"{self.membership.name_of(0)} has ended")
            with suppress(ChannelLost):
                self.session.write("halt", stopped.model_dump_json())
        deadline_s = time.monotonic() + _REPORT_S
        for index in range(1, self.membership.count):
            try:
                left_s = 0.0 if index in self._lost else max(0.0, deadline_s - time.monotonic())
                reports.append(Report.model_validate_json(self.session.wait_for(f"report/{index}", left_s)))
            except ChannelLost:
                lost = Status(state="failed", failure=self.lose(index))
                reports.append(Report(status=lost, exit_code=1, recurs=True))
        return reports

    def decide(self, decision: Decision, *, through: Channel | None = None) -> None:
        """Tell the others how it ends or goes on, and see that they know before this process may end.

        Args:
            decision: What the first launcher decided.
            through: Where the others wait for it, if that is no longer the present session's channel.
        """
        channel = through or self.session
        try:
            channel.write("decision", decision.model_dump_json())
            for index in set(range(1, self.membership.count)) - self._lost:
                channel.wait_for(f"farewell/{index}", _FAREWELL_S)
        except ChannelLost:
            return

    def report(self, own: Report) -> Decision:
        """Tell the first launcher how the ranks here ended, and return its decision; without one, this report's."""
        try:
            self.session.write(f"report/{self.membership.index}", own.model_dump_json())
            decision = Decision.model_validate_json(self.session.wait_for("decision", _REPORT_S + _FAREWELL_S))
            self.session.write(f"farewell/{self.membership.index}", "")
        except ChannelLost:
            status, code = own.status, own.exit_code
            if status.state == "completed" or _is_secondary(status):
                status, code = Status(state="failed", failure=self.lose(0)), 1
            return Decision(status=status, exit_code=code)
        return decision

    def open_session(self) -> int:
        """Listen on a port of its own for ranks that are started again: the keys of those before must not be met."""
        self.session = Channel(self.membership.host, 0, listens=True)
        return self.session.port

    def follow_session(self, port: int) -> None:
        """Go where the first launcher listens now.

        Raises:
            TrainingError: It is not there.
        """
        try:
            self.session = Channel(self.membership.host, port)
        except ChannelLost as error:
            raise _not_joined(f"{self.membership.name_of(0)} is gone: {error}") from error


def cause_of(reports: Sequence[Report]) -> Report:
    """Return the report that says why a run ended: what ranks say whom a peer has left comes last.

    Ranks that were told to stop leave the others, too.
    """

    def order(report: Report) -> int:
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
