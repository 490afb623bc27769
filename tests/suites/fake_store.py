"""Files in place of torch's store, whose import takes longer than a fake suite."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from chipperf.launch.channel import ChannelLost


class FakeStore:
    """Texts by key below FAKE_TRAIN; found at a host and a port as long as the process that listens there lives."""

    def __init__(self, host: str, port: int, *, listens: bool, timeout_s: float) -> None:
        self.port = port
        self._place = Path(os.environ["FAKE_TRAIN"]) / f"store-{host}-{port}"
        if listens:
            self._place.mkdir(exist_ok=True)
            for text in self._place.iterdir():
                text.unlink()
            # The lock ends with the process, however that ends.
            self._lock = self._place.with_suffix(".lock").open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._listens = listens
        try:
            self._require_listener()
        except ConnectionError as error:
            raise ChannelLost(str(error)) from error

    def set(self, key: str, text: str) -> None:
        """Store a text in one step."""
        self._require_listener()
        own = self._path(f"{key}.{os.getpid()}")
        own.write_text(text)
        own.replace(self._path(key))

    def get(self, key: str) -> bytes:
        """Return a text that is there."""
        self._require_listener()
        return self._path(key).read_bytes()

    def check(self, keys: list[str]) -> bool:
        """Return whether all of them are there."""
        self._require_listener()
        return all(self._path(key).exists() for key in keys)

    def _path(self, key: str) -> Path:
        return self._place / key.replace("/", "-")

    def _require_listener(self) -> None:
        if self._listens:
            return
        try:
            with self._place.with_suffix(".lock").open() as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            pass
        except BlockingIOError:
            return
        raise ConnectionError("nobody listens")
