"""The state of a qualification of the CPU reference that has begun nothing."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from chipperf.plugin.installed import find_vendor
from chipperf.qualify.qualification import Qualification, QualifyStage, software_of
from chipperf.qualify.qualify_plan import STAGES, Candidate


def make_state(allotted_s: float = 60.0, **changes: Any) -> Qualification:
    known = {
        "vendor": "cpu",
        "software": software_of(find_vendor("cpu")),
        "created_at": datetime(2020, 1, 1, tzinfo=timezone.utc),
        "command": "perf qualify --vendor=cpu",
        "budget_s": 420.0,
        "start_s": 1.0,
        "preset": "tiny",
        "cases": ["mobilenetv2"],
        "candidates": [
            Candidate(case="mobilenetv2", precision=precision, topology="1x1") for precision in ("fp32", "bf16")
        ],
        "stages": [QualifyStage(name=name, allotted_s=allotted_s) for name in STAGES],
    }
    return Qualification.model_validate({**known, **changes})
