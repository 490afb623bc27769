"""The only worker of a launcher, if torchrun or srun started one launcher for each rank."""

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
"""Less than the 30 seconds after which torchrun and Slurm kill this process."""


def run_single_worker(rank: Rank, command: Sequence[str], host: str, port: int) -> dict[int, int]:
    """Start a rank's worker and wait for it.

    Args:
        rank: The rank.
        command: Command that starts the worker.
        host: Host of the ranks' common store.
        port: Port of the store.

    Returns:
        The worker's exit code by rank, as in ``subprocess``, if it failed; otherwise empty.

    Raises:
        KeyboardInterrupt: A signal told this process to stop. The worker received it too and has ended.
    """
    variables = {
        "RANK": rank.rank,
        "LOCAL_RANK": rank.local_rank,
        "WORLD_SIZE": rank.world_size,
        "LOCAL_WORLD_SIZE": rank.local_world_size,
        "GROUP_RANK": rank.node_rank,
        "MASTER_ADDR": host,
        "MASTER_PORT": port,
        # A launcher's process holds the store, so no rank may listen on its port.
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
    """Let SIGTERM interrupt the block like Ctrl-C."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    except KeyboardInterrupt:
        # The handlers are not restored: a second signal must not interrupt the report.
        raise
    else:
        for number, handler in before.items():
            signal.signal(number, handler)
