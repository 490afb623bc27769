"""Messages between launchers, through torch's store. Every call ends within a stated time."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_OPERATION_S = 10.0
_POLL_S = 0.1


class ChannelLost(Exception):
    """The store does not answer, or has no text in time."""


class Channel:
    """Texts by key, which all launchers can write and read.

    A text that one launcher writes reaches the others a moment later.

    Args:
        host: Name or address of the machine with the store.
        port: Port of the store; with ``listens``, 0 takes a free one.
        listens: True for the one launcher whose process holds the store.
        timeout_s: Time within which the store must answer.

    Raises:
        ChannelLost: The store does not answer, or the port is taken.
    """

    def __init__(self, host: str, port: int, *, listens: bool = False, timeout_s: float = _OPERATION_S) -> None:
        self.host = host
        self._store = _connect(host, port, listens=listens, timeout_s=timeout_s)
        self.port = int(self._store.port)

    def write(self, key: str, text: str) -> None:
        """Store a text.

        Raises:
            ChannelLost: The store does not answer.
        """
        _bounded(lambda: self._store.set(key, text), _OPERATION_S)

    def read(self, key: str) -> str | None:
        """Return the text of a key, or ``None`` if it has none yet.

        Raises:
            ChannelLost: The store does not answer.
        """

        def get() -> str | None:
            return str(self._store.get(key), "utf-8") if self._store.check([key]) else None

        return _bounded(get, _OPERATION_S)

    def wait_for(self, key: str, timeout_s: float) -> str:
        """Return the text of a key as soon as it has one.

        Raises:
            ChannelLost: It has none in time, or the store does not answer.
        """
        deadline_s = time.monotonic() + timeout_s
        while (text := self.read(key)) is None:
            if time.monotonic() > deadline_s:
                raise ChannelLost(f"nothing came within {timeout_s:.0f} s")
            time.sleep(_POLL_S)
        return text


def _connect(host: str, port: int, *, listens: bool, timeout_s: float) -> Any:
    """Return torch's store at this place."""
    if not listens:
        # torch's store reports every attempt that fails on standard error.
        _bounded(lambda: _wait_for_listener(host, port, timeout_s), timeout_s + _OPERATION_S)
    from torch import distributed

    def connect() -> Any:
        return distributed.TCPStore(  # type: ignore[attr-defined]
            host,
            port,
            is_master=listens,
            wait_for_workers=False,
            timeout=timedelta(seconds=timeout_s),
            # The elastic launcher of the same process listens on the same port, and shares it then.
            multi_tenant=True,
        )

    return _bounded(connect, timeout_s + _OPERATION_S)


def _wait_for_listener(host: str, port: int, timeout_s: float) -> None:
    deadline_s = time.monotonic() + timeout_s
    while True:
        try:
            socket.create_connection((host, port), timeout=_OPERATION_S).close()
        except OSError:
            if time.monotonic() > deadline_s:
                raise
        else:
            return
        time.sleep(_POLL_S)


def _bounded(call: Callable[[], T], timeout_s: float) -> T:
    """Return what ``call`` returns. If it does not end in time, its thread goes on without effect.

    A call to a machine that vanished may never end.

    Raises:
        ChannelLost: The call failed, or did not end in time.
    """
    results: list[T] = []
    faults: list[Exception] = []

    def run() -> None:
        try:
            results.append(call())
        # torch's stores raise many kinds, also those of the system.
        except Exception as error:
            faults.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(timeout_s)
    with suppress(IndexError):
        return results[0]
    if faults:
        raise ChannelLost(str(faults[0]).splitlines()[0]) from faults[0]
    raise ChannelLost(f"no answer within {timeout_s:.0f} s")
