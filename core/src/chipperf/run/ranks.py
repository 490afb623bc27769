"""The rank of this process, from the variables that torch's launcher sets."""

from __future__ import annotations

import os
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
