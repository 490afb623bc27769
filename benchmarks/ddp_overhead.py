"""What two ranks cost over one on the same cores: the exchange of gradients, and the second process.

Both train MobileNetV2 on the CPU reference with the same global batch, in whole runs, in turn. The reference divides
the cores among its ranks: a ratio below 1 is what dividing costs. One above 1 means that one process keeps its cores
less busy than two do, as with small images.

Run: python benchmarks/ddp_overhead.py --rounds 5
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from chipperf.records.schema import Throughput
from chipperf.records.store import read_record

FIGURES = ("p_train", "p_core")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--global-batch-size", type=int, default=32)
    arguments = parser.parse_args()

    ratios: dict[str, list[float]] = {name: [] for name in FIGURES}
    with tempfile.TemporaryDirectory(prefix="chipperf-bench-") as scratch:
        for number in range(arguments.rounds):
            # The order alternates: a drift of the machine's speed favors neither.
            order = (1, 2) if number % 2 else (2, 1)
            measured = {
                ranks: train(
                    Path(scratch) / f"{number}-{ranks}", ranks, arguments.global_batch_size // ranks, arguments.steps
                )
                for ranks in order
            }
            for name in FIGURES:
                ratios[name].append(measured[2][name] / measured[1][name])
            print(f"round {number + 1}: " + ", ".join(f"{name} {ratios[name][-1]:.3f}" for name in FIGURES), flush=True)
    for name in FIGURES:
        values = ratios[name]
        print(
            f"{name} of 2 ranks over 1: median {statistics.median(values):.3f}, {min(values):.3f} to {max(values):.3f}"
        )


def train(out: Path, ranks: int, batch_size: int, steps: int) -> dict[str, float]:
    """Train once and return samples per second by the metric's name."""
    command = [sys.executable, "-m", "chipperf", "train", "mobilenetv2", "--vendor", "cpu", "--preset", "tiny"]
    settings = {
        "batch_size": batch_size,
        "workers": 0,
        "measure_warmup_steps": 4,
        "measure_core_steps": 5,
        "checkpoint_every_epochs": 0,
    }
    options = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    limits = ["--max-steps", str(steps), "--nproc", str(ranks), "--out", str(out)]
    subprocess.run([*command, *options, *limits], check=True, capture_output=True)
    metrics = read_record(out).metrics
    rates = {}
    for name in FIGURES:
        value = getattr(metrics, name)
        if not isinstance(value, Throughput):
            raise SystemExit(f"{name} was not measured: {value}; use more --steps")
        rates[name] = value.median
    return rates


if __name__ == "__main__":
    main()
