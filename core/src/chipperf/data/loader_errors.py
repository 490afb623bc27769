"""Errors of loader processes. torch turns them into the text of a traceback, or loses them."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
import traceback
from contextlib import suppress
from multiprocessing.connection import Listener
from pathlib import Path

from chipperf.errors import PerfError, PluginError, TrainingError

_SHARED_MEMORY = Path("/dev/shm")
_IS_FULL = re.compile(rf"shared memory|shm|{re.escape(os.strerror(errno.ENOSPC))}")
_DIED = re.compile(r"DataLoader worker \(pid.*")
"""What torch says in the training process, at any place of its code, after a loader process has died."""

_LESS = "lower the loader processes with --set workers=N, or the batch size"


def describe_loader_error(error: Exception) -> PerfError:
    """Return the error to raise in the training process for one in a loader process, whose log gets the traceback."""
    if isinstance(error, PerfError):
        return error
    traceback.print_exception(error)
    text = " ".join(str(error).split())[:500]
    if _IS_FULL.search(text):
        return _shared_memory_full(text)
    return TrainingError(
        f"a loader process failed: {type(error).__name__}: {text}",
        failure_class=type(error).__name__,
        hint="its traceback is in the log of the rank",
    )


def find_loader_death(message: str) -> PerfError | None:
    """Return the error for a message of torch that tells of the death of a loader process; ``None`` for others."""
    died = _DIED.search(message)
    if died is None:
        return None
    if "Bus error" in died[0]:
        return _shared_memory_full(died[0])
    return TrainingError(
        f"a loader process died: {died[0]}",
        failure_class="loader_died",
        hint=f"if it was killed, memory has probably run out: {_LESS}, or give the machine or container more memory",
    )


def require_sockets() -> None:
    """Check that a loader can pass batches on: its processes meet at sockets in the temporary directory.

    Raises:
        PluginError: There can be no sockets. Their paths have at most 107 characters.
    """
    try:
        Listener(family="AF_UNIX").close()
    except OSError as error:
        place = tempfile.tempdir or "the temporary directory"
        raise PluginError(
            f"loader processes cannot pass batches on: no socket can be made in {place}: {error}",
            hint="set TMPDIR to a directory with a short path, for example /tmp; or load without processes, "
            "--set workers=0",
        ) from error


def _shared_memory_full(text: str) -> TrainingError:
    size = ""
    with suppress(OSError):
        size = f" of {shutil.disk_usage(_SHARED_MEMORY).total / 2**20:.4g} MiB"
    return TrainingError(
        f"a loader process has no room for a batch in the shared memory{size}, {_SHARED_MEMORY}: {text}",
        failure_class="shared_memory",
        hint=f"enlarge it, for a container with --shm-size=16g or --ipc=host, or {_LESS}",
    )
