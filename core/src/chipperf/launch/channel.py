"""Messages between launchers through torch's store; every call has a time limit."""

from __future__ import annotations

import socket
import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_OPERATION_S = 10.0
_POLL_S = 0.1


class ChannelLost(Exception):
    """The store did not answer, or did not have a text, within the time limit."""


class Channel:
    """Texts by key. All launchers can write and read them.

    The other launchers see a written text after a short delay.

    Args:
        host: Name or address of the machine that holds the store.
        port: Port of the store; with ``listens``, 0 selects a free one.
        listens: True if this process holds the store; one launcher does.
        timeout_s: Time within which the store must answer.

    Raises:
        ChannelLost: The store does not answer, or the port is taken.
    """

    def __init__(self, host: str, port: int, *, listens: bool = False, timeout_s: float = _OPERATION_S) -> None:
        self.host = host
        if not listens:
            # torch's store reports every failed attempt on standard error.
            _bounded(lambda: _wait_for_listener(host, port, timeout_s), timeout_s + _OPERATION_S)
        from torch import distributed

        def connect() -> Any:
            return distributed.TCPStore(  # type: ignore[attr-defined]
                host,
                port,
                is_master=listens,
                wait_for_workers=False,
                timeout=timedelta(seconds=timeout_s),
                # The elastic launcher of the same process listens on the same port, and must share it.
                multi_tenant=True,
            )

        self._store = _bounded(connect, timeout_s + _OPERATION_S)
        self.port = int(self._store.port)

    def write(self, key: str, text: str) -> None:
        """Store a text.

        Raises:
            ChannelLost: The store does not answer.
        """
        _bounded(lambda: self._store.set(key, text), _OPERATION_S)

    def read(self, key: str) -> str | None:
        """Return the text of a key, or ``None`` if the key has no text yet.

        Raises:
            ChannelLost: The store does not answer.
        """

        content = _bounded(lambda: self._store.get(key) if self._store.check([key]) else None, _OPERATION_S)
        return None if content is None else str(content, "utf-8")

    def wait_for(self, key: str, timeout_s: float) -> str:
        """Wait until a key has a text, and return the text.

        Raises:
            ChannelLost: The key has no text within the time limit, or the store does not answer.
        """
        deadline_s = time.monotonic() + timeout_s
        while (text := self.read(key)) is None:
            if time.monotonic() > deadline_s:
                raise ChannelLost(f"nothing came within {timeout_s:.0f} s")
            time.sleep(_POLL_S)
        return text


def _wait_for_listener(host: str, port: int, timeout_s: float) -> None:
    deadline_s = time.monotonic() + timeout_s
    while True:
        try:
            socket.create_connection((host, port), timeout=_OPERATION_S).close()
            return
        except OSError:
            if time.monotonic() > deadline_s:
                raise
        time.sleep(_POLL_S)


def _bounded(call: Callable[[], T], timeout_s: float) -> T:
    """Return the result of ``call``. After the time limit, its thread continues but its result is ignored.

    A call to a machine that disappeared may never end.

    Raises:
        ChannelLost: The call failed, or did not end within the time limit.
    """
    results: list[T] = []
    faults: list[Exception] = []

    def run() -> None:
        try:
            results.append(call())
        # torch's stores raise many kinds of exceptions, including OSError.
        except Exception as error:
            faults.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(timeout_s)
    if results:
        return results[0]
    if faults:
        raise ChannelLost(str(faults[0]).splitlines()[0]) from faults[0]
    raise ChannelLost(f"no answer within {timeout_s:.0f} s")
