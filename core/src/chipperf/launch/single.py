"""The only worker of a launcher, where torchrun or srun started one launcher for each rank."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

    from chipperf.plugin.types import Rank

_GRACE_S = 25.0
"""Less than the 30 seconds after which torchrun and Slurm kill this process itself."""


def run_single_worker(rank: Rank, command: Sequence[str], host: str, port: int) -> dict[int, int]:
    """Start a rank's worker and wait for it.

    Args:
        rank: Which rank it is.
        command: Starts its worker.
        host: Where the ranks find each other's store.
        port: Port there.

    Returns:
        Its exit code by rank, as ``subprocess`` gives it, if it failed.

    Raises:
        KeyboardInterrupt: A signal told this process to stop; so was the worker, and it has ended.
    """
    variables = {
        "RANK": rank.rank,
        "LOCAL_RANK": rank.local_rank,
        "WORLD_SIZE": rank.world_size,
        "LOCAL_WORLD_SIZE": rank.local_world_size,
        "GROUP_RANK": rank.node_rank,
        "MASTER_ADDR": host,
        "MASTER_PORT": port,
        # The store is in a launcher's process: no rank must try to listen there.
        "TORCHELASTIC_USE_AGENT_STORE": True,
    }
    environment = os.environ | {name: str(value) for name, value in variables.items()}
    with _interruptible(), subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL) as worker:
        try:
            code = worker.wait()
        except KeyboardInterrupt:
            _stop(worker)
            raise
    return {rank.rank: code} if code else {}


def _stop(worker: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    worker.terminate()
    try:
        worker.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        worker.kill()
        worker.wait()


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGTERM interrupt the block as Ctrl-C does."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    except KeyboardInterrupt:
        # What ended the block must not end the report about it.
        raise
    else:
        for number, handler in before.items():
            signal.signal(number, handler)
