"""Stopping of training by a signal, at a step where all ranks can save the same state.

A signal reaches the ranks at different moments, and on an accelerator their programs are many steps apart.
Communication before every step would distort the measurement, so a rank communicates only after it received the signal.
It publishes the edge (between two steps) at which it noticed the signal, continues to train, and waits for its device
after every step. From then on, no rank finishes a step that another rank has not begun. So at the edge after the last
published one, every rank knows all published edges, and all ranks stop there.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from chipperf.errors import TrainingStopped
from chipperf.plugin.types import Rank
from chipperf.run.rendezvous import connect_store
from chipperf.run.signals import stop_signals_handled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from torch.distributed import Store  # type: ignore[attr-defined]

_AGREEMENT_S = 20.0
"""Time within which every rank must receive the signal. The launcher signals all, and kills them 30 seconds later."""

_KEY = "chipperf/stop/{}"
"""Key under which a rank publishes the edge at which it noticed a signal to stop."""

_CONNECTION_S = 5.0
"""Time-out of a connection: a living rank 0 answers at once, a killed one never."""


class StopRequest:
    """Tracks whether a signal asked this rank to stop (``requested``), and the edge at which all ranks stop.

    ``connect`` returns a store that all ranks share; it is called after a signal, and never for a single rank.
    """

    def __init__(self, rank: Rank | None = None, connect: Callable[[], Store] | None = None) -> None:
        self._rank = rank or Rank()
        self._connect = connect or partial(connect_store, _CONNECTION_S)
        self._store: Store | None = None
        self.requested = False
        self._immediate = False
        self._edge = 0
        self._told_s = 0.0

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Hold signals in the block for :meth:`reached`; :attr:`requested` also covers one after the last edge."""
        with stop_signals_handled(self._note):
            yield

    @contextmanager
    def immediate(self) -> Iterator[None]:
        """Let a signal, even an earlier one, raise ``TrainingStopped`` in the block at once: no work is lost."""
        self._immediate = True
        try:
            if self.requested:
                raise TrainingStopped
            yield
        finally:
            self._immediate = False

    def reached(self, wait_for_device: Callable[[], object]) -> bool:
        """Return whether training stops at this edge; every rank must call this at every edge, in the same order.

        If the other ranks did not receive the signal or cannot be reached, raise ``TrainingStopped``.
        """
        self._edge += 1
        if not self.requested:
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
            self._store.set(_KEY.format(self._rank.rank), str(self._edge))
            self._told_s = time.monotonic()
        keys = [_KEY.format(rank) for rank in range(self._rank.world_size)]
        if self._store.check(keys):
            return self._edge > max(int(self._store.get(key)) for key in keys)
        if time.monotonic() - self._told_s > _AGREEMENT_S:
            raise TrainingStopped
        return False

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self.requested = True
        if self._immediate:
            raise TrainingStopped
