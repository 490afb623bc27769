"""A run's directory: which file lies where, and who may write there."""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chipperf.errors import RecordError, UsageError
from chipperf.records.files import disk_full, write_atomically
from chipperf.records.processes import has_live_process, process_files, write_process_file
from chipperf.records.store import RECORD_NAME, record_text

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from chipperf.records.schema import Record


_RESERVE_BYTES = 4 * 1024 * 1024
"""More than the record of a full ImageNet run, whose ten thousand windows are its largest part."""


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """Paths inside a run's directory."""

    path: Path

    @property
    def record(self) -> Path:
        """The run's record."""
        return self.path / RECORD_NAME

    @property
    def plan(self) -> Path:
        """What the launcher tells the workers."""
        return self.path / "plan.json"

    @property
    def events(self) -> Path:
        """Event log of the main process, one JSON object per line."""
        return self.path / "events.jsonl"

    @property
    def progress(self) -> Path:
        """Latest progress of the main process, overwritten."""
        return self.path / "progress.json"

    @property
    def process(self) -> Path:
        """The launcher's process, by which a killed run is recognised."""
        return self.path / "process.json"

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints lie until the run completes."""
        return self.path / "checkpoints"

    @property
    def _reserve(self) -> Path:
        return self.path / ".reserve"

    def log(self, rank: int) -> Path:
        """Log of one rank's output."""
        return self.path / "logs" / f"rank{rank}.log"

    def telemetry(self, node_rank: int) -> Path:
        """Telemetry of one machine's devices, one JSON object per line."""
        return self.path / f"telemetry-node{node_rank}.jsonl"

    def failure(self, rank: int) -> Path:
        """Why one rank stopped."""
        return self.path / "logs" / f"rank{rank}.failure.json"

    def create(self) -> None:
        """Create the directory and set a little space aside, so that a full disk can still be reported.

        Raises:
            UsageError: The directory cannot be written, or another run lies in it.
            RecordError: The disk is full.
        """
        try:
            if self.record.exists() or self.plan.exists():
                raise UsageError(
                    f"{self.path} already holds a run", hint="choose another --out; runs are never overwritten"
                )
            (self.path / "logs").mkdir(parents=True, exist_ok=True)
            self._occupy()
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                self._reserve.unlink(missing_ok=True)
                raise disk_full(self.path) from error
            raise UsageError(
                f"cannot write to {self.path}: {error.strerror}", hint="choose another directory with --out"
            ) from error

    def join(self, index: int) -> None:
        """Write logs and telemetry here beside the first launcher's, or alone on a machine that has its own directory.

        Args:
            index: This launcher among those of the run.

        Raises:
            UsageError: The directory cannot be written.
        """
        try:
            (self.path / "logs").mkdir(parents=True, exist_ok=True)
            self._identify(f"launcher{index}")
        except OSError as error:
            raise UsageError(
                f"cannot write to {self.path}: {error.strerror}", hint="choose another directory with --out"
            ) from error

    def write_plan(self, text: str) -> None:
        """Replace ``plan.json``.

        Raises:
            RecordError: It cannot be written.
        """
        write_atomically(self.plan, text)

    def reopen(self) -> None:
        """Take over the directory of a run whose processes are gone, to continue it.

        Raises:
            UsageError: The run's processes are alive, or the directory cannot be written.
            RecordError: The disk is full.
        """
        self.require_ended()
        try:
            self.forget_failures()
            self._occupy()
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                self._reserve.unlink(missing_ok=True)
                raise disk_full(self.path) from error
            raise UsageError(f"cannot write to {self.path}: {error.strerror}", hint="check its permissions") from error

    def require_ended(self) -> None:
        """Refuse a run that is alive.

        Raises:
            UsageError: The launcher or one of its ranks is.
        """
        if self.has_live_process():
            raise UsageError(f"the run in {self.path} is still running", hint="wait for its end, or stop it first")

    def forget_failures(self) -> None:
        """Remove what the ranks of the session before said of its end."""
        for failure in self.path.glob("logs/rank*.failure.json"):
            failure.unlink(missing_ok=True)

    def _occupy(self) -> None:
        """Set space aside, and say whose the directory is."""
        self._reserve.write_bytes(os.urandom(_RESERVE_BYTES))
        write_process_file(self.process)

    def remove_checkpoints(self) -> None:
        """Remove the checkpoints of a run that is complete and needs none."""
        shutil.rmtree(self.checkpoints, ignore_errors=True)

    def last_sign_of_life_s(self) -> float:
        """Return when the run last wrote any of its files, in seconds since the epoch."""
        written = [self.record, self.events, self.progress, *self.path.glob("telemetry-*"), *self.path.glob("logs/*")]
        return max((path.stat().st_mtime for path in written if path.exists()), default=0.0)

    def state_of_progress(self) -> tuple[tuple[int, int], ...]:
        """Return what changes whenever a rank reports progress, an event, output or part of a checkpoint.

        It is compared, never read as a time: a clock that is set does not look like progress for long, nor like none.
        """
        found = [self.progress, self.events, *self.path.glob("logs/*.log"), *self.path.glob("checkpoints/*/*")]
        states = []
        for path in sorted(found):
            with suppress(OSError):
                status = path.stat()
                states.append((status.st_mtime_ns, status.st_size))
        return tuple(states)

    def write_record(self, record: Record) -> None:
        """Replace ``record.json`` atomically; on a full disk the space set aside is used.

        Raises:
            RecordError: It cannot be written; the previous record is intact.
        """
        self._write_with_reserve(self.record, record_text(record))

    def write_failure(self, rank: int, text: str) -> None:
        """Write why a rank stopped; on a full disk the space set aside is used.

        Raises:
            RecordError: It cannot be written.
        """
        self._write_with_reserve(self.failure(rank), text)

    def release_reserve(self) -> None:
        """Give back the space set aside, when the run has written everything."""
        self._reserve.unlink(missing_ok=True)
        for process in process_files(self.path):
            process.unlink(missing_ok=True)

    def leave(self, index: int, ranks: Iterable[int]) -> None:
        """Remove what says that a launcher and its ranks are alive."""
        for role in (f"launcher{index}", *(f"rank{rank}" for rank in ranks)):
            self._role(role).unlink(missing_ok=True)

    def register_rank(self, rank: int) -> None:
        """Say that this process is one of the run's: it may outlive the launcher by a moment.

        It goes without on a disk that is full.
        """
        with suppress(OSError):
            self._identify(f"rank{rank}")

    def _identify(self, role: str) -> None:
        write_process_file(self._role(role))

    def _role(self, role: str) -> Path:
        return self.process.with_name(f"process-{role}.json")

    def has_live_process(self) -> bool:
        """Return False if the launcher and its ranks are known to be gone; nothing is known of another machine's."""
        return has_live_process(self.path)

    def _write_with_reserve(self, path: Path, text: str) -> None:
        try:
            write_atomically(path, text)
        except RecordError:
            if not self._reserve.exists():
                raise
            # Another rank may use the space at the same moment.
            self._reserve.unlink(missing_ok=True)
            write_atomically(path, text)
