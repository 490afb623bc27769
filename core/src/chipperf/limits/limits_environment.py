"""First program of a rank that measures limits: it prepares the environment and becomes the measuring program.

The environment is that of fp32, which is measured first.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from chipperf.limits.limits_plan import LimitsPlan
from chipperf.plugin.types import EnvironmentSettings
from chipperf.precisions import DEFAULT_PRECISION
from chipperf.records.files import read_model
from chipperf.train.worker_environment import become, begun

LIMITS_CASE: Final = "limits"
"""What stands for a case in what the vendor's plugin is asked."""


def main(run_directory: Path) -> None:
    """Prepare this rank's environment and become its measuring program; this does not return."""
    with begun(run_directory) as (directory, rank):
        plan = read_model(LimitsPlan, directory.plan, hint="measure again: perf limits")
        settings = EnvironmentSettings(case=LIMITS_CASE, precision=DEFAULT_PRECISION)
        become("chipperf.limits.limits_worker", directory, rank, plan.vendor, settings, plan.device_check_timeout_s)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
