"""The process files of a run, which distinguish a killed run from a running one.

Each process of a run locks a file ``process*.json`` in the run's directory for as long as it lives, and removes it when
it ends. The kernel releases the lock however the process ends, and it holds for other PID namespaces as well. Some
network file systems keep locks to one machine; for those, launchers touch their files every second.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from chipperf.errors import UsageError

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_WATCHED_S: Final = 3.0
"""Time within which a living launcher on another machine touches its file."""

_LOOK_S: Final = 0.5
"""Time in which whoever only looks whether the run is alive, for which the lock is needed, has long let go of it."""

_SURELY_ENDED_S: Final = 600.0


def hold_process_file(path: Path) -> int:
    """Lock a process file with the identity of this process, and return its descriptor. Closing it releases the lock.

    Raises:
        UsageError: Another process holds it.
        OSError: The file cannot be written.
    """
    patient_until_s = time.monotonic() + _LOOK_S
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The process that held it may have removed it since it was opened.
            if path.exists() and path.stat().st_ino == os.fstat(descriptor).st_ino:
                break
        except BlockingIOError as error:
            os.close(descriptor)
            if time.monotonic() < patient_until_s:
                time.sleep(_LOOK_S / 20)
                continue
            raise UsageError(
                f"the run in {path.parent} is still running", hint="wait for its end, or stop it first"
            ) from error
        os.close(descriptor)
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps({"pid": os.getpid(), "host": platform.node(), "boot": _boot_id()}).encode())
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def process_files(directory: Path) -> list[Path]:
    """Return the process files in the directory of a run."""
    return list(directory.glob("process*.json"))


def has_live_process(directory: Path, *, thorough: bool) -> bool:
    """Return whether a process of the run is alive.

    Args:
        directory: The run's directory.
        thorough: Watch files of other machines for some seconds, instead of believing that their clocks agree.
    """
    elsewhere = []
    for path in process_files(directory):
        if _is_locked(path):
            return True
        with suppress(OSError, ValueError, TypeError, KeyError):
            if json.loads(path.read_text(encoding="utf-8"))["boot"] != _boot_id():
                elsewhere.append(path)
    if not thorough:
        elsewhere = [path for path in elsewhere if time.time() - _touched_ns(path) / 1e9 < _SURELY_ENDED_S]
    if not elsewhere:
        return False
    before = [_touched_ns(path) for path in elsewhere]
    time.sleep(_WATCHED_S)
    return before != [_touched_ns(path) for path in elsewhere]


def _is_locked(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _touched_ns(path: Path) -> int:
    """Return when the file was touched. Opening it makes a network file system ask its server."""
    try:
        with path.open("rb") as file:
            return os.fstat(file.fileno()).st_mtime_ns
    except OSError:
        return 0


def host_digest() -> str:
    """Return a digest that distinguishes this boot of this machine from others without revealing its name."""
    return hashlib.sha256(_boot_id().encode()).hexdigest()


def _boot_id() -> str:
    """Return a name of this machine until it restarts, which all of its containers see alike."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return platform.node()
