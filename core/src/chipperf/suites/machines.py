"""The machines of a suite: where each stands, and how the others see that the first one's suite goes on."""

from __future__ import annotations

import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

from chipperf.errors import UsageError
from chipperf.launch.launcher_info import from_options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chipperf.suites.state import SuiteDirectory, SuiteState

_PORTS = 16
"""Whoever still waits for an attempt that has ended must not meet the next one."""

_LAST_PORT = 2**16 - 1
_BEAT_S = 1.0


@dataclass(frozen=True, slots=True)
class Machine:
    """This machine among those of a suite.

    Attributes:
        node_rank: Its number; that of the first, which decides what runs, is 0.
        host: Name or address of the first.
        port: First of the ports there at which runs meet.
    """

    node_rank: int
    host: str
    port: int

    @property
    def is_first(self) -> bool:
        """True for the machine that decides what runs."""
        return self.node_rank == 0

    def port_of_attempt(self, number: int) -> int:
        """Return where the machines meet for an attempt, of which all of a suite are counted."""
        return self.port + number % _PORTS

    def options(self, port: int) -> list[str]:
        """Return the options of ``perf train`` that say where this machine stands."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return [f"--node-rank={self.node_rank}", f"--rdzv={host}:{port}"]


def machine_from_options(nnodes: int, node_rank: int | None, rendezvous: str | None) -> Machine | None:
    """Return the place that options give; ``None`` if no run of the suite needs several machines.

    Raises:
        UsageError: They are incomplete or contradict the plan.
    """
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
def session(state: SuiteState, directory: SuiteDirectory, *, is_followed: bool) -> Iterator[None]:
    """Say in the directory that the suite goes on while the block runs.

    Args:
        state: The suite's; changed, and written before the block and after it.
        directory: The suite's.
        is_followed: Whether other machines look for signs of life: a lock says nothing on many shared file systems, and
            clocks of machines differ.

    Raises:
        RecordError: The state cannot be written.
    """
    state.session += 1
    state.going_on = True
    directory.write(state)
    ended = threading.Event()
    # Followers take signs of life for those of the session in the file, which is written by now.
    beating = threading.Thread(target=_beat, args=(state.session, directory, ended), daemon=True)
    if is_followed:
        beating.start()
    try:
        yield
    finally:
        ended.set()
        if is_followed:
            beating.join()
        state.going_on = False
        directory.write(state)


def _beat(session: int, directory: SuiteDirectory, ended: threading.Event) -> None:
    for number in count():
        with suppress(OSError):
            directory.heartbeat.write_text(f"{session} {number}\n", encoding="utf-8")
        if ended.wait(_BEAT_S):
            return
