"""What two ranks cost over one on the same cores: dividing the cores, and the exchange of gradients.

All train MobileNetV2 on the CPU reference with the same global batch, in whole runs, in turn: one rank with all cores,
two ranks with half of them each, and two runs of one rank each beside each other, on half of the cores each, which
exchange nothing. Two such runs over one rank is what dividing costs, two ranks over two such runs what DDP costs.

Run: python benchmarks/ddp_overhead.py --rounds 5
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from chipperf.records.schema import Throughput
from chipperf.records.store import read_record

if TYPE_CHECKING:
    from collections.abc import Sequence

FIGURES = ("p_train", "p_core")
RATIOS = (("two ranks", "one rank"), ("two runs", "one rank"), ("two ranks", "two runs"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="at least 2")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--global-batch-size", type=int, default=32)
    arguments = parser.parse_args()

    batch_size, steps = arguments.global_batch_size, arguments.steps
    cores = sorted(os.sched_getaffinity(0))
    halves = cores[: len(cores) // 2], cores[len(cores) // 2 :]
    ways = {
        "one rank": [(1, batch_size, cores)],
        "two ranks": [(2, batch_size // 2, cores)],
        "two runs": [(1, batch_size // 2, half) for half in halves],
    }
    rounds: list[dict[str, dict[str, float]]] = []
    with tempfile.TemporaryDirectory(prefix="chipperf-bench-") as scratch:
        for number in range(arguments.rounds):
            # The order alternates: a drift of the machine's speed favors none.
            order = list(ways) if number % 2 else list(reversed(ways))
            place = Path(scratch) / str(number)
            rounds.append({way: train(place / way.replace(" ", "-"), ways[way], steps) for way in order})
    print(f"{'':10} {'':24} ratio  quartiles")
    for name in FIGURES:
        for one, other in RATIOS:
            values = [each[one][name] / each[other][name] for each in rounds]
            low, median, high = statistics.quantiles(values, n=4, method="inclusive")
            print(f"{name:10} {f'{one} over {other}':24} {median:5.2f}  [{low:.2f}, {high:.2f}]")
    print("limit: 1, where dividing and exchanging cost nothing")


def train(out: Path, runs: Sequence[tuple[int, int, Sequence[int]]], steps: int) -> dict[str, float]:
    """Train runs beside each other and return the sum of their samples per second by the metric's name."""
    started = [
        subprocess.Popen(
            command(out / str(number), ranks, batch_size, steps),
            stdout=subprocess.DEVNULL,
            preexec_fn=partial(os.sched_setaffinity, 0, cores),
        )
        for number, (ranks, batch_size, cores) in enumerate(runs)
    ]
    if any([run.wait() for run in started]):
        raise SystemExit("a run failed")
    return {name: sum(rate(out / str(number), name) for number in range(len(runs))) for name in FIGURES}


def command(out: Path, ranks: int, batch_size: int, steps: int) -> list[str]:
    """Return the command of a run."""
    settings = {
        "batch_size": batch_size,
        "workers": 0,
        "measure_warmup_steps": 4,
        "measure_core_steps": 5,
        "checkpoint_every_epochs": 0,
    }
    options = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    limits = ["--quiet", "--max-steps", str(steps), "--nproc", str(ranks), "--out", str(out)]
    program = [sys.executable, "-m", "chipperf", "train", "mobilenetv2", "--vendor", "cpu", "--preset", "tiny"]
    return [*program, *options, *limits]


def rate(out: Path, name: str) -> float:
    """Return a run's median samples per second."""
    value = getattr(read_record(out).metrics, name)
    if not isinstance(value, Throughput):
        raise SystemExit(f"{name} was not measured: {value}; use more --steps")
    return value.median


if __name__ == "__main__":
    main()
