"""What the launcher tells the workers: ``plan.json``, read by every rank.

What was decided when the run was planned never changes. Whenever its processes are started again, only the fields about
that session do.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from chipperf.errors import RecordError
from chipperf.plugin.types import Precision
from chipperf.records.schema import Hyperparameters, Limits, Topology

DEFAULT_HANG_TIMEOUT_S = 1800.0
"""Longer than anything that reports no progress: the evaluation of a large dataset, or kernels that are compiled."""


class RunPlan(BaseModel):
    """A run, completely decided.

    Attributes:
        run_id: Unique name of the run.
        created_at: When the run was planned, UTC.
        started_s: ``time.monotonic()`` when this session's launcher started.
        vendor: Name of the vendor's entry point.
        case: Name of the case.
        case_version: Its version.
        preset: Name of the case's preset.
        precision: What the user asked for.
        hyperparameters: Values in force and their differences to the base.
        limits: How the user shortened the run.
        topology: Machines and processes.
        data_root: The dataset's directory.
        stated_environment: Facts about the machine that the user stated.
        device_check_timeout_s: Time each device has to finish its first kernel; ``None`` leaves the check out.
        idle_memory_bytes: Memory in use on each device of this machine before the workers started.
        warnings: Remarks that belong into the record.
        max_restarts: How many times processes that died are started again.
        hang_timeout_s: Time without progress after which the run is ended; ``None`` waits for ever.
        shared_directory: True if the ranks of all machines write into one directory, so that checkpoints are whole.
        session: How many times the processes have been started, this time included.
        session_started_at: When they were, UTC.
        earlier_s: What the sessions of earlier launchers took.
        checkpoint: Name of the checkpoint to continue from; ``None`` begins with the first step.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    run_id: str
    created_at: datetime
    started_s: float
    vendor: str
    case: str
    case_version: str
    preset: str
    precision: Precision
    hyperparameters: Hyperparameters
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
        """The run's start on this session's clock, as if nothing had been between its sessions."""
        return self.started_s - self.earlier_s


def read_plan(path: Path) -> RunPlan:
    """Read a plan.

    Raises:
        RecordError: It is missing or was edited.
    """
    try:
        return RunPlan.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        raise RecordError(f"cannot read the run's plan {path}: {error}", hint="start the run again") from error
