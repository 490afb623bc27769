"""The collectives that core needs. With one process they do nothing and need no process group."""

from __future__ import annotations

import io
import pickle
import sys
from dataclasses import is_dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from pydantic import BaseModel

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
        """Return every rank's item, in the order of ranks; ``pickle.UnpicklingError`` if another rank sent no data.

        An item is small: numbers, texts, containers, NumPy arrays, chipperf's dataclasses, named tuples and models.
        """
        if not self._active:
            return [item]
        own = torch.frombuffer(bytearray(pickle.dumps(item)), dtype=torch.uint8)
        sizes = [torch.zeros(1, dtype=torch.int64, device=self._device) for _ in range(dist.get_world_size())]
        dist.all_gather(sizes, torch.tensor([len(own)], device=self._device))
        padded = torch.zeros(max(int(size) for size in sizes), dtype=torch.uint8)
        padded[: len(own)] = own
        parts = [torch.zeros_like(padded, device=self._device) for _ in sizes]
        dist.all_gather(parts, padded.to(self._device))
        return [_load(bytes(part[: int(size)].cpu().numpy())) for part, size in zip(parts, sizes, strict=True)]

    def _reduce(self, values: Sequence[int], operation: dist.ReduceOp.RedOpType) -> list[int]:
        if not self._active or not values:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.int64, device=self._device)
        dist.all_reduce(tensor, op=operation)
        return [int(value) for value in tensor.tolist()]


class _DataUnpickler(pickle.Unpickler):
    """Reads data only. A plain pickle can name any function to be called, and this one comes from the network."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a class or function that makes data."""
        if (module, name) in _ARRAY_PARTS:
            return super().find_class(module, name)
        # An import would run the module's code, and the module may have imported the class from elsewhere.
        found = vars(sys.modules.get(module, object)).get(name)
        is_record = isinstance(found, type) and (is_dataclass(found) or issubclass(found, (BaseModel, tuple)))
        if module.startswith("chipperf.") and is_record and found.__module__ == module:
            return found
        raise pickle.UnpicklingError(f"another rank sent {module}.{name}, which is not data")


_ARRAY_PARTS = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    # NumPy 2 and NumPy 1.
    *((f"numpy.{core}.multiarray", "_reconstruct") for core in ("_core", "core")),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("_core", "core")),
}
"""What NumPy's arrays are pickled with."""


def _load(content: bytes) -> Any:
    return _DataUnpickler(io.BytesIO(content)).load()


def mean_over_ranks(scalar: torch.Tensor) -> torch.Tensor:
    """Return the mean of a scalar over ranks, on its device. Does not synchronize; needs a process group."""
    mean = scalar.detach().clone()
    dist.all_reduce(mean)
    return mean / dist.get_world_size()
