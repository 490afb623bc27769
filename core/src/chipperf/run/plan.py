"""The plan of a run: ``plan.json``, which the launcher writes and every rank reads.

Restarting the processes changes only the fields about the session.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel, ConfigDict, ValidationError

from chipperf.errors import RecordError
from chipperf.precisions import Precision
from chipperf.records.files import parse_model, read_bounded
from chipperf.records.schema import HyperparametersRecord, Limits, Topology

DEFAULT_HANG_TIMEOUT_S = 1800.0
"""Default time without progress. It is longer than any work without a progress report, such as compiling kernels."""


class SessionPlan(Protocol):
    """What a launcher needs to know to start ranks and to watch them, of a run or of other work."""

    @property
    def topology(self) -> Topology:
        """Machines and processes."""

    @property
    def hang_timeout_s(self) -> float | None:
        """Time without progress after which the ranks are ended; ``None`` for no limit."""


class RunPlan(BaseModel):
    """All settings of a run.

    Attributes:
        created_at: Time of planning, UTC.
        started_s: ``time.monotonic()`` at the start of this session's launcher.
        stated_environment: Facts about the machine that the user stated.
        device_check_timeout_s: Time limit for the first kernel of each device; ``None`` skips the check.
        idle_memory_bytes: Memory in use on each device of this machine before the workers started.
        max_restarts: How many times processes that died are started again.
        hang_timeout_s: Time without progress after which the run is ended; ``None`` for no limit.
        shared_directory: True if the ranks of all machines write into one directory, so that checkpoints are complete.
        session: How many times the processes have been started, including this time.
        session_started_at: Start of this session, UTC.
        earlier_s: Duration of the sessions of earlier launchers.
        checkpoint: Name of the checkpoint to resume from; ``None`` starts with the first step.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    run_id: str
    created_at: datetime
    started_s: float
    vendor: str
    case: str
    case_version: str
    preset: str
    precision: Precision
    hyperparameters: HyperparametersRecord
    limits: Limits
    topology: Topology
    data_root: Path
    stated_environment: dict[str, str]
    device_check_timeout_s: float | None = None
    idle_memory_bytes: dict[str, int] = {}
    warnings: list[str] = []
    max_restarts: int = 0
    hang_timeout_s: float | None = None
    shared_directory: bool = True
    session: int = 1
    session_started_at: datetime | None = None
    earlier_s: float = 0.0
    checkpoint: str | None = None

    @property
    def origin_s(self) -> float:
        """The run's start on this session's clock, without the time between sessions."""
        return self.started_s - self.earlier_s


def read_plan(path: Path) -> RunPlan:
    """Read a plan; raises :class:`RecordError` if it is missing or invalid."""
    try:
        return parse_model(RunPlan, read_bounded(path))
    except (OSError, ValidationError) as error:
        raise RecordError(f"cannot read the run's plan {path}: {error}", hint="start the run again") from error
