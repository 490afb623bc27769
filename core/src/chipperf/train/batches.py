"""The batches that training asks for, in their order, and how long it waits for each."""

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
    """One rank's batches, on its device; the loader of an epoch stays open until the next epoch.

    Args:
        context: What the rank trains with.
    """

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._open: tuple[int, Iterator[Batch]] | None = None

    def of_epoch(self, epoch: int, state: RunState) -> Iterator[Batch]:
        """Return the epoch's batches from the next step on.

        Generators that training draws from are left as they are in an epoch that has begun.

        Args:
            epoch: Counted from 0.
            state: Says which step is next, and receives how long each batch is waited for.
        """
        if self._open is None or self._open[0] != epoch:
            self._open = (epoch, self._to_device(self._load(epoch, state), state.data_waits_s))
        return self._open[1]

    def close(self) -> None:
        """Forget the loader that is open."""
        self._open = None

    def _load(self, epoch: int, state: RunState) -> Iterator[Batch]:
        context = self._context
        done = state.steps - epoch * state.steps_per_epoch
        batches = context.workload.epoch_batches(epoch, done * context.hyperparameters.accumulate_steps)
        if not done:
            return batches
        # Whoever opens a loader draws a seed for its processes. This epoch's has been drawn before.
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
