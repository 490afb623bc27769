"""Standard output and standard error of a command, in any encoding and state."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, TextIO

from chipperf.errors import PluginError
from chipperf.visible import visible


class Output:
    """Standard output or standard error. Characters that a terminal obeys or hides, or the encoding lacks, are escaped.

    Rich, which moves the cursor, writes to ``rich_proxied_file``; whoever gives it foreign texts makes them visible.
    If standard output cannot be written, a :class:`PluginError` says so. What standard error does not take is lost.
    """

    def __init__(self, stream: TextIO, *, may_lose: bool = False) -> None:
        self._stream, self._may_lose, self._has_failed = stream, may_lose, False
        self.rich_proxied_file = stream
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> None:
        """Write a text."""
        self._attempt(lambda: self._stream.write(visible(text)))

    def flush(self) -> None:
        """Write what is buffered. After a failure Python would fail again when it ends."""
        if not self._has_failed:
            self._attempt(self._stream.flush)

    def __getattr__(self, name: str) -> Any:
        if name == "buffer":  # typer would write UTF-8 there if the encoding is ASCII.
            raise AttributeError(name)
        return getattr(self._stream, name)

    def _attempt(self, action: Callable[[], object]) -> None:
        try:
            action()
        except OSError as error:
            self._has_failed = True
            if not self._may_lose:
                raise PluginError(f"cannot write to standard output: {error.strerror}") from error
