"""The stages of a qualification, what each may take of the budget, and which runs fit into it."""

from __future__ import annotations

import json
import math
import os
import time
from itertools import product
from typing import TYPE_CHECKING, Final, NamedTuple

from chipperf.cases.registry import case_names, find_case
from chipperf.durations import format_duration
from chipperf.errors import DeviceError, UsageError
from chipperf.plugin.session import bind
from chipperf.plugin.types import Capability, EnvironmentSettings, Rank
from chipperf.precisions import DEFAULT_PRECISION, Precision, runnable_precisions
from chipperf.records.schema import StrictModel
from chipperf.run.device_check import DEFAULT_TIMEOUT_S, inspect_device
from chipperf.run.ranks import rank_variables
from chipperf.run.rendezvous import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from chipperf.plugin.selection import Selection


class StageShare(NamedTuple):
    """The minimum time of a stage, in starts of the vendor's stack, and its share of the rest of the budget."""

    least_starts: float
    share: float


RUN_STARTS: Final = 8.0
"""Least time of a run in starts: it begins, evaluates, and measures after training."""

STAGES: Final[Mapping[str, StageShare]] = {
    "doctor": StageShare(3, 0.01),
    "contract": StageShare(6, 0.45),
    "limits": StageShare(10, 0.15),
    "certificate": StageShare(6, 0.1),
    "suite": StageShare(RUN_STARTS, 0.2),
    "report": StageShare(5, 0.05),
    "bundle": StageShare(4, 0.04),
}
"""Stages in order. What one leaves of its time goes to the next ones, and so to the runs."""

_TRAINING_SHARE: Final = 0.5
"""Part of a run's time that is its training budget. It starts before, and is evaluated and measured after."""

_TINY_STEPS: Final = 40
"""Steps of a run of the preset tiny, which shows only that all parts run: with so small batches, more diverge."""


class Candidate(StrictModel):
    """A run that may be made."""

    case: str
    precision: Precision
    topology: str

    @property
    def name(self) -> str:
        """Name in a suite."""
        return f"{self.case}-{self.precision}-{self.topology}"


def measure_start(selection: Selection) -> float:
    """Return the seconds in which a process of the vendor's stack starts and computes something on its first device.

    A :class:`DeviceError` says that it does not.
    """
    variables = rank_variables(Rank(), LOOPBACK, 0)
    session = bind(selection.entry)
    wanted = session.environment(Rank(), EnvironmentSettings(case=case_names()[0], precision=DEFAULT_PRECISION))
    environment = {each.name: each.value for each in wanted} | dict(os.environ) | variables
    started_s = time.monotonic()
    inspection = inspect_device(selection.entry.name, environment, DEFAULT_TIMEOUT_S)
    if inspection.fault is not None:
        hint = inspection.hint or "see perf doctor --compute"
        raise DeviceError(f"{selection.entry} does not compute: {inspection.fault}", hint=hint)
    return time.monotonic() - started_s


def allotments(budget_s: float, start_s: float) -> dict[str, float]:
    """Return the seconds of each stage. A :class:`UsageError` says what the shortest budget would be."""
    least = {name: each.least_starts * start_s for name, each in STAGES.items()}
    rest_s = budget_s - sum(least.values())
    if rest_s < 0:
        raise UsageError(
            f"--budget {format_duration(budget_s)} is too short for one run and its proof on this machine",
            hint=f"the shortest that would do is {format_duration(int(sum(least.values())) + 1)}",
        )
    return {name: least[name] + each.share * rest_s for name, each in STAGES.items()}


def candidates(selection: Selection, cases: Sequence[str]) -> list[Candidate]:
    """Return the runs that the plugin declares to be able to make, the most telling first.

    Each case on one device in fp32 comes first, then the other precisions, then all devices.
    """
    session = bind(selection.entry)
    info, devices = session.vendor_info(), len(selection.probe.devices)
    several = 2 if info.device_type == "cpu" else devices
    topologies = ["1x1"] + ([f"1x{several}"] if several > 1 and Capability.DISTRIBUTED in info.capabilities else [])
    found = [
        Candidate(case=case, precision=precision, topology=topology)
        for topology, precision, case in product(topologies, runnable_precisions(info.capabilities), cases)
    ]
    return sorted(found, key=lambda each: (each.topology != "1x1") + (each.precision != DEFAULT_PRECISION))


def choose_cases(names: Sequence[str], data: Mapping[str, Path]) -> list[str]:
    """Return the cases by name, or all, those with the least arithmetic first; data is named by case."""
    every = sorted(case_names(), key=lambda name: find_case(name).forward_flops or math.inf)
    chosen = [find_case(name).name for name in names] or every
    for case, directory in data.items():
        if case not in chosen:
            raise UsageError(f"--data names data of {case}, which is not among the cases", hint="see --cases")
        find_case(case).data.require(directory, "--data CASE=DIR names one")
    return chosen


def fitting(found: Sequence[Candidate], seconds: float, start_s: float) -> tuple[list[Candidate], float]:
    """Return the runs that fit into some time, at least one, and the training budget of each."""
    count = max(1, min(len(found), int(seconds // (RUN_STARTS * start_s))))
    return list(found[:count]), max(1.0, _TRAINING_SHARE * seconds / count)


def suite_text(runs: Sequence[Candidate], training_s: float, vendor: str, preset: str, data: Mapping[str, Path]) -> str:
    """Return a suite's file with the runs."""
    lines = ["[defaults]", f"vendor = {_text(vendor)}", f"preset = {_text(preset)}"]
    lines += [f"budget = {_text(format_duration(int(training_s)))}"]
    lines += [f"max_steps = {_TINY_STEPS}"] if preset == "tiny" else []
    for run in runs:
        lines += ["", "[[run]]", f"case = {_text(run.case)}", f"precision = {_text(run.precision)}"]
        lines += [f"topology = {_text(run.topology)}"]
        lines += [f"data = {_text(str(data[run.case].resolve()))}"] if run.case in data else []
    return "\n".join(lines) + "\n"


def _text(value: str) -> str:
    """Return a TOML string; JSON's are ones."""
    return json.dumps(value, ensure_ascii=False)
