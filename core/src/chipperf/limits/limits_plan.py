"""The plan of a job that measures limits, and what its ranks leave in its directory."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from chipperf.precisions import Precision
from chipperf.records.machine_limits import AllReduceLimits, CardLimits
from chipperf.records.schema import StrictModel, Topology

Measurement = Literal["products", "memory", "host_link", "all_reduce"]

HANG_TIMEOUT_S: Final = 300.0
"""Time for one measurement, the first use of a device with its libraries and kernels included."""


class LimitsPlan(StrictModel):
    """One job of ranks on this machine, one per card, and its measurements in order."""

    vendor: str
    precisions: tuple[Precision, ...]
    measurements: tuple[Measurement, ...]
    topology: Topology
    device_check_timeout_s: float | None = None
    hang_timeout_s: float | None = HANG_TIMEOUT_S


class RankLimits(StrictModel):
    """What one rank has measured so far, rewritten after every measurement; rank 0 has that of all ranks together."""

    card: CardLimits
    all_reduce: AllReduceLimits | None = None
    framework: str
    torch: str
    driver: str | None
    sdk: str | None
    collectives: str | None


def result_file(directory: Path, rank: int) -> Path:
    """Return where a rank leaves what it has measured."""
    return directory / "logs" / f"rank{rank}.limits.json"
