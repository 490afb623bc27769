"""How a signal stops training: not at once, but where all ranks can save the same state.

A signal reaches the ranks at different moments, and on an accelerator their programs are many steps apart. Asking the
others before every step would be measured with it, so a rank begins to talk only when it has been told to stop. It says
at which edge between two steps that was, goes on training, and waits for its device after every step. From then on no
rank finishes a step that another one has not begun. So at the edge after the last one that was named, every rank knows
all of them, and there all stop.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

from chipperf.errors import TrainingStopped
from chipperf.plugin.types import Rank

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGINT)

_AGREEMENT_S = 20.0
"""Time in which every rank must have been told. The launcher tells all; it kills ranks 30 seconds later."""


_CONNECTION_S = 5.0
"""A launcher that is alive answers at once; one that was killed never does."""


class Store(Protocol):
    """What ranks share: torch's stores, as far as they are needed."""

    def set(self, key: str, value: str) -> None:
        """Store a value."""

    def check(self, keys: list[str]) -> bool:
        """Return True if all keys have a value; does not wait for any."""

    def get(self, key: str) -> bytes:
        """Return the value of a key that has one."""


class StopRequest:
    """Whether a signal has asked this rank to stop, and the edge at which all ranks do.

    Args:
        rank: Place of this worker.
        connect: Returns a store that all ranks share; called when a signal has come, and on one rank never.
    """

    def __init__(self, rank: Rank | None = None, connect: Callable[[], Store] | None = None) -> None:
        self._rank = rank or Rank()
        self._connect = connect or launcher_store
        self._store: Store | None = None
        self._requested = False
        self._immediate = False
        self._edge = 0
        self._told_s = 0.0

    @property
    def requested(self) -> bool:
        """True if a signal has come."""
        return self._requested

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Keep signals in the block for :meth:`reached`; :attr:`requested` tells of one that came too late for it."""
        before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def immediate(self) -> Iterator[None]:
        """Let a signal stop training in the block at once, because nothing would be lost; also one that came before.

        Raises:
            TrainingStopped: It did.
        """
        self._immediate = True
        try:
            if self._requested:
                raise TrainingStopped
            yield
        finally:
            self._immediate = False

    def reached(self, wait_for_device: Callable[[], object]) -> bool:
        """Return True at the edge at which training stops; every rank has to ask at every edge, in the same order.

        Args:
            wait_for_device: Waits until the device has finished what was queued.

        Raises:
            TrainingStopped: The other ranks were not told to stop, or cannot be asked.
        """
        self._edge += 1
        if not self._requested:
            return False
        if self._rank.world_size == 1:
            return True
        wait_for_device()
        try:
            return self._is_last_edge()
        except RuntimeError as error:
            raise TrainingStopped from error

    def _is_last_edge(self) -> bool:
        if self._store is None:
            self._store = self._connect()
            self._store.set(stop_key(self._rank.rank), str(self._edge))
            self._told_s = time.monotonic()
        keys = [stop_key(rank) for rank in range(self._rank.world_size)]
        if self._store.check(keys):
            return self._edge > max(int(self._store.get(key)) for key in keys)
        if time.monotonic() - self._told_s > _AGREEMENT_S:
            raise TrainingStopped
        return False

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self._requested = True
        if self._immediate:
            raise TrainingStopped


def launcher_store() -> Store:
    """Connect to the store through which the launcher's workers find each other.

    Raises:
        RuntimeError: There is none.
    """
    from torch import distributed

    try:
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    except (KeyError, ValueError) as error:
        raise RuntimeError("the launcher names no store") from error
    timeout = timedelta(seconds=_CONNECTION_S)
    store: Store = distributed.TCPStore(  # type: ignore[attr-defined]
        host, port, is_master=False, timeout=timeout
    )
    return store


def stop_key(rank: int) -> str:
    """Return the key under which a rank says that it was told to stop."""
    return f"chipperf/stop/{rank}"
