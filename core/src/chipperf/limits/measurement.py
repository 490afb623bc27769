"""The measurements of limits, each with the device synchronized at the edges of its windows only.

* matrix products ``x @ w.T``, as a linear layer computes them: the best of a sweep of shapes;
* memory: ``copy`` moves two arrays and ``add`` three, as STREAM counts them;
* links to the host, from and to pinned and pageable memory;
* the bus bandwidth of an all-reduce, as nccl-tests defines it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
import torch.distributed as dist

from chipperf.errors import TrainingError
from chipperf.precisions import ARITHMETICS, PRECISIONS
from chipperf.records.event_metrics import throughput
from chipperf.records.limit_shares import bus_bytes
from chipperf.records.machine_limits import AllReduceLimit, AllReduceLimits
from chipperf.records.schema import MINIMUM_WINDOWS, Throughput, Window
from chipperf.train.effective_precision import Rounding, product_rounding
from chipperf.train.windows import LocalWindow, combine_windows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from chipperf.plugin.types import PrecisionPolicy
    from chipperf.precisions import Precision
    from chipperf.run.collectives import Collectives

WINDOWS: Final = MINIMUM_WINDOWS + 2
WINDOW_S: Final = 0.1
"""Least time of a window: far above what a clock and a synchronization cost, which is microseconds."""

_SWEEP_WINDOW_S: Final = 0.02
_SMALLEST_SIDE: Final = 256
_LARGEST_SIDE: Final = 16384
_LONGEST_CALL_S: Final = 0.5
"""A call that takes longer ends a sweep: larger ones say no more and take too long."""

_MEMORY_PARTS: Final = 32
_LARGEST_ARRAY_BYTES: Final = 2**30
"""An array is a small part of the memory, and larger than any cache."""

_ARRAY_BYTES_IF_UNTOLD: Final = 2**28
_ALL_REDUCE_BYTES: Final = tuple(2**exponent for exponent in range(10, 29, 3))


@dataclass(frozen=True, slots=True)
class Clock:
    """Times calls on one device. ``synchronize`` waits for all queued work."""

    synchronize: Callable[[], object]

    def window_s(self, operation: Callable[[], object], calls: int) -> float:
        """Return the time of some calls, from an idle device to an idle device."""
        self.synchronize()
        start_s = time.perf_counter()
        for _ in range(calls):
            operation()
        self.synchronize()
        return time.perf_counter() - start_s

    def calls(self, operation: Callable[[], object], window_s: float) -> int:
        """Return how many calls fill a window. Calls are made until they no longer include the first one's costs."""
        operation()
        calls = 1
        while (spent_s := self.window_s(operation, calls)) < window_s / 2:
            calls = max(calls * 2, min(calls * 100, round(calls * window_s / max(spent_s, 1e-9))))
        return max(1, round(calls * window_s / spent_s))

    def rate(self, operation: Callable[[], object], amount: int, *, window_s: float = WINDOW_S) -> Throughput:
        """Return the rate of an operation that does ``amount`` of something in each call."""
        calls = self.calls(operation, window_s)
        times_s = [self.window_s(operation, calls) for _ in range(WINDOWS)]
        return _rate(
            Window(epoch=1, first_step=1 + index * calls, steps=calls, samples=amount * calls, seconds=seconds)
            for index, seconds in enumerate(times_s)
        )


def _rate(windows: Iterator[Window]) -> Throughput:
    found = throughput(list(windows))
    if found is None:
        raise TrainingError("the clock did not advance within a window")
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class BestProduct:
    """The fastest product of a sweep: its rate in FLOP/s, and its shape and rounding."""

    rate: Throughput
    shape: tuple[int, int, int]
    rounding: Rounding


def best_product(device: torch.device, policy: PrecisionPolicy, total_bytes: int | None, clock: Clock) -> BestProduct:
    """Return the fastest product of square matrices in a precision whose policy is in force, and one of its half."""
    dtype = operand_type(policy)
    found: dict[tuple[int, int, int], float] = {}
    side = _SMALLEST_SIDE
    while side <= _LARGEST_SIDE and 3 * side**2 * dtype.itemsize <= (total_bytes or 2**62) // 8:
        shape = (side, side, side)
        found[shape] = _swept(device, dtype, shape, clock)
        if found[shape] <= 0 or 2 * side**3 / found[shape] > _LONGEST_CALL_S / 8:
            break
        side *= 2
    rows, columns, inner = max(found, key=lambda shape: found[shape])
    for shape in ((2 * rows, columns, inner), (rows, columns, inner // 2)):
        found[shape] = _swept(device, dtype, shape, clock)
    # A busy machine may favor a shape for a moment.
    fastest = sorted(found, key=lambda shape: found[shape])[-2:]
    rates = {shape: clock.rate(_product(device, dtype, shape), product_flops(shape)) for shape in fastest}
    best = max(rates, key=lambda shape: rates[shape].median)
    return BestProduct(rate=rates[best], shape=best, rounding=product_rounding(device, dtype, best))


def product_flops(shape: tuple[int, int, int]) -> int:
    """Return the floating-point operations of a product: one multiplication and one addition for each pair."""
    rows, columns, inner = shape
    return 2 * rows * columns * inner


def operand_type(policy: PrecisionPolicy) -> torch.dtype:
    """Return the type of the matrices that a precision multiplies: autocast's, or else fp32."""
    found: torch.dtype = getattr(torch, policy.autocast_dtype) if policy.autocast_dtype else torch.float32
    return found


def is_narrower(rounding: Rounding, precision: Precision) -> bool:
    """Return whether a product was computed in a narrower format than its precision means."""
    meant = ARITHMETICS[PRECISIONS[precision].arithmetic]
    kept = 23 if rounding.name == "fp32" else rounding.bits
    return kept < meant.fraction_bits


def _swept(device: torch.device, dtype: torch.dtype, shape: tuple[int, int, int], clock: Clock) -> float:
    """Return the highest rate of a few short windows."""
    multiply = _product(device, dtype, shape)
    calls = clock.calls(multiply, _SWEEP_WINDOW_S)
    return max(product_flops(shape) * calls / clock.window_s(multiply, calls) for _ in range(3))


def _product(device: torch.device, dtype: torch.dtype, shape: tuple[int, int, int]) -> Callable[[], object]:
    rows, columns, inner = shape
    # Random numbers: zeros take less power, and with it less time. The host draws a few, which is quick.
    drawn = torch.randn(_SMALLEST_SIDE, inner).to(device, dtype)
    x, w = (drawn.repeat(side // _SMALLEST_SIDE, 1) for side in (rows, columns))
    result = torch.empty(rows, columns, device=device, dtype=dtype)
    return lambda: torch.mm(x, w.t(), out=result)


def array_bytes(total_bytes: int | None) -> int:
    """Return the size of an array of the memory's and the link's measurement."""
    size_bytes = _ARRAY_BYTES_IF_UNTOLD if total_bytes is None else total_bytes // _MEMORY_PARTS
    return min(size_bytes, _LARGEST_ARRAY_BYTES) // 4 * 4


def memory_rates(device: torch.device, total_bytes: int | None, clock: Clock) -> dict[str, Throughput]:
    """Return the bandwidth of copying an array and of adding two, counting every array once, as STREAM does."""
    size_bytes = array_bytes(total_bytes)
    a, b, c = (torch.ones(size_bytes // 4, device=device) for _ in range(3))
    return {
        "copy": clock.rate(lambda: c.copy_(a), 2 * size_bytes),
        "add": clock.rate(lambda: torch.add(a, b, out=c), 3 * size_bytes),
    }


def host_link_rate(device: torch.device, total_bytes: int | None, link: str, clock: Clock) -> Throughput:
    """Return the bandwidth of one of :data:`~chipperf.records.machine_limits.HOST_LINKS`."""
    direction, kind = link.split("_")
    size_bytes = array_bytes(total_bytes)
    there, host = torch.ones(size_bytes // 4, device=device), torch.ones(size_bytes // 4)
    if kind == "pinned":
        host = host.pin_memory()
    target, source = (there, host) if direction == "h2d" else (host, there)
    return clock.rate(lambda: target.copy_(source, non_blocking=kind == "pinned"), size_bytes)


def all_reduce_rates(
    device: torch.device,
    collectives: Collectives,
    ranks: int,
    clock: Clock,
    sizes_bytes: Sequence[int] = _ALL_REDUCE_BYTES,
) -> AllReduceLimits:
    """Return the bus bandwidth of all-reduces by size. The slowest rank's time counts; nccl-tests takes the mean."""
    own = dist.get_rank()
    sizes = []
    for size_bytes in sizes_bytes:
        values = torch.full((size_bytes // 4,), float(own + 1), device=device)
        dist.all_reduce(values)
        if not bool((values == ranks * (ranks + 1) // 2).all()):
            raise TrainingError(f"an all-reduce of {size_bytes} bytes over {ranks} ranks has a wrong sum")
        values.zero_()

        def reduce(values: torch.Tensor = values) -> Any:
            return dist.all_reduce(values)

        calls = _agreed_calls(reduce, collectives, clock)
        # The bytes count once, and each rank has its time.
        moved = round(bus_bytes(size_bytes, ranks) * calls) if own == 0 else 0
        windows = [_all_reduce_window(reduce, calls, moved, collectives, clock) for _ in range(WINDOWS)]
        rate = _rate(iter(combine_windows(windows, collectives)))
        sizes.append(AllReduceLimit(size_bytes=size_bytes, rate=rate))
        if rate.windows[0].seconds / calls > _LONGEST_CALL_S:
            break
    return AllReduceLimits(ranks=ranks, sizes=sizes)


def _agreed_calls(reduce: Callable[[], object], collectives: Collectives, clock: Clock) -> int:
    """Return how many calls fill a window on the slowest rank; every rank must make as many."""
    reduce()
    calls = 1
    while True:
        spent_ns = collectives.max_counts([round(clock.window_s(reduce, calls) * 1e9)])[0]
        if spent_ns >= WINDOW_S * 1e9 / 2:
            return max(1, round(calls * WINDOW_S * 1e9 / spent_ns))
        calls *= 2 if spent_ns > WINDOW_S * 1e9 / 20 else 10


def _all_reduce_window(
    reduce: Callable[[], object], calls: int, moved: int, collectives: Collectives, clock: Clock
) -> LocalWindow:
    collectives.barrier()
    nanoseconds = round(clock.window_s(reduce, calls) * 1e9)
    return LocalWindow(epoch=1, first_step=1, steps=calls, samples=moved, nanoseconds=nanoseconds, loss=0.0)
