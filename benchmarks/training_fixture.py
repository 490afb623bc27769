"""A model as a worker trains it, for benchmarks that time its steps; prints nothing when run by itself."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from itertools import cycle
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chipperf.cases.base import Case, Hyperparameters
    from chipperf.precisions import Precision
    from chipperf.run.plan import RunPlan
    from chipperf.train.context import RunContext
    from chipperf.train.replica import Replica

_RESTARTED = "CHIPPERF_BENCHMARK_RESTARTED"


def apply_environment(vendor: str = "cpu") -> None:
    """Restart this program with the variables a worker of the vendor would have."""
    if _RESTARTED in os.environ:
        return
    from chipperf.plugin.installed import find_vendor
    from chipperf.plugin.session import bind
    from chipperf.plugin.types import EnvironmentSettings, Rank

    settings = EnvironmentSettings(case="mobilenetv2", precision="fp32")
    variables = bind(find_vendor(vendor)).environment(Rank(), settings)
    environment = os.environ | {variable.name: variable.value for variable in variables} | {_RESTARTED: "1"}
    os.execve(sys.executable, [sys.executable, *sys.argv], environment)


def build_training(
    batch_size: int, vendor: str = "cpu", name: str = "mobilenetv2", precision: Precision = "fp32"
) -> tuple[RunContext, Replica, Iterator[Any]]:
    """Return what a rank trains a classifier with, the model, and an endless iterator over device-resident batches."""
    from chipperf.cases.registry import find_case
    from chipperf.data.sample import SampleOptions, ensure_sample_dataset
    from chipperf.train.core_pass import POOL_BATCHES

    case = find_case(name)
    data = ensure_sample_dataset(SampleOptions(classes=10, train_per_class=100, val_per_class=2))
    hyperparameters = case.base.model_copy(update={"batch_size": batch_size})
    context, replica = build_replica(case, hyperparameters, data, vendor, precision)
    loader = context.workload.epoch_batches(0)
    return context, replica, cycle([context.workload.to_device(next(loader)) for _ in range(POOL_BATCHES)])


def build_replica(
    case: Case, hyperparameters: Hyperparameters, data: Path, vendor: str = "cpu", precision: Precision = "fp32"
) -> tuple[RunContext, Replica]:
    """Return what one rank trains a case with on a dataset, and its model."""
    import torch
    from chipperf.cases.workload import WorkloadContext
    from chipperf.plugin.installed import find_vendor
    from chipperf.plugin.session import bind
    from chipperf.plugin.types import Rank
    from chipperf.records.schema import Limits
    from chipperf.run.collectives import Collectives
    from chipperf.run.directory import RunDirectory
    from chipperf.run.events import EventLog
    from chipperf.run.progress import ProgressFile
    from chipperf.train.context import RunContext, Spans
    from chipperf.train.replica import Replica

    session, rank = bind(find_vendor(vendor)), Rank()
    session.load_runtime()
    device = session.device_init(rank)
    workload = case.load_workload()(
        WorkloadContext(
            hyperparameters=hyperparameters,
            reference=case.data.reference,
            data_root=data,
            rank=rank,
            device=device,
            loader_options=session.loader_options(device),
            loader_workers=0,
        )
    )
    torch.manual_seed(0)
    scratch = Path(tempfile.mkdtemp())
    context = RunContext(
        plan=cast("RunPlan", SimpleNamespace(run_id="benchmark", limits=Limits())),
        directory=RunDirectory(scratch),
        session=session,
        workload=workload,
        hyperparameters=hyperparameters,
        target=None,
        metric=case.metric,
        precision=session.precision(precision, device),
        distributed=None,
        device=device,
        rank=rank,
        collectives=Collectives(rank, device),
        events=EventLog(scratch / "events.jsonl", 0),
        progress=ProgressFile(None, 1),
        spans=Spans(time.monotonic()),
    )
    return context, Replica(context)
