"""Samplers that choose each rank's samples and their order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch.utils.data import Sampler

from chipperf.data.dataset import SampleKey
from chipperf.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator


class TrainingBatchSampler(Sampler[list[SampleKey]]):
    """Batches of one rank, from a new permutation of the dataset in every epoch.

    Global batch ``k`` of an epoch is the ``k``-th slice of the permutation, and every rank takes an equal part of it.
    Each sample occurs at most once per epoch, and each step trains the same number of samples on every rank. Samples at
    the end that do not fill a global batch are left out.

    Args:
        samples: Number of samples in the dataset.
        batch_size: Samples per rank and step.
        seed: Seed of the run.
        rank: Rank of this process.
        world_size: Number of processes.

    Raises:
        ConfigError: The dataset has fewer samples than one global batch.
    """

    def __init__(self, samples: int, batch_size: int, seed: int, rank: int = 0, world_size: int = 1) -> None:
        global_batch = batch_size * world_size
        if samples < global_batch:
            raise ConfigError(
                f"the training split has {samples} samples, fewer than one global batch of {batch_size} x {world_size}",
                hint="lower the batch size or the number of devices, or use more data",
            )
        self._samples = samples
        self._batch_size = batch_size
        self._seed = seed
        self._rank = rank
        self._world_size = world_size
        self._steps_per_epoch = samples // global_batch
        self._epoch = 0
        self._first_step = 0

    def set_epoch(self, epoch: int, first_step: int = 0) -> None:
        """Set the epoch of the next iteration and its first step.

        Raises:
            ConfigError: The epoch has no such step.
        """
        if not 0 <= first_step < self._steps_per_epoch:
            raise ConfigError(f"step {first_step} is outside an epoch of {self._steps_per_epoch} steps")
        self._epoch = epoch
        self._first_step = first_step

    @property
    def steps_per_epoch(self) -> int:
        """Number of steps in a full epoch."""
        return self._steps_per_epoch

    def __len__(self) -> int:
        return self._steps_per_epoch - self._first_step

    def __iter__(self) -> Iterator[list[SampleKey]]:
        # numpy's compatibility policy freezes the sequence of the legacy generator, so an order stays reproducible.
        permutation = np.random.RandomState([self._seed % 2**32, self._epoch]).permutation(self._samples)
        global_batch = self._batch_size * self._world_size
        for step in range(self._first_step, self._steps_per_epoch):
            start = step * global_batch + self._rank * self._batch_size
            indices = permutation[start : start + self._batch_size].tolist()
            yield [SampleKey(self._epoch, index) for index in indices]


class EvaluationSampler(Sampler[SampleKey]):
    """The samples ``rank, rank + world_size, …``: every sample is on exactly one rank, without padding.

    Ranks may differ by one sample, so evaluation must use no per-step collective and only reduce counters at the end.

    Args:
        samples: Number of samples in the dataset.
        rank: Rank of this process.
        world_size: Number of processes.
    """

    def __init__(self, samples: int, rank: int = 0, world_size: int = 1) -> None:
        self._indices = range(rank, samples, world_size)

    def __len__(self) -> int:
        return len(self._indices)

    def __iter__(self) -> Iterator[SampleKey]:
        return (SampleKey(0, index) for index in self._indices)
