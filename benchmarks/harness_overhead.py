"""Overhead of a measured window over a bare loop with identical settings, as a share of a step.

Both loops run in one process on the same model, optimizer and device-resident batches, in turn, round after round.
The process restarts itself with the environment the vendor asks for.

Run: python benchmarks/harness_overhead.py --rounds 15
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from training_fixture import apply_environment, build_training, compare_in_turn

STEPS = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--vendor", default="cpu")
    arguments = parser.parse_args()
    apply_environment(arguments.vendor)

    context, replica, batches = build_training(arguments.batch_size, arguments.vendor)

    from chipperf.train.core_pass import core_window

    def measured() -> float:
        return core_window(context, replica, batches, 0, STEPS).nanoseconds / 1e9

    bare = _bare_loop(context, replica, batches)
    measured()
    bare()
    overhead = compare_in_turn(measured, bare, arguments.rounds)
    print(f"overhead of a window over a bare loop, of a step: {overhead}, {arguments.rounds} rounds of {STEPS} steps")


def _bare_loop(context: Any, replica: Any, batches: Any) -> Any:
    import torch

    model, optimizer = replica.model, replica.optimizer

    def run() -> float:
        context.session.synchronize(context.device)
        start_s = time.perf_counter()
        for _ in range(STEPS):
            images, labels = next(batches)
            optimizer.zero_grad(set_to_none=True)
            loss = torch.nn.functional.cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
        context.session.synchronize(context.device)
        return time.perf_counter() - start_s

    return run


if __name__ == "__main__":
    main()
