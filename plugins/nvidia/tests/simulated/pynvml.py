"""FAKE: stands in for NVML on a machine without a GPU; lists one fake H200."""

from __future__ import annotations

import os
import sys

from fake_nvml import FakeNvml, h200

IDLE_BYTES = 2**29
TRAINING_BYTES = 2**31

# Workers, and what they start, have this variable; the launcher, which reads the idle GPU, has not.
in_a_worker = "CHIPPERF_APPLIED_ENVIRONMENT" in os.environ
sys.modules[__name__] = FakeNvml(h200(0, used_bytes=IDLE_BYTES + (TRAINING_BYTES if in_a_worker else 0)))
