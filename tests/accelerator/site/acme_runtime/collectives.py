"""SIMULATED collective library ``accl``: real numbers, staged through gloo on the host.

It needs a torch that calls a backend's methods in Python, as 2.15 does.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import Backend, PrefixStore, ProcessGroupGloo, Store, Work

from acme_runtime import backend

NAME = "accl"
VERSION = "1.0.3"


def register() -> None:
    """Make ``accl`` known to ``torch.distributed``, where the installed torch has that."""
    if dist.is_available():
        dist.Backend.register_backend(NAME, Accl, devices=[backend.DEVICE_TYPE])


class Accl(Backend):
    """A process group whose tensors are on cards."""

    def __init__(self, store: Store, rank: int, size: int, timeout: timedelta) -> None:
        super().__init__(rank, size)
        self._gloo: Any = ProcessGroupGloo(PrefixStore("gloo/", store), rank, size, timeout)

    def getBackendName(self) -> str:
        """Return the name it is registered under."""
        return NAME

    def allreduce(self, tensors: list[torch.Tensor], opts: Any) -> Work:
        """Reduce over ranks; every rank gets the result."""
        return AcclWork(self._gloo.allreduce(_staged(tensors), opts), tensors)

    def broadcast(self, tensors: list[torch.Tensor], opts: Any) -> Work:
        """Copy from the root to every rank."""
        return AcclWork(self._gloo.broadcast(_staged(tensors), opts), tensors)

    def reduce(self, tensors: list[torch.Tensor], opts: Any) -> Work:
        """Reduce over ranks; the root gets the result."""
        return AcclWork(self._gloo.reduce(_staged(tensors), opts), tensors)

    def allgather(self, outputs: list[list[torch.Tensor]], inputs: list[torch.Tensor], opts: Any) -> Work:
        """Collect every rank's tensor on every rank."""
        return AcclWork(self._gloo.allgather(_staged(outputs), _staged(inputs), opts), outputs)

    def all_gather_single(self, output: torch.Tensor, tensor: torch.Tensor, opts: Any) -> Work:
        """Collect every rank's tensor in one."""
        work = self._gloo._allgather_base(_staged(output), _staged(tensor), opts)
        return AcclWork(work, [output])

    def gather(self, outputs: list[list[torch.Tensor]], inputs: list[torch.Tensor], opts: Any) -> Work:
        """Collect every rank's tensor on the root."""
        return AcclWork(self._gloo.gather(_staged(outputs), _staged(inputs), opts), outputs)

    def scatter(self, outputs: list[torch.Tensor], inputs: list[list[torch.Tensor]], opts: Any) -> Work:
        """Give every rank one of the root's tensors."""
        return AcclWork(self._gloo.scatter(_staged(outputs), _staged(inputs), opts), outputs)

    def reduce_scatter(self, outputs: list[torch.Tensor], inputs: list[list[torch.Tensor]], opts: Any) -> Work:
        """Reduce over ranks; every rank gets one part of the result."""
        return AcclWork(self._gloo.reduce_scatter(_staged(outputs), _staged(inputs), opts), outputs)

    def reduce_scatter_single(self, output: torch.Tensor, tensor: torch.Tensor, opts: Any) -> Work:
        """Reduce one tensor over ranks; every rank gets one part of the result."""
        work = self._gloo._reduce_scatter_base(_staged(output), _staged(tensor), opts)
        return AcclWork(work, [output])

    def send(self, tensors: list[torch.Tensor], rank: int, tag: int) -> Work:
        """Send to one rank."""
        return AcclWork(self._gloo.send(_staged(tensors), rank, tag), tensors)

    def recv(self, tensors: list[torch.Tensor], rank: int, tag: int) -> Work:
        """Receive from one rank."""
        return AcclWork(self._gloo.recv(_staged(tensors), rank, tag), tensors)

    def barrier(self, opts: Any) -> Work:
        """Wait for every rank."""
        return AcclWork(self._gloo.barrier(opts), [])


class AcclWork(Work):
    """A collective under way; ``result`` are the cards' tensors it writes."""

    def __init__(self, staged: Work, result: list[Any]) -> None:
        super().__init__()
        self._staged = staged
        self._result = result

    def wait(self, timeout: timedelta = timedelta(0)) -> bool:
        """Wait until the result is there."""
        return self._staged.wait(timeout)

    def get_future(self) -> torch.futures.Future[Any]:
        """Return a future that holds the result, or fails as the collective did."""
        devices = {tensor.device for tensor in self._result}
        done: torch.futures.Future[Any] = torch.futures.Future(devices=list(devices))
        staged = self._staged.get_future()
        staged.add_done_callback(lambda _: done.set_result(None))

        def finish(_: torch.futures.Future[Any]) -> list[Any]:
            staged.value()
            return self._result

        # An exception that a future is given in Python is lost on its way through C++, one that then() meets is not.
        return done.then(finish)


def _staged(tensors: Any) -> Any:
    """Return what the cards' tensors hold as tensors of the host, once all work that may write them is done."""
    if isinstance(tensors, list):
        return [_staged(tensor) for tensor in tensors]
    backend.synchronize(tensors.device)
    return backend.host_view(tensors)
