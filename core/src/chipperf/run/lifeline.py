"""The end of a rank whose launcher has ended.

A launcher gives each rank the reading end of a pipe and never writes to it. The pipe is at its end when the launcher
is, however it ended, and a rank that would otherwise train on without it stops.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress

LIFELINE_VARIABLE = "CHIPPERF_LIFELINE"
"""Descriptor of the pipe's reading end."""

_GRACE_S = 30.0
"""Time within which a rank must save its results after SIGTERM."""


def end_with_launcher() -> None:
    """Watch the launcher in a thread; without a launcher, do nothing."""
    descriptor = os.environ.get(LIFELINE_VARIABLE)
    if descriptor is not None:
        threading.Thread(target=_wait_for_end, args=(int(descriptor),), daemon=True).start()


def _wait_for_end(descriptor: int) -> None:
    with suppress(OSError):
        while os.read(descriptor, 1):
            pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE_S)
    # Handlers run between Python's instructions only, and a collective without its peers may never return.
    os.kill(os.getpid(), signal.SIGKILL)
