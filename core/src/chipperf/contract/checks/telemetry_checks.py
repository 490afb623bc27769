"""R: checks of the values of telemetry, and of its cost."""

from __future__ import annotations

import math
import os
import statistics
import sys
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Final

from chipperf.contract import tolerances
from chipperf.contract.check import check, fail, require
from chipperf.contract.devices import train
from chipperf.contract.isolation import patient
from chipperf.plugin.types import Capability
from chipperf.run.telemetry_process import TelemetrySampler

if TYPE_CHECKING:
    from pathlib import Path

    from chipperf.contract.plugin_under_test import PluginUnderTest

_CALLS: Final = 7
_TENSOR_BYTES: Final = 2**26

_BLOCK_S: Final = 1.5
"""Longer than the time between two readings, so that every block has one."""

_STUDENT_T: Final = {4: 5.841, 8: 3.499}
"""Numbers of rounds after which the cost is judged, with the 99.5 % one-sided quantile of Student's distribution. The
first judgment finds a large cost early. Both judgments together are wrong in 1 % of cases."""

_SAMPLER_START_S: Final = 60.0


@check(
    "R1",
    level=1,
    capability=Capability.TELEMETRY,
    fault="values are in milliwatts, kelvin or MiB, unknown values are 0, or a call takes seconds",
)
def readings_are_physical(subject: PluginUnderTest) -> None:
    """Telemetry returns a value; each value is physically possible or None; a call takes at most 200 ms."""
    import torch

    info = subject.session.device_info(subject.device)
    kept = torch.ones(_TENSOR_BYTES // 4, device=subject.device)
    subject.session.synchronize(subject.device)
    bounds = {
        "power_w": tolerances.POWER_W,
        "temperature_c": tolerances.TEMPERATURE_C,
        "utilization_percent": (0, 100),
        "clock_mhz": tolerances.CLOCK_MHZ,
        "memory_used_bytes": (kept.nbytes, info.total_bytes or math.inf),
    }
    durations_s = []
    for _ in range(_CALLS):
        started_s = time.perf_counter()
        sample = subject.session.telemetry(info)
        durations_s.append(time.perf_counter() - started_s)
        known = {name: getattr(sample, name) for name in bounds if getattr(sample, name) is not None}
        require(known, "telemetry is declared, but every reading is None")
        for name, value in known.items():
            least, most = bounds[name]
            require(
                least <= value <= most,
                f"perf_telemetry gives {name} = {value:g}, which should be {least:g} to {most:g}: check the unit the "
                "device reports in, and return None for unknown values",
            )
    median_s, most_s = statistics.median(durations_s), tolerances.TELEMETRY_CALL_S
    require(
        median_s <= most_s,
        f"perf_telemetry takes {median_s:.3f} s, and may take {most_s:g} s: use a management library instead of "
        "starting a tool, or keep its handle open",
    )


@check(
    "R2",
    level=2,
    capability=Capability.TELEMETRY,
    fault="telemetry uses the host's cores or stops the device while it reads",
    timeout_s=600,
)
def sampling_costs_little(subject: PluginUnderTest) -> None:
    """Sampling telemetry during training costs less than 2 % of the throughput."""
    path = subject.workspace / "telemetry.jsonl"
    # The sampling process must find the plugin in the same place as this process.
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    sampler = TelemetrySampler(subject.session, path, [subject.session.device_info(subject.device)], {})
    train(subject, 2)
    steps, block_s = 1, 0.0
    while block_s < _BLOCK_S:
        steps = max(2 * steps, math.ceil(steps * _BLOCK_S / max(block_s, 1e-3)) if block_s else 0)
        block_s = _block_s(subject, steps, None, path)
    costs = []
    for turn in range(max(_STUDENT_T)):
        # The order alternates, so that a drift of the machine's speed affects both equally.
        order = (sampler, None) if turn % 2 else (None, sampler)
        seconds = {each is None: _block_s(subject, steps, each, path) for each in order}
        costs.append(math.log(seconds[False] / seconds[True]))
        if len(costs) in _STUDENT_T:
            margin = _STUDENT_T[len(costs)] * statistics.stdev(costs) / math.sqrt(len(costs))
            least = math.expm1(statistics.fmean(costs) - margin)
            require(
                least <= tolerances.SAMPLER_COST,
                f"with telemetry sampled once a second, {steps} steps take at least {least:.1%} longer (99 % "
                f"confidence, {len(costs)} rounds), where {tolerances.SAMPLER_COST:.0%} are allowed: let "
                "perf_telemetry do less",
            )


def _block_s(subject: PluginUnderTest, steps: int, sampler: TelemetrySampler | None, path: Path) -> float:
    path.unlink(missing_ok=True)
    with sampler or nullcontext():
        # A run starts the sampling process only once, so its start does not count.
        deadline_s = time.monotonic() + patient(_SAMPLER_START_S)
        while sampler is not None and not (path.exists() and path.stat().st_size):
            if time.monotonic() > deadline_s:
                fail(f"the sampling process gave no reading within {patient(_SAMPLER_START_S):g} s")
            time.sleep(0.02)
        started_s = time.perf_counter()
        train(subject, steps)
        return time.perf_counter() - started_s
