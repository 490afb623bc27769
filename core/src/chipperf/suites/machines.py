"""The machines of a suite: where each stands, and what the first one tells the others."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from chipperf.errors import UsageError
from chipperf.launch.launcher_info import from_options
from chipperf.suites.state import NextAttempt

_PORTS = 16
"""The suite itself listens on the last one. Attempts take the others in turn: a machine that still waits for an attempt
that has ended must not meet the next one."""

_LAST_PORT = 2**16 - 1

PLAN_KEY = "plan"
"""The plan of machine 0, written when its suite begins."""

ATTEMPT_KEY = "attempt"
"""The :class:`JointAttempt` that goes on; empty between attempts."""

END_KEY = "end"
"""Written when the suite of machine 0 ends."""

HERE, LEFT = "here", "left"
"""What a machine writes at :func:`joined_key` when it joins the suite, and when it leaves."""


class JointAttempt(BaseModel):
    """An attempt that several machines do together.

    Attributes:
        number: How many attempts of the suite there were before.
        run: Name of the run.
        attempt: Where it is done.
        port: Where its machines meet on machine 0.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    number: int
    run: str
    attempt: NextAttempt
    port: int


@dataclass(frozen=True, slots=True)
class Machine:
    """This machine among those of a suite.

    Attributes:
        node_rank: Its number. Machine 0 decides what runs.
        host: Name or address of machine 0.
        port: First of the ports there at which runs and the suite meet.
    """

    node_rank: int
    host: str
    port: int

    @property
    def is_first(self) -> bool:
        """True for the machine that decides what runs."""
        return self.node_rank == 0

    def port_of_attempt(self, number: int) -> int:
        """Return where the machines meet for an attempt; ``number`` counts all attempts of a suite."""
        return self.port + number % (_PORTS - 1)

    @property
    def suite_port(self) -> int:
        """Where machine 0 tells the others what runs."""
        return self.port + _PORTS - 1

    def options(self, port: int) -> list[str]:
        """Return the options of ``perf train`` that say where this machine stands."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return [f"--node-rank={self.node_rank}", f"--rdzv={host}:{port}"]


def machine_from_options(nnodes: int, node_rank: int | None, rendezvous: str | None) -> Machine | None:
    """Return the machine that the options describe; ``None`` if no run of the suite needs several machines.

    Raises:
        UsageError: They are incomplete or contradict the plan.
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
    """Return where a machine writes whether it is here."""
    return f"joined/{node_rank}"
