"""Which collective backend is used, and what stands in its way."""

from __future__ import annotations

import os
from typing import Final

from chipperf import DistributedConfig, EnvironmentVariable, PluginError

from chipperf_kunlunxin.variables import EVENT_TIMING, HAZARDS, event_timing_enabled

BACKEND_VARIABLE: Final = "PERF_KUNLUNXIN_BACKEND"
"""Overrides the profile's backend, for images in which another one works, for example ``cpu:gloo,cuda:flagcx``."""


def chosen_backend(default: str) -> str:
    """Return the backend of ``PERF_KUNLUNXIN_BACKEND``, or the profile's."""
    return os.environ.get(BACKEND_VARIABLE) or default


def uses_flagcx(default: str) -> bool:
    """Return True if the backend, alone or as part of a composite, is FlagCX."""
    return any(part.rpartition(":")[2] == "flagcx" for part in chosen_backend(default).split(","))


def collective_variables(default: str) -> list[EnvironmentVariable]:
    """Return the variables that the backend needs."""
    if not uses_flagcx(default):
        return []
    return [EnvironmentVariable(name="FLAGCX_ADAPTOR", value="klx", reason="FlagCX drives Kunlunxin's devices")]


def collective_config(default: str) -> DistributedConfig:
    """Return how to initialise the process group.

    Raises:
        PluginError: ``XPU_EVENT_KL3_ENABLE`` is set, which hangs collectives.
    """
    if event_timing_enabled():
        raise PluginError(
            f"{EVENT_TIMING}={os.environ[EVENT_TIMING]} is set: {HAZARDS[EVENT_TIMING]}",
            hint=f"unset {EVENT_TIMING} and start the run again",
        )
    return DistributedConfig(backend=chosen_backend(default))
