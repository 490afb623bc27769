"""Machine 0 of a suite, which announces attempts to the other machines through a channel."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from chipperf.errors import TrainingError
from chipperf.launch.channel import Channel, ChannelLost, SignsOfLife
from chipperf.suites.machines import ATTEMPT_KEY, END_KEY, HERE, PLAN_KEY, JointAttempt, joined_key

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chipperf.suites.machines import Machine
    from chipperf.suites.state import NextAttempt
    from chipperf.suites.suite_plan import PlannedRun, SuitePlan

_BEAT_S = 1.0
_POLL_S = 0.1
_LEAVE_S = 5.0
"""Time within which the other machines must read that the suite has ended."""


class Leader:
    """Tells the other machines which attempts to join.

    Args:
        machine: Machine 0.
        channel: Channel that the other machines read.
    """

    def __init__(self, machine: Machine, channel: Channel) -> None:
        self.machine = machine
        self._channel = channel

    def joint_attempt(self, planned: PlannedRun, attempt: NextAttempt, *, number: int) -> JointAttempt:
        """Return an attempt for all machines. ``number`` is the number of earlier attempts in the suite."""
        port = self.machine.port_of_attempt(number)
        return JointAttempt(number=number, run=planned.name, attempt=attempt, port=port)

    @contextmanager
    def announced(self, joint: JointAttempt) -> Iterator[None]:
        """Let the others join an attempt while the block runs."""
        self._tell(ATTEMPT_KEY, joint.model_dump_json())
        yield
        self._tell(ATTEMPT_KEY, "")

    def _tell(self, key: str, text: str) -> None:
        # This process holds the store. If it does not answer, the run fails, because the others do not join it.
        with suppress(ChannelLost):
            self._channel.write(key, text)


@contextmanager
def leading(machine: Machine, plan: SuitePlan) -> Iterator[Leader]:
    """Let the other machines of a suite find this machine while the block runs.

    Raises:
        TrainingError: The port is taken, or ``--rdzv`` does not name this machine.
    """
    try:
        channel = Channel(machine.host, machine.suite_port, listens=True)
        signs = SignsOfLife(())
        signs.send(channel, 0)
        # A machine that has read the plan expects signs of life.
        channel.write(PLAN_KEY, plan.model_dump_json())
    except ChannelLost as error:
        raise TrainingError(
            f"machine 0 cannot listen on {machine.host}:{machine.suite_port}: {error}",
            hint="--rdzv names this machine, and the first of 16 free ports",
        ) from error
    ended = threading.Event()
    beating = threading.Thread(target=_beat, args=(signs, channel, ended), daemon=True)
    beating.start()
    try:
        yield Leader(machine, channel)
    finally:
        with suppress(ChannelLost):
            channel.write(END_KEY, "")
            _wait_until_all_left(channel, range(1, plan.nnodes))
        ended.set()
        beating.join()
        channel.close()


def _beat(signs: SignsOfLife, channel: Channel, ended: threading.Event) -> None:
    while not ended.wait(_BEAT_S):
        with suppress(ChannelLost):
            signs.send(channel, 0)


def _wait_until_all_left(channel: Channel, machines: range) -> None:
    """Keep the store until every joined machine knows that the suite has ended."""
    deadline_s = time.monotonic() + _LEAVE_S
    while any(channel.read(joined_key(node_rank)) == HERE for node_rank in machines):
        if time.monotonic() > deadline_s:
            return
        time.sleep(_POLL_S)
