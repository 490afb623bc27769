"""Time of a step in a measured window over that in a bare loop with identical settings.

Both loops run in one process on the same model, optimizer and device-resident batches, in turn, round after round.
The process restarts itself with the environment the vendor asks for.

Run: python benchmarks/harness_overhead.py --rounds 15
"""

from __future__ import annotations

import time
from typing import Any

from side_by_side import benchmark_parser, compare, parse, print_table
from training_fixture import apply_environment, build_training

STEPS = 4


def main() -> None:
    parser = benchmark_parser(__doc__, rounds=15)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--vendor", default="cpu")
    arguments = parse(parser, batch_size=2)
    apply_environment(arguments.vendor)

    context, replica, batches = build_training(arguments.batch_size, arguments.vendor)

    from chipperf.train.core_pass import core_window

    def measured() -> float:
        return core_window(context, replica, batches, 0, STEPS).nanoseconds / 1e9 / STEPS

    what = f"step of MobileNetV2, {arguments.batch_size} images, in a window of {STEPS} steps"
    print_table([compare(what, measured, "bare loop", _bare_loop(context, replica, batches), arguments.rounds)])


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
        return (time.perf_counter() - start_s) / STEPS

    return run


if __name__ == "__main__":
    main()
