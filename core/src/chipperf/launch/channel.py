"""Texts by key, and signs of life, that launchers exchange over the network.

Both ends of a connection prove that they know the same secret (HMAC challenges of ``multiprocessing.connection``).
Texts are JSON; nothing that comes from the network is unpickled.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from typing import Any

from chipperf.run.rendezvous import listen

SECRET_VARIABLE = "CHIPPERF_RDZV_SECRET"
"""Secret that all launchers of a run share. Without it, everybody who reaches the port can take part."""

_ANSWER_S = 10
_POLL_S = 0.1
_MOST_REFUSED = 8
_MAX_MESSAGE_BYTES = 64 * 1024 * 1024


class ChannelLost(Exception):
    """The other end did not answer, or did not have a text, within the time limit."""


class ChannelRefused(ChannelLost):
    """The other end has another secret."""

    def __init__(self) -> None:
        super().__init__(f"{SECRET_VARIABLE} is not the same at the other end")


class Channel:
    """Texts by key. All launchers can write and read them.

    Every call raises :class:`ChannelLost` if the other end does not answer. ``refused`` are addresses from where
    somebody with another secret tried to join.

    Args:
        host: Name or address of the machine that holds the texts.
        port: Its port; with ``listens``, 0 selects a free one.
        listens: True if this process holds the texts; one launcher does.
        timeout_s: Time within which the other end must begin to listen.
    """

    def __init__(self, host: str, port: int, *, listens: bool = False, timeout_s: float = _ANSWER_S) -> None:
        self.host = host
        self.port = port
        self.refused: list[str] = []
        self._listens = listens
        self._texts: dict[str, str] = {}
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        if not listens:
            self._connection = self._connect(timeout_s)
            return
        try:
            self._listener = listen(host, port)
        except OSError as error:
            raise ChannelLost(str(error)) from error
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def write(self, key: str, text: str) -> None:
        """Store a text."""
        self._ask(key, text)

    def read(self, key: str) -> str | None:
        """Return the text of a key, or ``None`` if the key has no text yet."""
        return self._ask(key)

    def wait_for(self, key: str, timeout_s: float) -> str:
        """Wait until a key has a text, and return the text. Without one in time, raise :class:`ChannelLost`."""
        deadline_s = time.monotonic() + timeout_s
        while (text := self.read(key)) is None:
            if time.monotonic() > deadline_s:
                raise ChannelLost(f"nothing came within {timeout_s:.0f} s")
            time.sleep(_POLL_S)
        return text

    def close(self) -> None:
        """Stop listening, so that the port is free."""
        if self._listens:
            with suppress(OSError):
                # Closing alone would leave the thread, and with it the port, in its call of accept.
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()

    def _ask(self, *request: str) -> str | None:
        """Return the other end's answer to ``key`` or ``key, text``."""
        with self._lock:
            if self._listens:
                return _answer(self._texts, request)
            try:
                self._connection = self._connection or self._connect(_ANSWER_S)
                self._connection.send_bytes(json.dumps(request).encode())
                answer: str | None = json.loads(self._connection.recv_bytes(_MAX_MESSAGE_BYTES))
            except (OSError, EOFError, ValueError) as error:
                # A late answer must not become the answer to the next question.
                self._connection = None
                raise ChannelLost(_reason(error)) from error
        return answer

    def _connect(self, timeout_s: float) -> Connection:
        deadline_s = time.monotonic() + timeout_s
        while True:
            try:
                peer = socket.create_connection((self.host, self.port), timeout=_ANSWER_S)
                break
            except OSError as error:
                if time.monotonic() > deadline_s:
                    raise ChannelLost(_reason(error)) from error
            time.sleep(_POLL_S)
        connection = _bounded(peer)
        try:
            answer_challenge(connection, _secret())
            deliver_challenge(connection, _secret())
        except AuthenticationError as error:
            raise ChannelRefused from error
        except (OSError, EOFError, AssertionError) as error:
            raise ChannelLost(_reason(error)) from error
        return connection

    def _accept(self) -> None:
        while self._listener.fileno() >= 0:
            try:
                peer, address = self._listener.accept()
                threading.Thread(target=self._serve, args=(peer, address[0]), daemon=True).start()
            except (OSError, RuntimeError):
                # Closed, or strangers hold every descriptor or thread for the moment.
                time.sleep(_POLL_S)

    def _serve(self, peer: socket.socket, address: str) -> None:
        connection = _bounded(peer)
        # Whatever a peer sends, also without a secret, ends no more than its own connection.
        with connection, suppress(Exception):
            try:
                deliver_challenge(connection, _secret())
            except AuthenticationError:
                address = address.removeprefix("::ffff:")
                if address not in self.refused and len(self.refused) < _MOST_REFUSED:
                    self.refused.append(address)
                raise
            answer_challenge(connection, _secret())
            while True:
                if connection.poll(None):
                    request = json.loads(connection.recv_bytes(_MAX_MESSAGE_BYTES))
                    with self._lock:
                        answer = _answer(self._texts, request)
                    connection.send_bytes(json.dumps(answer).encode())


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


def _answer(texts: dict[str, str], request: Any) -> str | None:
    key, *text = map(str, request)
    if not text:
        return texts.get(key)
    texts[key] = text[0]
    return None


def _bounded(peer: socket.socket) -> Connection:
    """Return the connection of a socket. A send or receive that takes longer than the time limit is an ``OSError``."""
    peer.settimeout(None)
    limit = struct.pack("ll", _ANSWER_S, 0)
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        peer.setsockopt(socket.SOL_SOCKET, option, limit)
    return Connection(peer.detach())


def _reason(error: BaseException) -> str:
    if isinstance(error, BlockingIOError):
        return f"no answer within {_ANSWER_S} s"
    return str(error) or "the connection was closed"


def _secret() -> bytes:
    return os.fsencode(os.environ.get(SECRET_VARIABLE, ""))
