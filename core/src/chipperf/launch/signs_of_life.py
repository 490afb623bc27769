"""Signs of life that launchers give each other through a channel."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from chipperf.launch.channel import Channel


class SignsOfLife:
    """The times of the launchers' last signs of life.

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
        """Give a sign of life of this launcher.

        Raises:
            ChannelLost: The store does not answer.
        """
        self._sent += 1
        channel.write(f"alive/{launcher}", str(self._sent))

    def listen(self, channel: Channel) -> None:
        """Look for new signs of life of the other launchers.

        Raises:
            ChannelLost: The store does not answer.
        """
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
