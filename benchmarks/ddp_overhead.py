"""What two ranks cost over one on the same cores: dividing the cores, and the exchange of gradients.

All train MobileNetV2 on the CPU reference with the same global batch, in whole runs, in turn: one rank with all cores,
two ranks with half of them each, and two runs of one rank each beside each other, on half of the cores each, which
exchange nothing. Two such runs over one rank is what dividing costs, two ranks over two such runs what DDP costs.

The limit is 1, where dividing and exchanging cost nothing.

Run: python benchmarks/ddp_overhead.py --rounds 5
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from chipperf.data.sample import SampleOptions, ensure_sample_dataset
from chipperf.records.schema import Throughput
from chipperf.records.store import read_record
from side_by_side import benchmark_parser, compared, in_turn, parse, print_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FIGURES = ("p_train", "p_core")
RATIOS = (("two ranks", "one rank"), ("two runs", "one rank"), ("two ranks", "two runs"))


def main() -> None:
    parser = benchmark_parser(__doc__, rounds=3)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--global-batch-size", type=int, default=32)
    parser.add_argument("--without-runs", action="store_true", help="leave out the two runs beside each other")
    arguments = parse(parser, steps=10, global_batch_size=8, without_runs=True)

    batch_size, steps = arguments.global_batch_size, arguments.steps
    cores = sorted(os.sched_getaffinity(0))
    halves = cores[: len(cores) // 2], cores[len(cores) // 2 :]
    ways = {
        "one rank": [(1, batch_size, cores)],
        "two ranks": [(2, batch_size // 2, cores)],
    }
    if not arguments.without_runs:
        ways["two runs"] = [(1, batch_size // 2, half) for half in halves]
    # Few images to evaluate, which counts in neither figure.
    data = ensure_sample_dataset(SampleOptions(classes=10, train_per_class=100, val_per_class=2))
    with tempfile.TemporaryDirectory(prefix="chipperf-bench-") as scratch:
        places = (Path(scratch) / str(number) for number in count())
        trained = {way: partial(train, places, runs, data, steps) for way, runs in ways.items()}
        found = in_turn(trained, arguments.rounds)
    rates = {(way, name): [each[name] for each in rounds] for way, rounds in found.items() for name in FIGURES}
    print_table(
        compared(f"{name}, {one}", rates[one, name], other, rates[other, name], "images/s")
        for name in FIGURES
        for one, other in RATIOS
        if {one, other} <= found.keys()
    )


def train(
    places: Iterator[Path], runs: Sequence[tuple[int, int, Sequence[int]]], data: Path, steps: int
) -> dict[str, float]:
    """Train runs beside each other and return the sum of their samples per second by the metric's name."""
    out = next(places)
    started = [
        subprocess.Popen(
            command(out / str(number), ranks, batch_size, data, steps),
            stdout=subprocess.DEVNULL,
            preexec_fn=partial(os.sched_setaffinity, 0, cores),
        )
        for number, (ranks, batch_size, cores) in enumerate(runs)
    ]
    if any([run.wait() for run in started]):
        raise SystemExit("a run failed")
    return {name: sum(rate(out / str(number), name) for number in range(len(runs))) for name in FIGURES}


def command(out: Path, ranks: int, batch_size: int, data: Path, steps: int) -> list[str]:
    """Return the command of a run."""
    settings = {
        "batch_size": batch_size,
        # Few images with the rate of many would diverge.
        "lr": 1e-4,
        "workers": 0,
        "measure_warmup_steps": 4,
        "measure_core_steps": max(1, steps // 6),
        "checkpoint_every_epochs": 0,
    }
    options = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    limits = ["--quiet", "--max-steps", str(steps), "--nproc", str(ranks), "--data", str(data)]
    program = [sys.executable, "-m", "chipperf", "train", "mobilenetv2", "--vendor", "cpu", "--preset", "tiny"]
    return [*program, *options, *limits, "--out", str(out)]


def rate(out: Path, name: str) -> float:
    """Return a run's median samples per second."""
    value = getattr(read_record(out).metrics, name)
    if not isinstance(value, Throughput):
        raise SystemExit(f"{name} was not measured: {value}; use more --steps")
    return value.median


if __name__ == "__main__":
    main()
