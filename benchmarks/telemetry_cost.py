"""Cost of telemetry: throughput of the same training steps with the sampling process beside them and without.

The steps run in one process on device-resident batches; the sampling process is started and stopped around every other
round. The process restarts itself with the environment the CPU reference asks for.

Run: python benchmarks/telemetry_cost.py --rounds 12
"""

from __future__ import annotations

import argparse
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

from training_fixture import apply_environment, build_training, compare_in_turn

STEPS = 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=16)
    arguments = parser.parse_args()
    apply_environment()

    from chipperf.run.telemetry_process import TelemetrySampler
    from chipperf.train.core_pass import core_window

    context, replica, batches = build_training(arguments.batch_size)
    path = Path(tempfile.mkdtemp()) / "telemetry.jsonl"
    sampler = TelemetrySampler(context.session, path, [context.session.device_info(context.device)], {})

    def seconds(*, sampled: bool) -> float:
        before = _size_bytes(path)
        with sampler if sampled else nullcontext():
            # The sampling process's start is paid once a run; what is timed is its work.
            while sampled and _size_bytes(path) == before:
                time.sleep(0.05)
            window = core_window(context, replica, batches, 0, STEPS)
        return window.nanoseconds / 1e9

    seconds(sampled=False)
    cost = compare_in_turn(lambda: seconds(sampled=True), lambda: seconds(sampled=False), arguments.rounds)
    readings = len(path.read_text(encoding="utf-8").splitlines())
    print(f"cost of telemetry, of the time: {cost}, {arguments.rounds} rounds of {STEPS} steps, {readings} readings")


def _size_bytes(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


if __name__ == "__main__":
    main()
