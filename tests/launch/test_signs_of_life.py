"""When a launcher counts as silent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from chipperf.launch import channel as channel_module
from chipperf.launch.channel import SignsOfLife

if TYPE_CHECKING:
    from chipperf.launch.channel import Channel


class Texts:
    """A channel within one process."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}

    def write(self, key: str, text: str) -> None:
        self.texts[key] = text

    def read(self, key: str) -> str | None:
        return self.texts.get(key)


@pytest.fixture
def channel() -> Channel:
    return Texts()  # type: ignore[return-value]


@pytest.fixture
def clock_s(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now_s = [100.0]
    monkeypatch.setattr(channel_module.time, "monotonic", lambda: now_s[0])
    return now_s


def test_only_a_new_sign_ends_the_silence(channel: Channel, clock_s: list[float]) -> None:
    sender, listener = SignsOfLife([]), SignsOfLife([0, 1])
    clock_s[0] = 130.0
    sender.send(channel, 1)
    listener.listen(channel)
    assert (listener.silence_s(0), listener.silence_s(1)) == (30.0, 0.0)

    clock_s[0] = 150.0
    listener.listen(channel)
    assert listener.silence_s(1) == 20.0

    sender.send(channel, 1)
    listener.listen(channel)
    assert listener.silence_s(1) == 0.0


def test_launcher_that_begins_again_is_heard(channel: Channel, clock_s: list[float]) -> None:
    before, listener = SignsOfLife([]), SignsOfLife([0])
    before.send(channel, 0)
    before.send(channel, 0)
    listener.listen(channel)
    clock_s[0] = 140.0

    SignsOfLife([]).send(channel, 0)
    listener.listen(channel)

    assert listener.silence_s(0) == 0.0


def test_nothing_more_is_expected_of_a_launcher_that_has_ended(channel: Channel, clock_s: list[float]) -> None:
    sender, listener = SignsOfLife([]), SignsOfLife([0])
    listener.excuse(0)
    sender.send(channel, 0)
    listener.listen(channel)
    clock_s[0] = 1e9

    assert listener.silence_s(0) < 0
