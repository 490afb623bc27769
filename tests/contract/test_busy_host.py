"""A busy host: the time in which a check's process waits for a core does not count against the plugin."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import Any

import pytest
from chipperf.contract.check import Failed, NotRun, find_check
from chipperf.contract.checks import timing_checks
from chipperf.contract.checks.timing_checks import Timing
from chipperf.contract.isolation import undisturbed_s, waited_s

_MOST_S = 30.0


@pytest.mark.skipif(not os.path.exists("/proc/self/schedstat"), reason="the kernel does not count waits for a core")
def test_waits_for_a_core_are_counted() -> None:
    """Another process on the only core of this one makes it wait."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    spinning = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        before_s, start_s, undisturbed_start_s = waited_s(), time.monotonic(), undisturbed_s()
        while waited_s() == before_s and time.monotonic() - start_s < _MOST_S:
            pass
        assert waited_s() > before_s
        assert undisturbed_s() - undisturbed_start_s < time.monotonic() - start_s
        assert waited_s(caller=True) <= waited_s()
    finally:
        spinning.kill()
        spinning.wait()
        os.sched_setaffinity(0, cores)


def _work(single: Timing, double: Timing) -> Any:
    twice = SimpleNamespace(measure=lambda: double)
    return SimpleNamespace(measure=lambda: single, doubled=lambda: twice, require_waiting=lambda: None)


@pytest.mark.parametrize(
    ("waited_s", "verdict"),
    [
        pytest.param((0.0, 0.0), Failed, id="quiet"),
        pytest.param((0.0, 0.05), Failed, id="too_short_a_wait"),
        pytest.param((0.0, 0.3), NotRun, id="wait_of_the_double_work"),
    ],
)
def test_wrong_ratio_is_a_fault_unless_a_wait_explains_it(
    monkeypatch: pytest.MonkeyPatch, waited_s: tuple[float, float], verdict: type[Exception]
) -> None:
    timings = [Timing(measured_s, 0.0, 0.0, wait) for measured_s, wait in zip((0.1, 0.5), waited_s, strict=True)]
    monkeypatch.setattr(timing_checks, "_work_of_run", lambda *_: _work(*timings))
    with pytest.raises(verdict):
        find_check("T2").function(SimpleNamespace(device=None))
