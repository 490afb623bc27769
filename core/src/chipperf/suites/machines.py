"""The machines of a suite, and the keys and ports through which they communicate."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from chipperf.errors import UsageError
from chipperf.launch.launcher_info import from_options
from chipperf.suites.state import NextAttempt

_PORTS = 16
"""The suite itself listens on the last port. Attempts use the others in turn, so that a machine that still waits for an
ended attempt does not join the next one."""

_LAST_PORT = 2**16 - 1

PLAN_KEY = "plan"
"""The plan of machine 0, written when its suite starts."""

ATTEMPT_KEY = "attempt"
"""The current :class:`JointAttempt`; empty between attempts."""

END_KEY = "end"
"""Written when the suite of machine 0 ends."""

HERE, LEFT = "here", "left"
"""Texts that a machine writes at :func:`joined_key` when it joins and when it leaves the suite."""


class JointAttempt(BaseModel):
    """An attempt on several machines.

    Attributes:
        number: Number of earlier attempts in the suite.
        run: Name of the run.
        attempt: Directory of the attempt, and whether it resumes a run.
        port: Port on machine 0 where the machines of the attempt meet.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    number: int
    run: str
    attempt: NextAttempt
    port: int


@dataclass(frozen=True, slots=True)
class Machine:
    """This machine as one of a suite's machines.

    Attributes:
        node_rank: Number of this machine. Machine 0 decides what runs.
        host: Name or address of machine 0.
        port: First of the ports on machine 0 that the runs and the suite use.
    """

    node_rank: int
    host: str
    port: int

    @property
    def is_first(self) -> bool:
        """True if this machine decides what runs."""
        return self.node_rank == 0

    def port_of_attempt(self, number: int) -> int:
        """Return the port for an attempt. ``number`` counts all attempts of the suite."""
        return self.port + number % (_PORTS - 1)

    @property
    def suite_port(self) -> int:
        """Port of the channel on which machine 0 announces attempts."""
        return self.port + _PORTS - 1

    def options(self, port: int) -> list[str]:
        """Return the options of ``perf train`` for this machine's number and the rendezvous."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return [f"--node-rank={self.node_rank}", f"--rdzv={host}:{port}"]


def machine_from_options(nnodes: int, node_rank: int | None, rendezvous: str | None) -> Machine | None:
    """Return the machine that the options describe; ``None`` if no run of the suite needs several machines.

    Raises:
        UsageError: The options are incomplete or contradict the plan.
    """
    if nnodes == 1 and (node_rank is not None or rendezvous is not None):
        raise UsageError(
            "--node-rank and --rdzv belong to a suite with runs on several machines",
            hint="leave them out; a topology of two machines is 2x8, for example",
        )
    launcher = from_options(nnodes, 1, node_rank, rendezvous)
    if launcher is None:
        return None
    if launcher.port + _PORTS - 1 > _LAST_PORT:
        raise UsageError(
            f"--rdzv: port {launcher.port} is too high: a suite uses {_PORTS} ports from there on",
            hint=f"choose one up to {_LAST_PORT - _PORTS + 1}",
        )
    return Machine(launcher.index, launcher.host, launcher.port)


def joined_key(node_rank: int) -> str:
    """Return the key at which a machine writes that it joined or left."""
    return f"joined/{node_rank}"
