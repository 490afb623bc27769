"""One rank of a job on the CPU: measures an all-reduce, and prints windows and bus bandwidth as JSON on rank 0."""

from __future__ import annotations

import json
import os
import sys

import torch
import torch.distributed as dist
from chipperf.limits import measurement
from chipperf.plugin.types import Rank
from chipperf.run.collectives import Collectives

rank, ranks, wrong = int(sys.argv[1]), int(sys.argv[2]), sys.argv[4] == "wrong"
os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
dist.init_process_group("gloo", init_method=f"file://{sys.argv[3]}", rank=rank, world_size=ranks)
measurement.WINDOW_S = 0.01  # type: ignore[misc]
if wrong:
    all_reduce = dist.all_reduce

    def half(values: torch.Tensor, *arguments: object, **options: object) -> object:
        work = all_reduce(values, *arguments, **options)  # type: ignore[arg-type]
        values[-1] = 0
        return work

    measurement.dist.all_reduce = half  # type: ignore[assignment]
own = Rank(rank=rank, world_size=ranks, local_rank=rank, local_world_size=ranks)
cpu, clock = torch.device("cpu"), measurement.Clock(lambda: None)
found = measurement.all_reduce_rates(cpu, Collectives(own, cpu), ranks, clock, (4096, 65536))
if rank == 0:
    print(json.dumps([each.model_dump(mode="json") for each in found.sizes]))
dist.destroy_process_group()
