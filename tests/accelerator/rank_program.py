"""One rank of a job on simulated cards: checks what the collectives and DDP compute.

Arguments: rank, number of ranks, a directory for the rendezvous, and the names of the backends to try in turn.
"""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

import acme_runtime
import torch
import torch.distributed as dist
from acme_runtime import backend
from torch.nn.parallel import DistributedDataParallel

TIMEOUT = timedelta(seconds=120)


def main() -> None:
    rank, ranks, folder, names = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:]
    acme_runtime.load()
    device = torch.device("acme", rank)
    backend.set_device(device)
    for number, name in enumerate(names):
        rendezvous = (folder / str(number)).as_uri()
        dist.init_process_group(name, init_method=rendezvous, rank=rank, world_size=ranks, timeout=TIMEOUT)
        check_collectives(rank, ranks, device)
        check_point_to_point(rank, ranks, device)
        check_objects(rank, ranks)
        check_parallel_gradients(rank, ranks, device)
        dist.barrier()
        dist.destroy_process_group()


def check_collectives(rank: int, ranks: int, device: torch.device) -> None:
    own = torch.tensor([rank + 1.0, 10.0], device=device)
    total = ranks * (ranks + 1) / 2

    reduced = own.clone()
    dist.all_reduce(reduced)
    assert reduced.tolist() == [total, 10.0 * ranks]
    highest = own.to(torch.int64)
    work = dist.all_reduce(highest, op=dist.ReduceOp.MAX, async_op=True)
    work.wait()
    assert highest.tolist() == [ranks, 10]
    assert dist.all_reduce(own.clone(), async_op=True).get_future().wait()[0].tolist() == reduced.tolist()

    received = own.clone()
    dist.broadcast(received, src=1)
    assert received.tolist() == [2.0, 10.0]
    dist.reduce(received, dst=0)
    assert rank != 0 or received.tolist() == [2.0 * ranks, 10.0 * ranks]

    gathered = [torch.empty_like(own) for _ in range(ranks)]
    dist.all_gather(gathered, own)
    assert [tensor.tolist() for tensor in gathered] == [[r + 1.0, 10.0] for r in range(ranks)]
    joined = torch.empty(ranks * 2, device=device)
    dist.all_gather_into_tensor(joined, own)
    assert joined.tolist() == [x for r in range(ranks) for x in (r + 1.0, 10.0)]
    dist.gather(own, gathered if rank == 0 else None)
    dist.scatter(own, gathered if rank == 0 else None)
    assert own.tolist() == [rank + 1.0, 10.0]

    parts = [torch.full((2,), float(rank + part), device=device) for part in range(ranks)]
    part = torch.empty(2, device=device)
    dist.reduce_scatter(part, parts)
    expected = [float(sum(r + rank for r in range(ranks)))] * 2
    assert part.tolist() == expected
    dist.reduce_scatter_tensor(part, torch.cat(parts))
    assert part.tolist() == expected


def check_point_to_point(rank: int, ranks: int, device: torch.device) -> None:
    received = torch.empty(3, device=device)
    receiving = dist.irecv(received, src=(rank - 1) % ranks)
    dist.send(torch.full((3,), float(rank), device=device), dst=(rank + 1) % ranks)
    assert receiving is not None
    receiving.wait()
    assert received.tolist() == [float((rank - 1) % ranks)] * 3


def check_objects(rank: int, ranks: int) -> None:
    names: list[str] = [""] * ranks
    dist.all_gather_object(names, f"rank {rank}")
    assert names == [f"rank {r}" for r in range(ranks)]


def check_parallel_gradients(rank: int, ranks: int, device: torch.device) -> None:
    torch.manual_seed(1)
    samples = torch.randn(ranks * 3, 4)
    model = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.ReLU(), torch.nn.Linear(5, 1))
    model(samples).square().mean().backward()
    expected = [parameter.grad for parameter in model.parameters()]

    model.zero_grad()
    parallel = DistributedDataParallel(model.to(device), device_ids=[rank], gradient_as_bucket_view=True)
    for _ in range(2):
        parallel.zero_grad()
        parallel(samples[rank * 3 : rank * 3 + 3].to(device)).square().mean().backward()
    found = [None if parameter.grad is None else parameter.grad.cpu() for parameter in model.parameters()]
    torch.testing.assert_close(found, expected)


if __name__ == "__main__":
    main()
