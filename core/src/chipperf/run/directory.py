"""A run's directory: the paths of its files, and the checks before writing to it."""

from __future__ import annotations

import errno
import json
import os
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chipperf.errors import RecordError, UsageError
from chipperf.records.checkpoints import digest_of
from chipperf.records.files import disk_full, write_atomically
from chipperf.records.process_files import has_live_process, hold_process_file, process_files
from chipperf.records.schema import EVIDENCE
from chipperf.records.store import RECORD_NAME, record_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from chipperf.records.schema import Record
    from chipperf.run.plan import RunPlan

_RESERVE_BYTES = 4 * 1024 * 1024
"""Size of the reserved space. It is larger than the record of a full ImageNet run with its ten thousand windows."""


_PLANNING_S = 1800.0
"""Longest time between the start of a session and its plan, while launchers meet and checkpoints are verified."""


def rank_log_name(rank: int) -> str:
    """Return the path of a rank's log, relative to the run's directory."""
    return f"logs/rank{rank}.log"


@contextmanager
def writing_to(directory: Path, hint: str = "choose another directory with --out") -> Iterator[None]:
    """Let an :class:`OSError` in the block be a :class:`UsageError`, or a :class:`RecordError` if the disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise disk_full(directory) from error
        raise UsageError(f"cannot write to {directory}: {error.strerror}", hint=hint) from error


@dataclass
class RunDirectory:
    """A run's directory.

    Attributes:
        plan: The plan that the launcher writes for the workers.
        events: Event log of the main process, one JSON object per line.
        progress: Latest progress of the main process. The file is overwritten.
        process: File that the first launcher locks while it lives.
        checkpoints: Directory of the checkpoints until the run completes.
        held: Locked process files. Without one, the run is another process's.
    """

    path: Path

    def __post_init__(self) -> None:
        self.record = self.path / RECORD_NAME
        self.plan = self.path / "plan.json"
        self.events = self.path / "events.jsonl"
        self.progress = self.path / "progress.json"
        self.process = self.path / "process.json"
        self.checkpoints = self.path / "checkpoints"
        self._reserve = self.path / ".reserve"
        self.held: list[int] = []

    def log(self, rank: int) -> Path:
        """Log of one rank's output."""
        return self.path / rank_log_name(rank)

    def telemetry(self, node_rank: int) -> Path:
        """Telemetry of one machine's devices, one JSON object per line."""
        return self.path / f"telemetry-node{node_rank}.jsonl"

    def failure(self, rank: int) -> Path:
        """The failure of one rank."""
        return self.path / "logs" / f"rank{rank}.failure.json"

    def evidence(self) -> dict[str, str]:
        """Return the SHA-256 of the files that witness the run's record, by path in this directory."""
        paths = (path for pattern in EVIDENCE for path in sorted(self.path.glob(pattern)))
        found = {}
        for path in (path for path in paths if path.is_file() and not path.is_symlink()):
            # A file that cannot be read is no evidence, and must not cost the record.
            with suppress(OSError):
                found[path.relative_to(self.path).as_posix()] = digest_of(path).sha256
        return found

    def create(self) -> None:
        """Create the directory and reserve some space, so that a full disk can still be reported.

        A :class:`UsageError` says that it contains another run or cannot be written.
        """
        with writing_to(self.path):
            self.require_no_run()
            (self.path / "logs").mkdir(parents=True, exist_ok=True)
            self._occupy()
            try:
                # Another process may have created, or even finished, a run here in between.
                self.require_no_run()
            except UsageError:
                self.release_reserve()
                raise

    def require_no_run(self) -> None:
        """Raise :class:`UsageError` if the directory contains a run or a part of one, which is never overwritten.

        New events and readings would be appended to old ones, and a completed run removes its checkpoints.
        """
        parts = (self.record, self.plan, self.events, self.checkpoints, *self.path.glob("telemetry-node*.jsonl"))
        if found := [path.name for path in parts if path.exists()]:
            raise UsageError(
                f"{self.path} already holds a run: {', '.join(found)}",
                hint="choose another --out; runs are never overwritten",
            )

    def join(self, index: int) -> None:
        """Prepare the directory for the further launcher ``index`` of the run, on the same or on another machine."""
        with writing_to(self.path):
            (self.path / "logs").mkdir(parents=True, exist_ok=True)
            self.held.append(hold_process_file(self._process_file(f"launcher{index}")))

    def write_plan(self, plan: RunPlan) -> None:
        """Replace the plan; raises :class:`RecordError` if it cannot be written."""
        write_atomically(self.plan, plan.model_dump_json(indent=2) + "\n")

    def reopen(self) -> None:
        """Take over the directory of a run to resume it; a :class:`UsageError` if its processes have not ended."""
        self.require_ended()
        with writing_to(self.path, "check its permissions"):
            self.forget_failures()
            self._occupy()

    def _occupy(self) -> None:
        """Let no other process use the directory, and reserve space."""
        self.held.append(hold_process_file(self.process))
        try:
            self._reserve.write_bytes(os.urandom(_RESERVE_BYTES))
        except OSError:
            self.release_reserve()
            raise

    def require_ended(self) -> None:
        """Raise :class:`UsageError` if a process of the run is alive. Of another machine's this takes seconds."""
        if has_live_process(self.path, thorough=True):
            raise UsageError(f"the run in {self.path} is still running", hint="wait for its end, or stop it first")

    def forget_failures(self) -> None:
        """Remove the failures that ranks reported in the previous session."""
        for failure in self.path.glob("logs/rank*.failure.json"):
            failure.unlink(missing_ok=True)

    def last_sign_of_life_s(self, planned_s: float) -> float:
        """Return the time of the run's last write to any of its files, in seconds since the epoch.

        If the plan was not written at about ``planned_s``, the files are copies, and the last event tells the time.
        """
        if abs(self.plan.stat().st_mtime - planned_s) > _PLANNING_S:
            for line in reversed(self.events.read_text(encoding="utf-8").splitlines() if self.events.exists() else []):
                with suppress(ValueError, TypeError, KeyError):
                    return float(json.loads(line)["metadata"]["time_ms"]) / 1000
            return planned_s
        written = [self.record, self.events, self.progress, *self.path.glob("telemetry-*"), *self.path.glob("logs/*")]
        return max((path.stat().st_mtime for path in written if path.exists()), default=0.0)

    def state_of_progress(self) -> tuple[tuple[int, int], ...]:
        """Return a value that changes when a rank writes progress, an event, output or part of a checkpoint.

        Only compare the value; it is not a time. A change of the system clock can therefore not hide missing progress.
        """
        found = [self.progress, self.events, *self.path.glob("logs/*.log"), *self.path.glob("checkpoints/*/*")]
        states = []
        for path in sorted(found):
            with suppress(OSError):
                status = path.stat()
                states.append((status.st_mtime_ns, status.st_size))
        return tuple(states)

    def write_record(self, record: Record) -> None:
        """Replace ``record.json`` atomically, on a full disk with the reserved space.

        If the record cannot be written, a :class:`RecordError` says so, and the previous one is intact.
        """
        self._write_with_reserve(self.record, record_text(record))

    def write_failure(self, rank: int, text: str) -> None:
        """Write the failure of a rank like a record."""
        self._write_with_reserve(self.failure(rank), text)

    def release_reserve(self) -> None:
        """Release the reserved space after the run has written everything."""
        self._reserve.unlink(missing_ok=True)
        self._release(process_files(self.path))

    def leave(self, index: int, ranks: Iterable[int]) -> None:
        """Remove the process files of a launcher and its ranks."""
        self._release(self._process_file(role) for role in (f"launcher{index}", *(f"rank{rank}" for rank in ranks)))

    def _release(self, paths: Iterable[Path]) -> None:
        for path in paths:
            path.unlink(missing_ok=True)
        while self.held:
            os.close(self.held.pop())

    def show_life(self) -> None:
        """Touch the files that this launcher holds, for machines that do not see its locks."""
        for descriptor in self.held:
            with suppress(OSError):
                os.utime(descriptor)

    def register_rank(self, rank: int) -> None:
        """Hold a file while this process lives, also after an exec. It may live slightly longer than the launcher."""
        # The disk may be full, or a loader of a rank that was killed still holds the file.
        with suppress(OSError, UsageError):
            self.held.append(hold_process_file(self._process_file(f"rank{rank}")))
            os.set_inheritable(self.held[-1], True)

    def _process_file(self, role: str) -> Path:
        return self.process.with_name(f"process-{role}.json")

    def _write_with_reserve(self, path: Path, text: str) -> None:
        try:
            write_atomically(path, text)
        except RecordError:
            if not self._reserve.exists():
                raise
            # Another rank may use the space at the same moment.
            self._reserve.unlink(missing_ok=True)
            write_atomically(path, text)
