"""Delivery of training batches in order, with the waiting time of each."""

from __future__ import annotations

import time
from itertools import chain, islice
from typing import TYPE_CHECKING

from chipperf.errors import DataError
from chipperf.train.preparation import generator_states, restore_generators

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chipperf.cases.workload import Batch
    from chipperf.train.context import RunContext
    from chipperf.train.run_state import RunState


class TrainingBatches:
    """Batches of one rank on its device; the loader of an epoch stays open until the next epoch.

    Args:
        context: Context of this rank's run.
    """

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._open: tuple[int, Iterator[Batch]] | None = None

    def of_epoch(self, epoch: int, state: RunState) -> Iterator[Batch]:
        """Return the epoch's batches, starting with the next step.

        In the middle of an epoch, the random generators of training keep their state.

        Args:
            epoch: Counted from 0.
            state: Gives the next step, and receives the waiting time of each batch.
        """
        if self._open is None or self._open[0] != epoch:
            self._open = (epoch, self._to_device(self._load(epoch, state), state.data_waits_s))
        return self._open[1]

    def close(self) -> None:
        """Drop the open loader."""
        self._open = None

    def _load(self, epoch: int, state: RunState) -> Iterator[Batch]:
        context = self._context
        done = state.steps - epoch * state.steps_per_epoch
        batches = context.workload.epoch_batches(epoch, done * context.hyperparameters.accumulate_steps)
        if not done:
            return batches
        # Opening a loader draws a seed for its processes. The seed of this epoch was already drawn.
        generators = generator_states(context.device)
        batches = chain(list(islice(batches, 1)), batches)
        restore_generators(generators, context.device)
        return batches

    def _to_device(self, batches: Iterator[Batch], waits_s: list[float]) -> Iterator[Batch]:
        while True:
            start_s = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration as error:
                raise DataError("the loader ended before the epoch's last step") from error
            waits_s.append(time.perf_counter() - start_s)
            yield self._context.workload.to_device(batch)
