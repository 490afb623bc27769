"""Measured limits against independent loops, in turn: products, STREAM-like copies and sums, and an all-reduce.

The plain loops know nothing of chipperf: they time calls with the clock, and take the median of some parts. The plain
products are the best of a sweep of square matrices of their own, and the all-reduce is of two ranks. Within 3 % is
right. The process restarts itself with the environment the CPU reference asks for.

Run: python benchmarks/limits.py --rounds 12
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

from side_by_side import Line, benchmark_parser, compare, parse, print_table
from training_fixture import apply_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PART_S = 0.1
REDUCED_BYTES = 2**24


def main() -> None:
    parser = benchmark_parser(__doc__, rounds=10)
    parser.add_argument("--parts", type=int, default=7, help="parts whose median is a plain loop's figure")
    parser.add_argument("--array-mib", type=int, default=256)
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--store", help=argparse.SUPPRESS)
    arguments = parse(parser, parts=1, array_mib=8)
    apply_environment()
    if arguments.rank is None:
        print_table(all_lines(arguments.rounds, arguments.parts, arguments.array_mib * 2**20))
    else:
        compare_all_reduce(arguments.rank, arguments.store, arguments.rounds, arguments.parts)


def all_lines(rounds: int, parts: int, array_bytes: int) -> Iterator[Line]:
    """Compare products and memory in this process, and an all-reduce in two others."""
    yield compare_products(rounds, parts)
    yield from compare_memory(rounds, parts, array_bytes)
    with tempfile.TemporaryDirectory() as folder:
        options = [f"--rounds={rounds}", f"--parts={parts}", f"--store={folder}/store"]
        variables = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
        ranks = [
            subprocess.Popen(
                [sys.executable, __file__, *options, f"--rank={rank}"], env=variables, stdout=subprocess.PIPE, text=True
            )
            for rank in range(2)
        ]
        told = [rank.communicate()[0] for rank in ranks]
        if any(rank.returncode for rank in ranks):
            raise SystemExit("a rank of the all-reduce failed")
        yield Line(**json.loads(told[0]))


def plain_seconds(operation: Callable[[], object], parts: int) -> float:
    """Return the seconds of one call: the median of parts, each with as many calls as fit into its time."""
    operation()
    found = []
    for _ in range(parts):
        calls, start_s = 0, time.perf_counter()
        while time.perf_counter() - start_s < PART_S:
            operation()
            calls += 1
        found.append((time.perf_counter() - start_s) / calls)
    return statistics.median(found)


def compare_products(rounds: int, parts: int) -> Line:
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
            best = max(best, 2 * side**3 / plain_seconds(lambda: x @ w.t(), parts))  # noqa: B023
        return best / 1e9

    total_bytes = session.device_info(device).total_bytes

    def limit() -> float:
        return best_product(device, policy, total_bytes, clock).rate.median / 1e9

    return compare("fp32 products", limit, "best of a plain sweep", plain, rounds, "GFLOP/s")


def compare_memory(rounds: int, parts: int, array_bytes: int) -> Iterator[Line]:
    import torch
    from chipperf.limits.measurement import Clock, memory_rates

    device, clock = torch.device("cpu"), Clock(lambda: None)
    a, b, c = (torch.ones(array_bytes // 4) for _ in range(3))

    def memory_rate(name: str) -> float:
        return memory_rates(device, 32 * array_bytes, clock)[name].median / 1e9

    plain = {
        "copy": lambda: 2e-9 * array_bytes / plain_seconds(lambda: c.copy_(a), parts),
        "add": lambda: 3e-9 * array_bytes / plain_seconds(lambda: torch.add(a, b, out=c), parts),
    }
    for name, loop in plain.items():
        limit = partial(memory_rate, name)
        yield compare(f"memory, {name}", limit, "plain loop", loop, rounds, "GB/s")


def compare_all_reduce(rank: int, store: str, rounds: int, parts: int) -> None:
    """Print the line as JSON on rank 0; 2 (n - 1) / n, the share of the bytes on the bus, is 1 for two ranks."""
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
        return found.best.rate.median / 1e9

    def plain() -> float:
        found = []
        for _ in range(parts):
            dist.barrier()
            start_s = time.perf_counter()
            for _ in range(calls):
                dist.all_reduce(values)
            found.append((time.perf_counter() - start_s) / calls)
        return REDUCED_BYTES / 1e9 / statistics.median(found)

    line = compare(f"all-reduce of {REDUCED_BYTES} bytes, 2 ranks", limit, "plain loop", plain, rounds, "GB/s")
    if rank == 0:
        print(json.dumps(asdict(line)))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
