"""One rank of a job on the CPU reference: trains, evaluates, and prints what it holds then as JSON.

Arguments: rank, number of ranks, a file for the rendezvous, and the dataset's directory.
"""

from __future__ import annotations

import hashlib
import json
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import torch
import torch.distributed as dist
from chipperf import DistributedConfig, LoaderOptions, PrecisionPolicy, Rank
from chipperf.cases.classification.case import MOBILENETV2 as CASE
from chipperf.cases.classification.hyperparameters import ClassificationHyperparameters
from chipperf.cases.classification.workload import ClassificationWorkload
from chipperf.cases.config import resolve
from chipperf.cases.workload import WorkloadContext
from chipperf.plugin import installed
from chipperf.plugin.session import bind
from chipperf.records.schema import Limits
from chipperf.run.collectives import Collectives
from chipperf.run.directory import RunDirectory
from chipperf.run.events import EventLog
from chipperf.run.progress import ProgressFile
from chipperf.train.context import RunContext, Spans
from chipperf.train.loop import TrainingLoop
from chipperf.train.replica import Replica

if TYPE_CHECKING:
    from chipperf.run.plan import RunPlan

DEVICE = torch.device("cpu")


def digest(tensors: list[torch.Tensor]) -> str:
    return hashlib.sha256(b"".join(tensor.detach().numpy().tobytes() for tensor in tensors)).hexdigest()


def main() -> None:
    number, ranks, rendezvous, data_root = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
    rank = Rank(rank=number, local_rank=number, world_size=ranks, local_world_size=ranks)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=number, world_size=ranks)
    torch.set_num_threads(1)
    # Every rank begins elsewhere: equal weights in the end come from the synchronization alone.
    torch.manual_seed(number)
    hyperparameters = ClassificationHyperparameters.model_validate(resolve(CASE, preset="tiny").values.model_dump())

    def workload(place: Rank) -> ClassificationWorkload:
        return ClassificationWorkload(
            WorkloadContext(
                hyperparameters=hyperparameters,
                reference=CASE.data.reference,
                data_root=data_root,
                rank=place,
                device=DEVICE,
                loader_options=LoaderOptions(),
                loader_workers=0,
            )
        )

    context = RunContext(
        plan=cast("RunPlan", SimpleNamespace(run_id="run-1", limits=Limits(max_steps=2))),
        directory=RunDirectory(Path("unused")),
        session=bind(installed.find_vendor("cpu")),
        workload=workload(rank),
        hyperparameters=hyperparameters,
        target=None,
        metric="top1",
        precision=PrecisionPolicy(requested="fp32", effective="fp32"),
        distributed=DistributedConfig(backend="gloo"),
        device=DEVICE,
        rank=rank,
        collectives=Collectives(rank, DEVICE),
        events=EventLog(None, number),
        progress=ProgressFile(None, ranks),
        spans=Spans(0.0),
    )
    replica = Replica(context)
    loop = TrainingLoop(context, replica)
    initial = digest(list(replica.model.parameters()))
    loop.train()
    [point] = loop.state.curve
    model = replica.model.eval()
    alone = workload(Rank()).evaluate(model, Collectives(Rank(), DEVICE), nullcontext)
    dist.destroy_process_group()
    result = {
        "initial": initial,
        "weights": digest(list(model.parameters())),
        "buffers": digest(list(model.buffers())),
        "accuracy": point.value,
        "accuracy_alone": alone.value,
        "counted": point.samples,
        "samples": loop.state.samples,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
