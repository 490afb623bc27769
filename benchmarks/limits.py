"""Measured limits against independent loops, in turn: products, STREAM-like copies and sums, and an all-reduce.

The plain loops know nothing of chipperf: they time calls with the clock, and take the median of some parts. The plain
products are the best of a sweep of square matrices of their own, and the all-reduce is of two ranks. Within 3 % is
right. The process restarts itself with the environment the CPU reference asks for.

Run: python benchmarks/limits.py --rounds 12
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING

from training_fixture import apply_environment, compare_in_turn

if TYPE_CHECKING:
    from collections.abc import Callable

PARTS = 7
PART_S = 0.1
ARRAY_BYTES = 2**28
REDUCED_BYTES = 2**24


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--store", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    apply_environment()
    if arguments.rank is not None:
        compare_all_reduce(arguments.rank, arguments.store, arguments.rounds)
        return
    compare_products(arguments.rounds)
    compare_memory(arguments.rounds)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, f"--rounds={arguments.rounds}", f"--store={folder}/store"]
        variables = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
        ranks = [subprocess.Popen([*command, f"--rank={rank}"], env=variables) for rank in range(2)]
        sys.exit(max(rank.wait() for rank in ranks))


def plain_seconds(operation: Callable[[], object]) -> float:
    """Return the seconds of one call: the median of parts, each with as many calls as fit into its time."""
    operation()
    found = []
    for _ in range(PARTS):
        calls, start_s = 0, time.perf_counter()
        while time.perf_counter() - start_s < PART_S:
            operation()
            calls += 1
        found.append((time.perf_counter() - start_s) / calls)
    return statistics.median(found)


def compare_products(rounds: int) -> None:
    import torch
    from chipperf.limits.measurement import Clock, best_product
    from chipperf.plugin.installed import find_vendor
    from chipperf.plugin.session import bind
    from chipperf.plugin.types import Rank

    session = bind(find_vendor("cpu"))
    session.load_runtime()
    device = session.device_init(Rank())
    clock = Clock(lambda: session.synchronize(device))
    policy = session.precision("fp32", device)

    def plain() -> float:
        best = 0.0
        for side in (256, 512, 1024, 2048):
            x, w = torch.randn(side, side), torch.randn(side, side)
            best = max(best, 2 * side**3 / plain_seconds(lambda: x @ w.t()))  # noqa: B023
        return 1 / best

    total_bytes = session.device_info(device).total_bytes
    cost = compare_in_turn(lambda: 1 / best_product(device, policy, total_bytes, clock).rate.median, plain, rounds)
    print(f"fp32 products, time for an operation against the best of a plain sweep: {cost}")


def compare_memory(rounds: int) -> None:
    import torch
    from chipperf.limits.measurement import Clock, memory_rates

    device, clock = torch.device("cpu"), Clock(lambda: None)
    a, b, c = (torch.ones(ARRAY_BYTES // 4) for _ in range(3))
    plain = {
        "copy": lambda: plain_seconds(lambda: c.copy_(a)) / (2 * ARRAY_BYTES),
        "add": lambda: plain_seconds(lambda: torch.add(a, b, out=c)) / (3 * ARRAY_BYTES),
    }
    for name, loop in plain.items():
        cost = compare_in_turn(
            lambda: 1 / memory_rates(device, 32 * ARRAY_BYTES, clock)[name].median,  # noqa: B023
            loop,
            rounds,
        )
        print(f"memory {name}, time for a byte against a plain loop: {cost}")


def compare_all_reduce(rank: int, store: str, rounds: int) -> None:
    import torch
    import torch.distributed as dist
    from chipperf.limits import measurement
    from chipperf.plugin.types import Rank
    from chipperf.run.collectives import Collectives

    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    device = torch.device("cpu")
    collectives = Collectives(Rank(rank=rank, world_size=2, local_rank=rank, local_world_size=2), device)
    values = torch.zeros(REDUCED_BYTES // 4)
    calls = 10

    def limit() -> float:
        found = measurement.all_reduce_rates(device, collectives, 2, measurement.Clock(lambda: None), (REDUCED_BYTES,))
        return 1 / found.best.rate.median

    def plain() -> float:
        found = []
        for _ in range(PARTS):
            dist.barrier()
            start_s = time.perf_counter()
            for _ in range(calls):
                dist.all_reduce(values)
            found.append((time.perf_counter() - start_s) / calls)
        # 2 (n - 1) / n is 1 for two ranks.
        return statistics.median(found) / REDUCED_BYTES

    cost = compare_in_turn(limit, plain, rounds)
    if rank == 0:
        print(f"all-reduce of {REDUCED_BYTES} bytes over 2 ranks, time for a byte against a plain loop: {cost}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
