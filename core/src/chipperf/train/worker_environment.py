"""First program of a worker: it prepares the environment and then becomes the training program.

Interpreters and libraries read variables such as allocator settings when they start, so the variables must be set
before. This program loads the vendor's plugin without torch, asks it for the variables, and executes
:mod:`chipperf.train.worker` with them. The process id stays the same under every launcher.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from chipperf.plugin.installed import find_vendor
from chipperf.plugin.session import bind
from chipperf.plugin.types import EnvironmentSettings
from chipperf.run.device_check import check_device
from chipperf.run.directory import RunDirectory
from chipperf.run.failure import DUMP_SIGNAL, report_failure
from chipperf.run.lifeline import end_with_launcher
from chipperf.run.plan import read_plan
from chipperf.run.programs import program
from chipperf.run.ranks import rank_from_environment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chipperf.plugin.types import Rank

APPLIED_VARIABLE = "CHIPPERF_APPLIED_ENVIRONMENT"
"""Variable that tells the training program which variables were set, by whom and why, as JSON."""


def main(run_directory: Path) -> None:
    """Prepare this rank's environment and become its training program; this does not return."""
    with begun(run_directory) as (directory, rank):
        plan = read_plan(directory.plan)
        settings = EnvironmentSettings(
            case=plan.case,
            precision=plan.precision,
            deterministic=bool(plan.hyperparameters.values.get("deterministic", False)),
        )
        become("chipperf.train.worker", directory, rank, plan.vendor, settings, plan.device_check_timeout_s)


@contextmanager
def begun(run_directory: Path) -> Iterator[tuple[RunDirectory, Rank]]:
    """Register this rank, send its output to its log, and report a failure of the block."""
    directory = RunDirectory(run_directory)
    rank = rank_from_environment()
    # The launcher may ask for stacks, which the training program writes, before that program has begun.
    signal.signal(DUMP_SIGNAL, signal.SIG_IGN)
    end_with_launcher()
    directory.register_rank(rank.rank)
    _redirect_output(directory.log(rank.rank))
    with report_failure(directory, rank.rank):
        yield directory, rank


def become(
    module: str,
    directory: RunDirectory,
    rank: Rank,
    vendor: str,
    settings: EnvironmentSettings,
    device_check_timeout_s: float | None,
) -> NoReturn:
    """Become the program ``module`` on the directory, in the environment that the vendor's plugin asks for."""
    session = bind(find_vendor(vendor))
    environment = dict(os.environ)
    applied = []
    for variable in session.environment(rank, settings):
        origin, reason = "vendor", variable.reason
        if variable.name in environment:
            origin, reason = "user", f"set before the run; vendor wanted {variable.value}"
        value = environment.setdefault(variable.name, variable.value)
        applied.append({"name": variable.name, "value": value, "reason": reason, "origin": origin})
    if device_check_timeout_s is not None:
        check_device(vendor, rank.local_rank, environment, device_check_timeout_s)
    environment[APPLIED_VARIABLE] = json.dumps(applied)
    os.execve(sys.executable, [*program(module), str(directory.path)], environment)


def _redirect_output(log: Path) -> None:
    """Redirect output, including that of C libraries, to the rank's log."""
    log.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
