"""Overhead of the trainer over a bare loop with identical settings, as a share of a step.

Both loops run in one process on the same model, optimiser and device-resident batches, in turn, round after round.
The process restarts itself with the environment the CPU reference asks for.

Run: python benchmarks/harness_overhead.py --rounds 15
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from itertools import cycle
from pathlib import Path
from typing import Any

STEPS = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch-size", type=int, default=16)
    rounds = parser.parse_args().rounds
    batch_size = parser.parse_args().batch_size
    _apply_environment()

    trainer, batches = _build_trainer(batch_size)
    bare = _bare_loop(trainer, batches)
    overheads = []
    trainer._window(batches, epoch=0, steps=STEPS, on_device=True)
    bare()
    for index in range(rounds):
        # The order alternates, so that a drift of the machine's speed favours neither.
        if index % 2:
            bare_s, harness_s = bare(), _harness_s(trainer, batches)
        else:
            harness_s, bare_s = _harness_s(trainer, batches), bare()
        overheads.append(harness_s / bare_s - 1)
    ordered = sorted(overheads)
    quarter = len(ordered) // 4
    print(
        f"overhead of the trainer over a bare loop: median {statistics.median(overheads):+.2%} of a step, "
        f"middle half [{ordered[quarter]:+.2%}, {ordered[-1 - quarter]:+.2%}], {rounds} rounds of {STEPS} steps"
    )


def _harness_s(trainer: Any, batches: Any) -> float:
    window = trainer._window(batches, epoch=0, steps=STEPS, on_device=True)
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


def _build_trainer(batch_size: int) -> tuple[Any, Any]:
    """Return a trainer as a worker builds it, and an endless iterator over device-resident batches."""
    import torch
    from chipperf.cases.registry import find_case
    from chipperf.catalogue import find_vendor
    from chipperf.data.sample import SampleOptions, ensure_sample_dataset
    from chipperf.records.events import EventLog
    from chipperf.records.schema import Limits
    from chipperf.session import bind
    from chipperf.train.collectives import Collectives
    from chipperf.train.progress import ProgressFile
    from chipperf.train.spans import Spans
    from chipperf.train.trainer import POOL_BATCHES, RunContext, Trainer
    from chipperf.train.workload import WorkloadContext
    from chipperf.types import Rank

    session, rank = bind(find_vendor("cpu")), Rank()
    session.load_runtime()
    device = session.device_init(rank)
    case = find_case("mobilenetv2")
    hyperparameters = case.base.model_copy(update={"batch_size": batch_size})
    workload = case.load_workload()(
        WorkloadContext(
            hyperparameters=hyperparameters,
            data_root=ensure_sample_dataset(SampleOptions(classes=10, train_per_class=100, val_per_class=2)),
            rank=rank,
            device=device,
            loader_options=session.loader_options(device),
            loader_workers=0,
        )
    )
    context = RunContext(
        run_id="overhead",
        session=session,
        workload=workload,
        hyperparameters=hyperparameters,
        limits=Limits(),
        target=None,
        metric="top1",
        precision=session.precision("fp32", device),
        distributed=None,
        device=device,
        rank=rank,
        collectives=Collectives(rank, device),
        events=EventLog(Path(tempfile.mkdtemp()) / "events.jsonl", 0),
        progress=ProgressFile(None, 1),
        spans=Spans(time.monotonic()),
    )
    torch.manual_seed(0)
    trainer = Trainer(context)
    loader = workload.epoch_batches(0)
    return trainer, cycle([workload.to_device(next(loader)) for _ in range(POOL_BATCHES)])


def _apply_environment() -> None:
    """Restart this program with the variables a worker would have."""
    if "CHIPPERF_OVERHEAD_RESTARTED" in os.environ:
        return
    from chipperf.catalogue import find_vendor
    from chipperf.session import bind
    from chipperf.types import EnvironmentSettings, Rank

    variables = bind(find_vendor("cpu")).environment(Rank(), EnvironmentSettings(case="mobilenetv2", precision="fp32"))
    environment = os.environ | {variable.name: variable.value for variable in variables}
    environment["CHIPPERF_OVERHEAD_RESTARTED"] = "1"
    os.execve(sys.executable, [sys.executable, *sys.argv], environment)


if __name__ == "__main__":
    main()
