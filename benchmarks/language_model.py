"""Tokens per second of the case gpt2 in a measured window, against a bare loop of torch on the same files.

Both loops run in one process with a model, an optimizer and batches of their own, in turn, round after round. The bare
loop is that of a tutorial: it reads sequences from the mapped file, trains, clips, and sets the learning rate.

Run: python benchmarks/language_model.py --rounds 15
"""

from __future__ import annotations

import time
from itertools import chain, count
from typing import Any

from side_by_side import benchmark_parser, compare, parse, print_table
from training_fixture import apply_environment, build_replica

STEPS = 4


def main() -> None:
    parser = benchmark_parser(__doc__, rounds=15)
    parser.add_argument("--preset", default="demo")
    parser.add_argument("--vendor", default="cpu")
    arguments = parse(parser, preset="tiny")
    apply_environment(arguments.vendor)

    from chipperf.cases.config import resolve
    from chipperf.cases.registry import find_case
    from chipperf.train.core_pass import core_window

    case = find_case("gpt2")
    h: Any = resolve(case, preset=arguments.preset).values
    if case.data.ensure_few_samples is None:
        raise SystemExit("the case generates no data")
    data = case.data.ensure_few_samples(16 * h.batch_size, "tiny" if arguments.preset == "tiny" else "real")
    context, replica = build_replica(case, h, data, arguments.vendor)
    batches = (
        context.workload.to_device(each) for each in chain.from_iterable(map(context.workload.epoch_batches, count()))
    )

    tokens: int = STEPS * h.accumulate_steps * h.batch_size * h.sequence_length

    def measured() -> float:
        return tokens / (core_window(context, replica, batches, 0, STEPS).nanoseconds / 1e9)

    bare, rounds = _bare_loop(context, h, data, tokens), arguments.rounds
    what = f"gpt2, {arguments.preset}, windows of {STEPS} steps"
    print_table([compare(what, measured, "bare loop of torch", bare, rounds, "tokens/s")])


def _bare_loop(context: Any, h: Any, data: Any, count_tokens: int) -> Any:
    import numpy as np
    import torch
    from chipperf_lm.model import Gpt
    from torch.nn.functional import cross_entropy

    device, length = context.device, h.sequence_length
    tokens = np.memmap(data / "train.bin", np.uint16, mode="r")
    model = Gpt(h).to(device)
    groups = [
        {"params": [p for p in model.parameters() if p.dim() >= 2], "weight_decay": h.weight_decay},
        {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=h.lr, betas=(h.beta1, h.beta2), fused=True)
    random = np.random.RandomState(0)

    def run() -> float:
        context.session.synchronize(device)
        start_s = time.perf_counter()
        for _ in range(STEPS):
            optimizer.zero_grad(set_to_none=True)
            for _ in range(h.accumulate_steps):
                starts = random.randint(len(tokens) - length - 1, size=h.batch_size)
                rows = torch.from_numpy(np.stack([tokens[i : i + length + 1].astype(np.int64) for i in starts]))
                rows = rows.to(device, non_blocking=True)
                logits = model(rows[:, :-1])
                (cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten()) / h.accumulate_steps).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), h.max_gradient_norm)
            for group in optimizer.param_groups:
                group["lr"] = h.lr
            optimizer.step()
        context.session.synchronize(device)
        return count_tokens / (time.perf_counter() - start_s)

    return run


if __name__ == "__main__":
    main()
