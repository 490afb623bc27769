"""Programs that run one after another; a signal ends the current program and the sequence."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from typing import TYPE_CHECKING

from chipperf.run.programs import program
from chipperf.run.signals import stop_signals_handled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from types import FrameType

_POLL_S = 1.0

TRAIN_COMMAND = (*program("chipperf"), "train")
"""Command that starts a run in its own process, where its end-to-end time begins. Its memory is free afterwards."""


def require_torch() -> None:
    """Raise ``ModuleNotFoundError`` if torch is not installed. torch is not imported: that takes seconds."""
    if find_spec("torch") is None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")


class ProcessSequence:
    """Runs programs one after another, from the main thread.

    Each program has its own session, so that Ctrl-C reaches it once, through :meth:`stopping_at_signals`. A program
    that receives a second signal may end before its cleanup is complete.
    """

    def __init__(self) -> None:
        self.interrupted = False
        self._process: subprocess.Popen[bytes] | None = None

    @contextmanager
    def stopping_at_signals(self) -> Iterator[None]:
        """Let signals in the block end the current program. :meth:`run` then starts no other program."""
        with stop_signals_handled(self._stop):
            yield

    def run(
        self, command: Sequence[str], *, output: Path | None = None, is_overdue: Callable[[], bool] | None = None
    ) -> int | None:
        """Run a program to its end; ``OSError`` if it cannot be started.

        Args:
            command: Program and arguments.
            output: File to which the program's output is appended; ``None`` for this process's own output.
            is_overdue: Called once a second. If it returns true, the program is told to end.

        Returns:
            Exit code, negative for the signal that killed the program; ``None`` if a signal came before its start.
        """
        if self.interrupted:
            return None
        with output.open("ab") if output else nullcontext() as file:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT if file else None,
                start_new_session=True,
            )
            return self._wait(process, is_overdue)

    def _wait(self, process: subprocess.Popen[bytes], is_overdue: Callable[[], bool] | None) -> int:
        self._process = process
        try:
            if self.interrupted:
                # The signal came while the process started.
                process.terminate()
            while is_overdue is not None:
                try:
                    return process.wait(_POLL_S)
                except subprocess.TimeoutExpired:
                    if is_overdue():
                        process.terminate()
                        break
            return process.wait()
        finally:
            self._process = None

    def _stop(self, signum: int, frame: FrameType | None) -> None:
        if self.interrupted:
            return
        self.interrupted = True
        if self._process is not None:
            self._process.terminate()
