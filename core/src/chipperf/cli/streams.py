"""Standard output and standard error of a command, in any encoding and state."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Callable
from typing import Any, TextIO

from chipperf.errors import PluginError
from chipperf.visible import visible


def is_colored(stream: TextIO) -> bool:
    """Return whether a stream gets colors: on a terminal or with ``FORCE_COLOR``, but not with ``NO_COLOR``."""
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR") or (stream.isatty() and os.environ.get("TERM") != "dumb"))


class Output:
    """Standard output or standard error. Characters that a terminal obeys or hides, or the encoding lacks, are escaped.

    If standard output cannot be written, a :class:`PluginError` says so; a reader that has seen enough, such as
    ``head``, ends the program without a word. What standard error does not take is lost.
    Rich, which moves the cursor, writes to ``rich_proxied_file``; whoever gives it foreign texts makes them visible.
    """

    def __init__(self, stream: TextIO, *, may_lose: bool = False, escaped: Output | None = None) -> None:
        self._stream, self._may_lose, self._is_escaped = stream, may_lose, escaped is None
        # After a failure Python would fail again when it ends.
        self._failures: list[OSError] = escaped._failures if escaped else []
        if escaped is None and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
        if escaped is None:
            self.rich_proxied_file = Output(stream, may_lose=may_lose, escaped=self)

    def write(self, text: str) -> None:
        """Write a text."""
        self._attempt(lambda: self._stream.write(visible(text) if self._is_escaped else text))

    def flush(self) -> None:
        """Write what is buffered."""
        if not self._failures:
            self._attempt(self._stream.flush)

    def __getattr__(self, name: str) -> Any:
        # typer would write UTF-8 to the buffer if the encoding is ASCII.
        if name in ("buffer", "rich_proxied_file"):
            raise AttributeError(name)
        return getattr(self._stream, name)

    def _attempt(self, action: Callable[[], object]) -> None:
        try:
            action()
        except OSError as error:
            self._failures.append(error)
            if not self._may_lose:
                if isinstance(error, BrokenPipeError):
                    raise SystemExit(128 + signal.SIGPIPE) from error
                raise PluginError(f"cannot write to standard output: {error.strerror}") from error
