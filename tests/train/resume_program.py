"""One rank of a job on the CPU reference: trains once whole, and once for each of some edges stopped there and resumed.

Prints as JSON what it holds then. Arguments: case, rank, number of ranks, a file for the rendezvous, the dataset's
directory, a directory for checkpoints, and the edges, separated by commas.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.distributed as dist
from chipperf import DistributedConfig, LoaderOptions, PrecisionPolicy, Rank
from chipperf.cases.config import resolve
from chipperf.cases.registry import find_case
from chipperf.cases.workload import WorkloadContext
from chipperf.plugin import installed
from chipperf.plugin.session import bind
from chipperf.records.checkpoints import newest_valid
from chipperf.records.schema import Limits
from chipperf.run.collectives import Collectives
from chipperf.run.directory import RunDirectory
from chipperf.run.events import EventLog
from chipperf.run.progress import ProgressFile
from chipperf.train.checkpoint import CheckpointWriter, read_checkpoint
from chipperf.train.context import RunContext, Spans
from chipperf.train.loop import TrainingLoop
from chipperf.train.preparation import seed_everything
from chipperf.train.replica import Replica
from chipperf.train.stop import StopRequest
from tiny_training import StopAt

if TYPE_CHECKING:
    from chipperf.run.plan import RunPlan

DEVICE = torch.device("cpu")
SETTINGS = {
    "mobilenetv2": ({"evaluate_every_steps": 4, "measure_window_steps": 3}, Limits()),
    "detr": ({"measure_window_steps": 2}, Limits(max_steps=3)),
    "gpt2": ({"accumulate_steps": 2, "evaluate_every_steps": 3, "measure_window_steps": 2}, Limits(max_steps=6)),
}


def make_loop(
    case_name: str, rank: Rank, data: Path, directory: Path, session: int, stop: StopRequest
) -> tuple[TrainingLoop, Replica]:
    case = find_case(case_name)
    settings, limits = SETTINGS[case_name]
    tiny = resolve(case, preset="tiny", command_line=settings).values
    h = type(case.base).model_validate(tiny.model_dump())
    vendor = bind(installed.find_vendor("cpu"))
    collectives = Collectives(rank, DEVICE)
    seed_everything(vendor, h.seed, DEVICE, False)
    workload = case.load_workload()(
        WorkloadContext(
            hyperparameters=h,
            reference=case.data.reference,
            data_root=data,
            rank=rank,
            device=DEVICE,
            loader_options=LoaderOptions(),
            loader_workers=1 if case_name == "mobilenetv2" else 0,
        )
    )
    context = RunContext(
        plan=cast("RunPlan", SimpleNamespace(run_id="run-1", limits=limits)),
        directory=RunDirectory(Path("unused")),
        session=vendor,
        workload=workload,
        hyperparameters=h,
        target=None,
        metric=case.metric,
        lower_is_better=case.lower_is_better,
        precision=PrecisionPolicy(requested="fp32", effective="fp32"),
        distributed=DistributedConfig(backend="gloo") if rank.world_size > 1 else None,
        device=DEVICE,
        rank=rank,
        collectives=collectives,
        events=EventLog(None, rank.rank),
        progress=ProgressFile(None, rank.world_size),
        spans=Spans(0.0),
        checkpoints=CheckpointWriter(
            directory, run_id="run-1", session=session, keep=1, rank=rank, collectives=collectives
        )
        if session
        else None,
        stop=stop,
    )
    replica = Replica(context)
    return TrainingLoop(context, replica), replica


def held(loop: TrainingLoop, replica: Replica) -> dict[str, Any]:
    state = loop.state
    windows = sorted((*state.windows, *state.restart_windows), key=lambda window: window.first_step)
    weights = b"".join(tensor.numpy().tobytes() for tensor in replica.model.state_dict().values())
    return {
        "weights": hashlib.sha256(weights).hexdigest(),
        "windows": [window.model_dump(exclude={"seconds"}) for window in windows],
        "curve": [point.model_dump(exclude={"elapsed_s"}) for point in state.curve],
        "counts": [state.steps, state.samples, state.epochs, len(state.data_waits_s)],
    }


def main() -> None:
    case, number, ranks = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    rendezvous, data, directory = sys.argv[4], Path(sys.argv[5]), Path(sys.argv[6])
    rank = Rank(rank=number, local_rank=number, world_size=ranks, local_world_size=ranks)
    if ranks > 1:
        dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=number, world_size=ranks)
    torch.set_num_threads(1)
    whole, replica = make_loop(case, rank, data, directory, 0, StopRequest())
    whole.train()
    results = {"0": held(whole, replica)}
    for edge in sys.argv[7].split(","):
        stopped, _ = make_loop(case, rank, data, directory / edge, 1, StopAt(int(edge)))
        if stopped.train():
            continue
        found, _ = newest_valid(directory / edge)
        assert found is not None
        resumed, replica = make_loop(case, rank, data, directory / edge, 2, StopRequest())
        resumed.restore(*read_checkpoint(found[0], number))
        resumed.train()
        results[edge] = held(resumed, replica)
    if ranks > 1:
        dist.destroy_process_group()
    print(json.dumps(results))


if __name__ == "__main__":
    main()
