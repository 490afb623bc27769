"""Texts that launchers exchange."""

from __future__ import annotations

import socket

import pytest
from chipperf.launch.channel import Channel, ChannelLost
from support import TIMEOUT_S


def test_texts_are_seen_at_the_other_end() -> None:
    first = Channel("localhost", 0, listens=True)
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
