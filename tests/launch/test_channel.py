"""Texts that launchers exchange."""

from __future__ import annotations

import os
import pickle
import socket
import threading
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from chipperf.launch import channel
from chipperf.launch.channel import SECRET_VARIABLE, Channel, ChannelLost
from support import TIMEOUT_S, wait_for

if TYPE_CHECKING:
    from pathlib import Path


def test_texts_are_seen_at_the_other_end() -> None:
    with closing(Channel("localhost", 0, listens=True)) as first:
        second = Channel("localhost", first.port)

        assert second.read("plan") is None
        first.write("plan", "Überblick")
        assert second.wait_for("plan", TIMEOUT_S) == second.read("plan") == "Überblick"
        second.write("joined", "")
        assert first.wait_for("joined", TIMEOUT_S) == ""
        with pytest.raises(ChannelLost, match="nothing came within 0 s"):
            first.wait_for("start", 0.0)


def test_place_where_nobody_listens_is_found_out(capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("localhost", 0)) as server:
        port = server.getsockname()[1]

    with pytest.raises(ChannelLost, match="Connection refused"):
        Channel("localhost", port, timeout_s=0.2)

    assert capfd.readouterr().err == ""


def test_port_that_is_taken_is_an_error() -> None:
    with (
        socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True) as server,
        pytest.raises(ChannelLost),
    ):
        Channel("localhost", server.getsockname()[1], listens=True, timeout_s=1.0)


def test_end_with_another_secret_takes_no_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SECRET_VARIABLE, "right")
    with closing(Channel("localhost", 0, listens=True)) as first:
        first.write("plan", "secret plan")
        assert Channel("localhost", first.port).read("plan") == "secret plan"

        def other_secret() -> bytes:
            # The end that listens is in this process as well, and answers in a thread of its own.
            return b"wrong" if threading.current_thread() is threading.main_thread() else b"right"

        monkeypatch.setattr(channel, "_secret", other_secret)
        for _ in range(2):
            with pytest.raises(ChannelLost, match="CHIPPERF_RDZV_SECRET is not the same at the other end"):
                Channel("localhost", first.port)
        # The end that listens notes it in its thread, after it has refused.
        wait_for(lambda: bool(first.refused))
        assert first.refused == ["127.0.0.1"]


def test_secret_may_be_any_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SECRET_VARIABLE, os.fsdecode(b"\xff\xfe"))
    with closing(Channel("localhost", 0, listens=True)) as first:
        Channel("localhost", first.port).write("plan", "text")
        assert first.read("plan") == "text"


@pytest.mark.parametrize("host", ["LocalHost", "127.0.1.1"])
def test_other_names_of_this_machine_alone_are_found_and_not_exposed(host: str) -> None:
    with closing(Channel(host, 0, listens=True)) as first:
        Channel(host, first.port, timeout_s=1.0).write("plan", "text")

        assert first._listener.getsockname()[0].startswith("127.")


@pytest.mark.parametrize(
    "content",
    [b"", b"GET / HTTP/1.1\r\n\r\n", b"\x7f\xff\xff\xff", b"\0\0\0\1x"],
    ids=["empty", "http", "huge", "short"],
)
def test_stranger_disturbs_nobody(content: bytes) -> None:
    with closing(Channel("localhost", 0, listens=True)) as first:
        with socket.create_connection(("localhost", first.port)) as stranger:
            stranger.sendall(content)
            second = Channel("localhost", first.port)
            second.write("joined", "1")
        assert first.read("joined") == second.read("joined") == "1"


@pytest.mark.parametrize("content", [b"5", b"[" * 100_000, b"[]", b"[1"], ids=["number", "deep", "empty", "cut off"])
def test_message_that_is_no_request_ends_its_connection_only(content: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    with closing(Channel("localhost", 0, listens=True)) as first:
        second = Channel("localhost", first.port)
        assert second._connection is not None
        second._connection.send_bytes(content)
        with pytest.raises(EOFError):
            second._connection.recv_bytes()

        assert Channel("localhost", first.port).read("plan") is None
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("fault", [OSError("too many open files"), RuntimeError("can't start new thread")])
def test_crowd_of_strangers_does_not_end_the_listening(fault: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    accept, faults = socket.socket.accept, [fault]

    def crowded(listener: socket.socket) -> tuple[socket.socket, object]:
        stranger, address = accept(listener)
        if faults:
            stranger.close()
            raise faults.pop()
        return stranger, address

    monkeypatch.setattr(socket.socket, "accept", crowded)
    with closing(Channel("localhost", 0, listens=True)) as first:
        with pytest.raises(ChannelLost):
            Channel("localhost", first.port)
        assert Channel("localhost", first.port).read("plan") is None


def test_pickle_is_never_read(tmp_path: Path) -> None:
    """What an attacker who knows the secret could send: it is no text, and it ends the connection only."""

    class Attack:
        def __reduce__(self) -> tuple[object, ...]:
            return (tmp_path.joinpath, ("attacked",))

    with closing(Channel("localhost", 0, listens=True)) as first:
        attacker = Channel("localhost", first.port)
        assert attacker._connection is not None
        attacker._connection.send_bytes(pickle.dumps(Attack()))
        with pytest.raises(ChannelLost):
            attacker.read("plan")
        assert attacker.read("plan") is None
