"""Messages and signs of life between launchers, through torch's store; every call has a time limit."""

from __future__ import annotations

import socket
import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

T = TypeVar("T")

_OPERATION_S = 10.0
_POLL_S = 0.1


class ChannelLost(Exception):
    """The store did not answer, or did not have a text, within the time limit."""


class Channel:
    """Texts by key. All launchers can write and read them; the others see a written text after a short delay.

    Every call raises :class:`ChannelLost` if the store does not answer.

    Args:
        host: Name or address of the machine that holds the store.
        port: Port of the store; with ``listens``, 0 selects a free one.
        listens: True if this process holds the store; one launcher does.
        timeout_s: Time within which the store must answer for the first time.
    """

    def __init__(self, host: str, port: int, *, listens: bool = False, timeout_s: float = _OPERATION_S) -> None:
        self.host = host
        self._store = _connect(host, port, listens=listens, timeout_s=timeout_s)
        self.port = int(self._store.port)

    def write(self, key: str, text: str) -> None:
        """Store a text."""
        _bounded(lambda: self._store.set(key, text), _OPERATION_S)

    def read(self, key: str) -> str | None:
        """Return the text of a key, or ``None`` if the key has no text yet."""
        content = _bounded(lambda: self._store.get(key) if self._store.check([key]) else None, _OPERATION_S)
        return None if content is None else str(content, "utf-8")

    def wait_for(self, key: str, timeout_s: float) -> str:
        """Wait until a key has a text, and return the text. Without one in time, raise :class:`ChannelLost`."""
        deadline_s = time.monotonic() + timeout_s
        while (text := self.read(key)) is None:
            if time.monotonic() > deadline_s:
                raise ChannelLost(f"nothing came within {timeout_s:.0f} s")
            time.sleep(_POLL_S)
        return text


class SignsOfLife:
    """The times of the launchers' last signs of life, which they give each other through a channel.

    Each launcher writes a number that grows. The others look for changes, so the clocks need not agree.

    Args:
        launchers: Numbers of the launchers to listen to. Their first sign of life counts as now.
    """

    def __init__(self, launchers: Iterable[int]) -> None:
        now_s = time.monotonic()
        self._heard_s = dict.fromkeys(launchers, now_s)
        self._beats: dict[int, str] = {}
        self._sent = 0

    def send(self, channel: Channel, launcher: int) -> None:
        """Give a sign of life of this launcher."""
        self._sent += 1
        channel.write(f"alive/{launcher}", str(self._sent))

    def listen(self, channel: Channel) -> None:
        """Look for new signs of life of the other launchers."""
        for launcher in self._heard_s:
            beat = channel.read(f"alive/{launcher}")
            if beat is not None and beat != self._beats.get(launcher):
                self._beats[launcher] = beat
                self._heard_s[launcher] = max(self._heard_s[launcher], time.monotonic())

    def excuse(self, launcher: int) -> None:
        """Stop expecting signs of life of a launcher that has ended."""
        self._heard_s[launcher] = float("inf")

    def silence_s(self, launcher: int) -> float:
        """Return the time since a launcher's last sign of life; negative if it is excused."""
        return time.monotonic() - self._heard_s[launcher]


def _connect(host: str, port: int, *, listens: bool, timeout_s: float) -> Any:
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

    return _bounded(connect, timeout_s + _OPERATION_S)


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
    """Return the result of ``call``, or raise :class:`ChannelLost` if it fails or does not end in time.

    A call to a machine that disappeared may never end: its thread continues, and its result is ignored.
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
