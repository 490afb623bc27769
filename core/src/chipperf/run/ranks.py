"""The rank of a process, in the variables that torch's launcher sets."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from chipperf.errors import PluginError
from chipperf.plugin.types import Rank

if TYPE_CHECKING:
    from collections.abc import Mapping


def rank_from_environment(environment: Mapping[str, str] = os.environ) -> Rank:
    """Return this process's rank. Without a launcher, return the rank of a job of one process.

    Raises:
        PluginError: A variable is not a number, or the numbers contradict each other.
    """
    if "RANK" not in environment:
        return Rank()
    try:
        rank = Rank(
            rank=int(environment["RANK"]),
            local_rank=int(environment["LOCAL_RANK"]),
            world_size=int(environment["WORLD_SIZE"]),
            local_world_size=int(environment["LOCAL_WORLD_SIZE"]),
            node_rank=int(environment.get("GROUP_RANK", "0")),
        )
    except (KeyError, ValueError) as error:
        raise PluginError(
            f"the launcher's variables are incomplete: {error}",
            hint="RANK, LOCAL_RANK, WORLD_SIZE and LOCAL_WORLD_SIZE must be numbers",
        ) from error
    if not (0 <= rank.local_rank < rank.local_world_size <= rank.world_size and 0 <= rank.rank < rank.world_size):
        raise PluginError(f"the launcher's variables contradict each other: {rank}", hint="check the launcher")
    return rank


def rank_variables(rank: Rank, host: str, port: int) -> dict[str, str]:
    """Return the variables that tell a process its rank and where the ranks' store listens.

    On one machine, gloo listens on the loopback interface, unless the user has chosen another one.
    """
    numbers = {
        "RANK": rank.rank,
        "LOCAL_RANK": rank.local_rank,
        "WORLD_SIZE": rank.world_size,
        "LOCAL_WORLD_SIZE": rank.local_world_size,
        "GROUP_RANK": rank.node_rank,
        "MASTER_PORT": port,
    }
    variables = {"MASTER_ADDR": host, **{name: str(value) for name, value in numbers.items()}}
    interface = _loopback_interface()
    if interface and rank.local_world_size == rank.world_size and "GLOO_SOCKET_IFNAME" not in os.environ:
        variables["GLOO_SOCKET_IFNAME"] = interface
    return variables


def _loopback_interface() -> str | None:
    """Return the name of the loopback interface: ``lo`` on Linux, ``lo0`` on BSD and macOS."""
    names = {name for _, name in socket.if_nameindex()}
    return next((name for name in ("lo", "lo0") if name in names), None)
