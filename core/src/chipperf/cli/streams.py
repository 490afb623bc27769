"""Standard output and standard error of a command."""

from __future__ import annotations

import codecs
import io
import json
from typing import Any, TextIO

from chipperf.errors import PluginError

_ESCAPE = "chipperf.escape"


def _escape(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


codecs.register_error(_ESCAPE, _escape)


class Output:
    """Standard output or standard error in any encoding and state.

    Characters that the encoding lacks are escaped as in JSON, which stays readable. If standard output cannot be
    written, a :class:`PluginError` says so. What standard error does not take is lost, and ends no run.
    """

    def __init__(self, stream: TextIO, *, may_lose: bool = False) -> None:
        self._stream = stream
        self._may_lose = may_lose
        self._has_failed = False
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ESCAPE)

    def write(self, text: str) -> int:
        """Write a text and return its length."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._fail(error)
            return len(text)

    def flush(self) -> None:
        """Write what is buffered, which would fail again when Python ends."""
        try:
            if not self._has_failed:
                self._stream.flush()
        except OSError as error:
            self._fail(error)

    def __getattr__(self, name: str) -> Any:
        if name == "buffer":
            # typer would write UTF-8 there if the encoding is ASCII.
            raise AttributeError(name)
        return getattr(self._stream, name)

    def _fail(self, error: OSError) -> None:
        self._has_failed = True
        if not self._may_lose:
            raise PluginError(f"cannot write to standard output: {error.strerror}") from error
