"""The signals that tell a program to stop: Ctrl-C, a scheduler's SIGTERM, and the loss of the terminal."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    Handler = Callable[[int, FrameType | None], Any]

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@contextmanager
def stop_signals_handled(handler: Handler) -> Iterator[None]:
    """Let ``handler`` handle the stop signals in the block.

    nohup and background jobs of shells ignore some signals. Those stay ignored.
    """
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    handled = {number: old for number, old in before.items() if old is not signal.SIG_IGN}
    for number in handled:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in handled.items():
            signal.signal(number, old)
