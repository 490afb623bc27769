"""Overhead of the trainer over a bare loop with identical settings, as a share of a step.

Both loops run in one process on the same model, optimiser and device-resident batches, in turn, round after round.
The process restarts itself with the environment the CPU reference asks for.

Run: python benchmarks/harness_overhead.py --rounds 15
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from trainer_fixture import apply_environment, build_trainer, compare_in_turn

STEPS = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch-size", type=int, default=16)
    arguments = parser.parse_args()
    apply_environment()

    _, _, trainer, batches = build_trainer(arguments.batch_size)
    bare = _bare_loop(trainer, batches)
    _harness_s(trainer, batches)
    bare()
    overhead = compare_in_turn(lambda: _harness_s(trainer, batches), bare, arguments.rounds)
    print(
        f"overhead of the trainer over a bare loop, of a step: {overhead}, {arguments.rounds} rounds of {STEPS} steps"
    )


def _harness_s(trainer: Any, batches: Any) -> float:
    window = trainer._window(batches, epoch=0, first_step=0, steps=STEPS, on_device=True)
    return float(window.nanoseconds) / 1e9


def _bare_loop(trainer: Any, batches: Any) -> Any:
    import torch

    model, optimizer = trainer._model, trainer._optimizer

    def run() -> float:
        start_s = time.perf_counter()
        for _ in range(STEPS):
            images, labels = next(batches)
            optimizer.zero_grad(set_to_none=True)
            loss = torch.nn.functional.cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
        return time.perf_counter() - start_s

    return run


if __name__ == "__main__":
    main()
