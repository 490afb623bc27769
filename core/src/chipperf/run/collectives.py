"""The collectives that core needs. With one process they do nothing and need no process group."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import torch
import torch.distributed as dist

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chipperf.plugin.types import Rank

T = TypeVar("T")


class Collectives:
    """Collectives over all ranks on the vendor's device.

    Counters are int64 and times are integer nanoseconds, because not every accelerator supports float64.
    """

    def __init__(self, rank: Rank, device: torch.device) -> None:
        self._device = device
        self._active = rank.world_size > 1

    def barrier(self) -> None:
        """Wait for all ranks. Uses an all-reduce and reads its result back, because then no backend returns early."""
        self.sum_counts([1])

    def sum_counts(self, values: Sequence[int]) -> list[int]:
        """Return the sums over ranks."""
        return self._reduce(values, dist.ReduceOp.SUM)

    def max_counts(self, values: Sequence[int]) -> list[int]:
        """Return the maxima over ranks."""
        return self._reduce(values, dist.ReduceOp.MAX)

    def mean(self, values: Sequence[float]) -> list[float]:
        """Return the means over ranks, in float32."""
        if not self._active or not values:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float32, device=self._device)
        dist.all_reduce(tensor)
        return [float(value) for value in (tensor / dist.get_world_size()).tolist()]

    def broadcast(self, tensors: Sequence[torch.Tensor]) -> None:
        """Overwrite the tensors with the tensors of rank 0."""
        if self._active:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def gather(self, item: T) -> list[T]:
        """Return every rank's item, in the order of ranks. Use it for small objects, not for tensors."""
        if not self._active:
            return [item]
        items = [item] * dist.get_world_size()
        dist.all_gather_object(items, item)
        return items

    def _reduce(self, values: Sequence[int], operation: dist.ReduceOp.RedOpType) -> list[int]:
        if not self._active or not values:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.int64, device=self._device)
        dist.all_reduce(tensor, op=operation)
        return [int(value) for value in tensor.tolist()]


def mean_over_ranks(scalar: torch.Tensor) -> torch.Tensor:
    """Return the mean of a scalar over ranks, on its device. Does not synchronize; needs a process group."""
    mean = scalar.detach().clone()
    dist.all_reduce(mean)
    return mean / dist.get_world_size()
