"""A run's directory: where everything lies, and how it is written without ever being half-written."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psutil
from pydantic import ValidationError

from chipperf.errors import RecordError, UsageError, first_fault
from chipperf.records.schema import METRICS_VERSION, SCHEMA_VERSION, Failure, Record, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

RECORD_NAME: Final = "record.json"
"""Name of a record's file."""

_RESERVE_BYTES = 4 * 1024 * 1024
"""More than the record of a full ImageNet run, whose ten thousand windows are its largest part."""


_LONGEST_INTEGER = 19
"""Characters of the largest integer that anything counts."""


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
                raise _disk_full(self.path) from error
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
                raise _disk_full(self.path) from error
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
        self.process.write_text(json.dumps(_identify_process()), encoding="utf-8")

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
        for process in self._processes():
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
        self._role(role).write_text(json.dumps(_identify_process()), encoding="utf-8")

    def _role(self, role: str) -> Path:
        return self.process.with_name(f"process-{role}.json")

    def has_live_process(self) -> bool:
        """Return False if the launcher and its ranks are known to be gone; nothing is known of another machine's."""
        return any(_is_alive(process) for process in self._processes())

    def _processes(self) -> list[Path]:
        return list(self.path.glob("process*.json"))

    def _write_with_reserve(self, path: Path, text: str) -> None:
        try:
            write_atomically(path, text)
        except RecordError:
            if not self._reserve.exists():
                raise
            # Another rank may use the space at the same moment.
            self._reserve.unlink(missing_ok=True)
            write_atomically(path, text)


def record_text(record: Record) -> str:
    """Return the content of the record's file."""
    return record.model_dump_json(indent=2) + "\n"


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write ``content`` to ``path`` so that a reader sees the old content or the new one, and a crash loses neither.

    Text is written as UTF-8.

    Raises:
        RecordError: The file cannot be written; what was there before is intact.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        try:
            with temporary.open("wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _disk_full(path) from error
        raise RecordError(
            f"cannot write {path}: {error.strerror}", hint="check that the directory still exists"
        ) from error


def find_records(directory: Path, *, onerror: Callable[[OSError], None] | None = None) -> Iterator[Path]:
    """Yield the files called ``record.json`` below a directory, in the order of their directories' names.

    Args:
        directory: Where to look, at any depth; links to directories are not followed.
        onerror: Called with why a directory cannot be read; without it, such directories are passed over.
    """
    for place, subdirectories, names in os.walk(directory, onerror=onerror):
        subdirectories.sort()
        if RECORD_NAME in names:
            yield Path(place) / RECORD_NAME


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRecord:
    """A record as it lies on disk.

    Attributes:
        record: The record.
        file: Its file.
        sha256: Digest of the file's bytes, in hexadecimal.
    """

    record: Record
    file: Path
    sha256: str


def read_record(path: Path) -> Record:
    """Read the record of a run.

    Args:
        path: A run's directory or its ``record.json``.

    Raises:
        RecordError: There is none, it is not a record, or it was written by a newer chipperf; the message says where.
    """
    return read_stored(path).record


def read_stored(path: Path) -> StoredRecord:
    """Read the record of a run, and the digest of its file.

    Args:
        path: A run's directory or its ``record.json``.

    Raises:
        RecordError: There is none, it is not a record, or it was written by a newer chipperf; the message says where.
    """
    file = path / RECORD_NAME if path.is_dir() else path
    try:
        content = file.read_bytes()
    except FileNotFoundError as error:
        raise RecordError(
            f"no record at {file}", hint="name the directory of a run, as 'perf train' prints it"
        ) from error
    except OSError as error:
        raise RecordError(f"cannot read {file}: {error.strerror}") from error
    return StoredRecord(record=_parse_record(content, file), file=file, sha256=hashlib.sha256(content).hexdigest())


def _parse_record(text: bytes, file: Path) -> Record:
    try:
        content = json.loads(text.decode("utf-8"), parse_int=_parse_integer)
    except UnicodeDecodeError as error:
        raise RecordError(f"{file} is not a record: byte {error.start} is not UTF-8") from error
    except json.JSONDecodeError as error:
        raise RecordError(f"{file}:{error.lineno}:{error.colno}: not JSON: {error.msg}") from error
    except RecursionError as error:
        raise RecordError(f"{file} is not a record: nested too deeply") from error
    except ValueError as error:
        raise RecordError(f"{file} is not a record: {error}") from error
    _require_known_version(file, content)
    try:
        record = Record.model_validate(content)
    except ValidationError as error:
        raise RecordError(f"{file}: {first_fault(error)}", hint="the file was edited or is incomplete") from error
    if record.status.state == "running" and not RunDirectory(file.parent).has_live_process():
        return record.model_copy(update={"status": _KILLED})
    return record


def _parse_integer(text: str) -> int:
    """Return an integer that fits into 64 bits: arithmetic with floats fails on much larger ones."""
    if len(text) > _LONGEST_INTEGER:
        raise ValueError(f"a number has {len(text)} digits")
    return int(text)


_KILLED = Status(
    state="killed",
    failure=Failure(failure_class="killed", message="the run's processes are gone and left no result"),
)


def _require_known_version(file: Path, content: Any) -> None:
    if not isinstance(content, dict) or not isinstance(content.get("schema_version"), int):
        raise RecordError(f"{file} is not a record: schema_version is missing")
    for key, known in (("schema_version", SCHEMA_VERSION), ("metrics_version", METRICS_VERSION)):
        written = content.get(key, known)
        if isinstance(written, int) and written > known:
            writer = content.get("chipperf_version", "a newer version")
            raise RecordError(
                f"{file} has {key} {written}; this chipperf reads up to {known}",
                hint=f"it was written by chipperf {writer}: pip install --upgrade chipperf",
            )


def _disk_full(path: Path) -> RecordError:
    return RecordError(
        f"the disk is full: cannot write {path}", hint="free some space; what was written before is intact"
    )


def _is_alive(process: Path) -> bool:
    try:
        written = json.loads(process.read_text(encoding="utf-8"))
        if written["host"] != platform.node():
            return True
        found = psutil.Process(written["pid"])
        # Where nobody waits for orphans, one that has ended keeps its number.
        return abs(found.create_time() - written["created"]) < 1 and found.status() != psutil.STATUS_ZOMBIE
    except (OSError, ValueError, KeyError, TypeError, psutil.Error):
        return False


def _identify_process() -> dict[str, Any]:
    process = psutil.Process()
    return {"pid": process.pid, "created": process.create_time(), "host": platform.node()}
