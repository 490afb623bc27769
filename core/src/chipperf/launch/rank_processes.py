"""The processes of a launcher's ranks: how they start, and how they are ended together."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from chipperf.errors import TrainingStopped
from chipperf.run.failure import DUMP_SIGNAL
from chipperf.run.lifeline import LIFELINE_VARIABLE
from chipperf.run.ranks import rank_variables
from chipperf.run.rendezvous import SOCKET_VARIABLE
from chipperf.run.signals import stop_signals_handled

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence
    from types import FrameType

    from chipperf.plugin.types import Rank

_POLL_S = 0.05

GRACE_S = 25.0
"""Time within which ranks must save their results. torchrun and Slurm kill this process after 30 seconds."""

_DUMP_S = 3.0


class StopSignals(ExitStack):
    """Notes in ``requested`` that a signal told this launcher to stop while its block runs.

    While it ``interrupts``, the signal raises ``TrainingStopped``. Once there are ranks, it is only noted, and
    :meth:`RankProcesses.wait` ends them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.requested = False
        self.interrupts = True
        self.enter_context(stop_signals_handled(self._note))

    def _note(self, signum: int, frame: FrameType | None) -> None:
        first, self.requested = not self.requested, True
        if first and self.interrupts:
            raise TrainingStopped


class RankProcesses:
    """Starts one process for each of ``ranks``. ``told_s`` is when it first told them to stop, ``time.monotonic()``.

    Each process has a session of its own, so that Ctrl-C reaches it once, through this launcher, and it ends when this
    launcher does (:mod:`chipperf.run.lifeline`). The ranks' store is at ``host`` and ``port``; rank 0 gets its
    ``listener``.
    """

    def __init__(
        self, command: Sequence[str], ranks: Sequence[Rank], host: str, port: int, listener: socket.socket | None
    ) -> None:
        self.told_s = math.inf
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        # The writing end stays in this process alone and is closed by its end.
        reading, self._lifeline = os.pipe()
        for rank in ranks:
            variables = {LIFELINE_VARIABLE: str(reading), **rank_variables(rank, host, port)}
            descriptors = [reading]
            if rank.is_main and listener is not None:
                variables[SOCKET_VARIABLE] = str(listener.fileno())
                descriptors.append(listener.fileno())
            self._processes[rank.rank] = subprocess.Popen(
                command,
                env=os.environ | variables,
                stdin=subprocess.DEVNULL,
                pass_fds=descriptors,
                start_new_session=True,
            )
        os.close(reading)

    def wait(self, signals: StopSignals, *, on_signal: Callable[[], None]) -> dict[int, int]:
        """Wait until all ranks have ended. A rank that fails, and a signal, end the others.

        ``on_signal`` is called once if a signal came, before the ranks are told to stop. Return the exit codes of the
        ranks that failed on their own, by rank, negative for the signal that killed a process.
        """
        while self.running and not self._failed() and not signals.requested:
            time.sleep(_POLL_S)
        failed = self._failed()
        if signals.requested:
            on_signal()
        self.stop(GRACE_S)
        os.close(self._lifeline)
        return failed

    def stop(self, grace_s: float) -> None:
        """Tell the ranks to stop, and kill those that still run after some time."""
        self.told_s = min(self.told_s, time.monotonic())
        self._end(signal.SIGTERM, grace_s)
        for process in self._processes.values():
            process.wait()

    def kill_with_stacks(self) -> None:
        """Let the ranks write the stacks of their threads to their logs, and kill them."""
        self._end(DUMP_SIGNAL, _DUMP_S)

    @property
    def running(self) -> bool:
        """True if a rank runs."""
        return any(process.poll() is None for process in self._processes.values())

    def _failed(self) -> dict[int, int]:
        return {rank: code for rank, process in self._processes.items() if (code := process.poll())}

    def _end(self, number: signal.Signals, grace_s: float) -> None:
        self._send(number)
        deadline_s = time.monotonic() + grace_s
        while self.running and time.monotonic() < deadline_s:
            time.sleep(_POLL_S)
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        for process in self._processes.values():
            with suppress(ProcessLookupError):
                process.send_signal(number)
