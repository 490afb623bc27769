"""Collectives of two or three ranks with numbers that only a right result equals, in every digit."""

from __future__ import annotations

import math
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from chipperf.contract.check import fail

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from chipperf.contract.plugin_under_test import PluginUnderTest

_QUEUED_S: Final = 0.05
_PRODUCT_SIZE: Final = 512
_MOST_PRODUCTS: Final = 2000
_PERIOD: Final = 8191
"""Numbers repeat after so many; a prime, so that no part of a tensor equals another that a library could mistake."""

_MANY: Final = 2**25 + 100_003
"""Numbers of 128 MiB and a remainder, which libraries send in pieces."""


class CollectiveTrial:
    """Collectives of two or three ranks, each call with other numbers. ``calls`` is their number so far."""

    def __init__(self, subject: PluginUnderTest) -> None:
        self.calls = 0
        self._own = subject.rank.rank
        self._ranks = subject.rank.world_size
        self._device = subject.device
        self._synchronize = partial(subject.session.synchronize, subject.device)

    def reduce(self, dtype: torch.dtype, shape: tuple[int, ...], operation: Any) -> None:
        """Reduce over ranks."""
        import torch
        import torch.distributed as dist

        numbers = self._next(dtype, shape)
        mine = self._mine(numbers)
        dist.all_reduce(mine, op=operation)
        is_sum = operation == dist.ReduceOp.SUM
        expected = _sum(numbers) if is_sum else torch.stack(numbers).amax(0)
        self._compare(mine, expected, f"all-reduce of {dtype}, {'sum' if is_sum else 'maximum'}")

    def reduce_many(self) -> None:
        """Reduce more numbers than a library sends at once. To compare them in parts needs less memory."""
        import torch
        import torch.distributed as dist

        numbers = self._next(torch.float32, (_PERIOD,))
        mine = numbers[self._own].repeat(-(-_MANY // _PERIOD))[:_MANY].to(self._device, copy=True)
        dist.all_reduce(mine)
        expected = _sum(numbers).repeat(2**10)
        for number, part in enumerate(mine.split(len(expected)), start=1):
            self._compare(part, expected[: len(part)], f"all-reduce of {_MANY} numbers of torch.float32, part {number}")

    def broadcast(self, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
        """Send the numbers of one rank, of another one in each call, to the others."""
        import torch.distributed as dist

        source = self.calls % self._ranks
        numbers = self._next(dtype, shape)
        mine = self._mine(numbers)
        dist.broadcast(mine, src=source)
        self._compare(mine, numbers[source], f"broadcast of {dtype} from rank {source}")

    def gather(self, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
        """Collect the numbers of all ranks."""
        import torch
        import torch.distributed as dist

        numbers = self._next(dtype, shape)
        mine = self._mine(numbers)
        parts = [torch.zeros(shape, dtype=dtype, device=self._device) for _ in numbers]
        dist.all_gather(parts, mine)
        self._compare(mine, numbers[self._own], f"all-gather of {dtype}, which must not change what it sends")
        for rank, part in enumerate(parts):
            self._compare(part, numbers[rank], f"all-gather of {dtype}, part of rank {rank}")

    def gather_into_one(self) -> None:
        """Collect numbers of all ranks in one tensor, as batch normalization over ranks does."""
        import torch
        import torch.distributed as dist

        numbers = self._next(torch.float32, (1, 65))
        all_numbers = torch.zeros(self._ranks, 65, device=self._device)
        dist.all_gather_into_tensor(all_numbers, self._mine(numbers))
        self._compare(all_numbers, torch.cat(numbers), "all-gather of torch.float32 into one tensor")

    def reduce_several(self) -> None:
        """Reduce tensors while others are under way, as DDP does."""
        import torch
        import torch.distributed as dist

        numbers = [self._next(torch.float32, (size,)) for size in (1023, 3, 1023, 50_001)]
        mine = [self._mine(each) for each in numbers]
        for work in [dist.all_reduce(tensor, async_op=True) for tensor in mine]:
            work.wait()
        for tensor, each in zip(mine, numbers, strict=True):
            self._compare(tensor, _sum(each), "one of several all-reduces at a time, after its wait()")

    def reduce_after_queued_work(self) -> None:
        """Reduce what queued work writes, and queue further work that reads and overwrites the result."""
        import torch
        import torch.distributed as dist

        numbers = self._next(torch.float32, (4097,))
        ready = self._mine(numbers)
        factor = torch.ones(_PRODUCT_SIZE, _PRODUCT_SIZE, device=self._device)
        products = 1
        for _ in range(2):
            # The first product may wait for a kernel to be compiled.
            torch.mm(factor, factor)
            self._synchronize()
            started_s = time.monotonic()
            torch.mm(factor, factor)
            self._synchronize()
            products = math.ceil(min(_MOST_PRODUCTS, max(3, _QUEUED_S / (time.monotonic() - started_s))))
        mine = torch.zeros(4097, device=self._device)
        for _ in range(products):
            torch.mm(factor, factor)
        mine.copy_(ready)
        dist.all_reduce(mine)
        result = mine.clone()
        mine.zero_()
        self._compare(result, _sum(numbers), "all-reduce of what work still in the queue writes")

    def _next(self, dtype: torch.dtype, shape: tuple[int, ...]) -> list[torch.Tensor]:
        self.calls += 1
        return [numbers_of(dtype, shape, rank, self.calls) for rank in range(self._ranks)]

    def _mine(self, numbers: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return this rank's numbers on the device, in memory that a collective may change."""
        return numbers[self._own].to(self._device, copy=True)

    def _compare(self, found: torch.Tensor, expected: torch.Tensor, what: str) -> None:
        require_equal(found, expected, f"collective {self.calls}, {what}")


def _sum(numbers: Sequence[torch.Tensor]) -> torch.Tensor:
    import torch

    return torch.stack([*numbers]).sum(0)


def numbers_of(dtype: torch.dtype, shape: tuple[int, ...], rank: int, call: int) -> torch.Tensor:
    """Return numbers of both signs that look random. Their sums over ranks need every digit of the type."""
    import torch

    size = math.prod(shape)
    mixed = (torch.arange(min(size, _PERIOD)) * 2_654_435_761 + (3 * call + rank) * 40_503_001) % 2**31
    if dtype == torch.int64:
        numbers = (mixed - 2**30) * 2**29 + mixed % 1_000_003
    elif dtype == torch.uint8:
        numbers = mixed // 2**11 % 256
    else:
        bits = 1 - round(math.log2(torch.finfo(dtype).eps))
        numbers = (mixed // 2**7 % 2 ** (bits - 1) - 2 ** (bits - 2)).to(dtype)
        if dtype == torch.float32:
            # Neighbors of very different size show a format with one exponent for many numbers.
            numbers = torch.ldexp(numbers, torch.arange(len(numbers)) % 41 - 20)
    return numbers.to(dtype).repeat(-(-size // _PERIOD))[:size].reshape(shape)


def require_equal(found: torch.Tensor, expected: torch.Tensor, what: str) -> None:
    """Check that every number is the expected one; ``what`` says what they are. NaN equals NaN."""
    import torch

    found = found.detach().cpu()
    if torch.equal(found, expected):
        return
    wrong = ((found != expected) & ~(found.isnan() & expected.isnan())).flatten()
    if wrong.any():
        last = int(wrong.nonzero()[-1])
        fail(
            f"{what}: {int(wrong.sum())} of {expected.numel()} numbers are wrong; number {last + 1} should be "
            f"{expected.flatten()[last].item()!r} and is {found.flatten()[last].item()!r}"
        )
