"""Cases for runs that are disturbed or interrupted: a few layers on images, and steps that take a moment.

What is tested with them is the launcher, not the model: a run can be stopped in time, and costs little more than the
start of its processes.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from chipperf.cases.classification.case import MOBILENETV2

if TYPE_CHECKING:
    from chipperf.cases.base import Case
    from support import FakeDistributions

EPOCHS = 12
"""Epochs of ``watched``; the others last until somebody ends them."""


class JumpingClock:
    """The machine's clock, set back and forth by a day."""

    def __init__(self) -> None:
        self._time = time.time
        self._readings = 0

    def __call__(self) -> float:
        self._readings += 1
        return self._time() + (86400.0 if self._readings % 2 else -86400.0)


def quick_case(name: str, epochs: int) -> Case:
    def load_workload():  # type: ignore[no-untyped-def]
        import quick_workloads

        return quick_workloads.WORKLOADS[name]

    # Windows are compared after an interruption, so there are several.
    settings = {**MOBILENETV2.presets["tiny"], "epochs": epochs, "measure_window_steps": 4}
    base = MOBILENETV2.base.model_copy(update=settings)
    return replace(MOBILENETV2, name=name, base=base, load_workload=load_workload, forward_flops=None)


if os.environ.get("DRILL_FAULT") == "clock":
    time.time = JumpingClock()  # type: ignore[assignment]

ENDLESS = quick_case("endless", epochs=1_000_000)
FAULTY = quick_case("faulty", epochs=1_000_000)
WATCHED = quick_case("watched", EPOCHS)


def install_quick_cases(distributions: FakeDistributions) -> str:
    """Provide the cases by a distribution; return the ``PYTHONPATH`` on which processes find them."""
    entry_points = "".join(f"{name.lower()} = quick_cases:{name}\n" for name in ("ENDLESS", "FAULTY", "WATCHED"))
    distributions.add("perf-quick", f"[chipperf.cases]\n{entry_points}")
    return os.pathsep.join([distributions.python_path, os.path.dirname(__file__)])
