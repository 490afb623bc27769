"""Errors of loader processes. torch turns them into the text of a traceback, or loses them."""

from __future__ import annotations

import re
import shutil
import tempfile
import traceback
from contextlib import suppress
from multiprocessing.connection import Listener

from chipperf.errors import PerfError, PluginError, TrainingError

_LESS = "or use fewer loader processes, --set workers=N, or smaller batches"


def loader_error(error: Exception) -> PerfError:
    """Return the error for one of a loader process, whose log gets the traceback."""
    if isinstance(error, PerfError):
        return error
    traceback.print_exception(error)
    text = " ".join(str(error).split())[:500]
    if re.search("shared memory|shm|No space left", text):
        return _no_shared_memory(text)
    message, hint = f"a loader process failed: {type(error).__name__}: {text}", "its traceback is in the rank's log"
    return TrainingError(message, failure_class=type(error).__name__, hint=hint)


def find_loader_death(message: str) -> PerfError | None:
    """Return the error for the death of a loader process if torch's message reports one; it can come anywhere."""
    died = re.search(r"DataLoader worker \(pid.*", message)
    if died is None or "Bus error" in died[0]:
        return died and _no_shared_memory(died[0])
    hint = f"memory has probably run out: give the machine or container more, {_LESS}"
    return TrainingError(f"a loader process died: {died[0]}", failure_class="loader_died", hint=hint)


def require_sockets() -> None:
    """Check that loader processes can pass batches on, at sockets whose paths have at most 107 characters.

    Raises:
        PluginError: The temporary directory has no room for sockets.
    """
    try:
        Listener(family="AF_UNIX").close()
    except OSError as error:
        place = tempfile.tempdir or "the temporary directory"
        raise PluginError(
            f"loader processes cannot pass batches on at a socket in {place}: {error}",
            hint="set TMPDIR to a directory of a short path, such as /tmp, or load without processes: --set workers=0",
        ) from error


def _no_shared_memory(text: str) -> TrainingError:
    with suppress(OSError):
        text = f"{shutil.disk_usage('/dev/shm').total / 2**20:.4g} MiB in all: {text}"
    return TrainingError(
        f"shared memory, /dev/shm, is too small for a batch, {text}",
        failure_class="shared_memory",
        hint=f"enlarge it, for a container with --shm-size=16g or --ipc=host, {_LESS}",
    )
