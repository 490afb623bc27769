"""The sampling process, and what its readings add up to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pytest
from chipperf import DeviceInfo
from chipperf.plugin import installed
from chipperf.plugin.session import bind
from chipperf.records.schema import Missing, Power
from chipperf.run import telemetry_process
from chipperf.run.telemetry_process import TelemetrySampler, read_telemetry, summarize

if TYPE_CHECKING:
    from pathlib import Path

UNKNOWN = Missing(missing="unknown", reason="the device does not tell")
CPU = DeviceInfo(index=0, name="A CPU")


def reading(time_s: float, device: str = "a", **values: Any) -> dict[str, Any]:
    return {"time_s": time_s, "device": device, "source": "fake", **values}


def power_of(readings: list[dict[str, Any]], idle: dict[str, int] | None = None) -> Power:
    power = summarize(readings, idle or {})
    assert isinstance(power, Power)
    return power


def sampler_command(path: Path) -> list[str]:
    return [sys.executable, "-m", "chipperf.run.telemetry_process", "cpu", str(path), json.dumps([asdict(CPU)]), "1"]


def wait_for_lines(path: Path, count: int) -> None:
    deadline_s = time.monotonic() + 60
    while len(read_telemetry(path)) < count:
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def test_energy_is_the_trapezoidal_integral_of_power() -> None:
    readings = [reading(10.0, power_w=100), reading(11.0, power_w=300), reading(13.0, power_w=50)]

    power = power_of(readings)

    assert power.energy_j == pytest.approx((100 + 300) / 2 * 1 + (300 + 50) / 2 * 2)
    assert (power.mean_w, power.max_w, power.samples) == (150, 300, 3)


def test_energy_is_integrated_per_device_and_added_up() -> None:
    readings = [
        reading(0.0, "a", power_w=100),
        reading(0.5, "b", power_w=10),
        reading(2.0, "a", power_w=100),
        reading(2.5, "b", power_w=10),
        reading(4.0, "a", power_w=100),
    ]

    power = power_of(readings)

    assert power.energy_j == pytest.approx(4 * 100 + 2 * 10)
    assert power.samples == 2


def test_device_without_power_makes_the_energy_unknown() -> None:
    readings = [reading(0.0, "a", power_w=100), reading(1.0, "a", power_w=100), reading(0.0, "b"), reading(1.0, "b")]

    assert power_of(readings).energy_j == UNKNOWN


def test_reading_without_power_is_bridged() -> None:
    readings = [reading(0.0, power_w=100), reading(1.0, power_w=None), reading(2.0, power_w=100)]

    assert power_of(readings).energy_j == pytest.approx(200)


def test_one_reading_has_power_but_no_energy() -> None:
    power = power_of([reading(0.0, power_w=100)])

    assert power.mean_w == 100
    assert power.energy_j == UNKNOWN


def test_what_no_device_tells_is_unknown_and_never_zero() -> None:
    power = power_of([reading(0.0), reading(1.0, power_w=None)])

    for name in ("mean_w", "max_w", "energy_j", "max_temperature_c", "mean_utilization_percent", "used_peak_bytes"):
        assert getattr(power, name) == UNKNOWN, name


def test_zero_that_was_measured_stays_zero() -> None:
    assert power_of([reading(0.0, utilization_percent=0.0)]).mean_utilization_percent == 0


def test_extremes_and_means() -> None:
    readings = [
        reading(0.0, temperature_c=50, utilization_percent=20, memory_used_bytes=100),
        reading(1.0, temperature_c=70, utilization_percent=40, memory_used_bytes=300),
        reading(2.0, temperature_c=60, utilization_percent=90, memory_used_bytes=200),
    ]

    power = power_of(readings)

    assert (power.max_temperature_c, power.mean_utilization_percent, power.used_peak_bytes) == (70, 50, 300)


def test_memory_in_use_before_the_run_is_not_the_runs() -> None:
    readings = [reading(0.0, "a", memory_used_bytes=500), reading(0.0, "b", memory_used_bytes=450)]

    assert power_of(readings, {"a": 400, "b": 50}).used_peak_bytes == 400


def test_no_reading_at_all_is_a_failure() -> None:
    assert summarize([], {}) == Missing(missing="failed", reason="no telemetry was read")


def marked(readings: list[dict[str, Any]], start_s: float, stop_s: float, **stop: Any) -> list[dict[str, Any]]:
    start = {"time_s": start_s, "session": 1, "mark": "start"}
    return [start, *readings, {"time_s": stop_s, "session": 1, "mark": "stop", **stop}]


def every_second(first: int, last: int, device: str = "a", **values: Any) -> list[dict[str, Any]]:
    return [reading(float(second), device, **{"power_w": 100.0, **values}) for second in range(first, last + 1)]


def failed(power: Power) -> set[str]:
    return {name for name, value in power if isinstance(value, Missing) and value.missing == "failed"}


def test_training_with_readings_throughout_is_covered() -> None:
    power = power_of(marked(every_second(0, 100), -0.2, 100.5))

    assert (power.coverage, power.longest_gap_s, power.energy_j) == (1.0, 1.0, pytest.approx(10_000))


@pytest.mark.parametrize(
    ("readings", "coverage", "gap_s"),
    [
        (every_second(0, 10), 0.1, 90),
        (every_second(60, 100), 0.4, 60),
        (every_second(0, 20) + every_second(50, 100), 0.7, 30),
        (every_second(0, 100, "a") + every_second(0, 50, "b"), 0.5, 50),
    ],
    ids=["died", "late", "hole", "one device"],
)
def test_holes_make_energy_and_means_failed(readings: list[dict[str, Any]], coverage: float, gap_s: float) -> None:
    power = power_of(marked(readings, 0.0, 100.0, fault="was killed by SIGKILL"))

    assert (power.coverage, power.longest_gap_s) == (pytest.approx(coverage), gap_s)
    assert failed(power) == {"mean_w", "max_w", "energy_j"}
    assert power.energy_j == Missing(
        missing="failed",
        reason=f"read in {coverage:.0%} of the training, longest gap {gap_s} s; the telemetry process was killed by "
        "SIGKILL",
    )


def test_small_holes_are_in_the_record_and_bridged() -> None:
    power = power_of(marked(every_second(0, 50) + every_second(54, 100), 0.0, 100.0))

    assert (power.coverage, power.longest_gap_s, power.energy_j) == (0.96, 4.0, pytest.approx(10_000))


def test_each_value_has_its_own_holes() -> None:
    readings = [
        reading(float(second), power_w=100.0 if second < 50 else None, temperature_c=40) for second in range(101)
    ]

    power = power_of(marked(readings, 0.0, 100.0))

    assert failed(power) == {"mean_w", "max_w", "energy_j"}
    assert (power.mean_temperature_c, power.coverage) == (40, pytest.approx(0.49))


def test_time_between_sessions_is_no_hole() -> None:
    later = [{**each, "session": 2} for each in marked(every_second(500, 600), 500.0, 600.0)]

    power = power_of(marked(every_second(0, 100), 0.0, 100.0) + later)

    assert (power.coverage, power.energy_j) == (1.0, pytest.approx(20_000))


def test_session_that_was_killed_ends_with_its_last_reading() -> None:
    assert power_of(marked(every_second(0, 100), 0.0, 0.0)[:-1]).coverage == 1.0


@pytest.mark.parametrize("left", [every_second(0, 10), []], ids=["telemetry died, then the run", "file removed"])
def test_training_of_an_earlier_session_that_nobody_read_is_a_hole(left: list[dict[str, Any]]) -> None:
    earlier = marked(left, 0.0, 0.0)[:-1] if left else []
    later = [{**each, "session": 2} for each in marked(every_second(500, 600), 500.0, 600.0)]
    later[0]["trained_s"] = 100.0

    power = power_of(earlier + later)

    assert failed(power) == {"mean_w", "max_w", "energy_j"}
    assert power.coverage == pytest.approx(0.55 if left else 0.5)


def test_readings_that_all_failed_say_why() -> None:
    readings = [{**reading(float(second)), "source": "failed: NVML did not answer"} for second in range(3)]

    assert summarize(readings, {}) == Missing(
        missing="failed", reason="no telemetry was read; failed: NVML did not answer"
    )


def test_file_without_marks_tells_nothing_about_holes() -> None:
    power = power_of(every_second(0, 10) + every_second(90, 100))

    assert (power.coverage, power.longest_gap_s) == (Missing(missing="unknown"), Missing(missing="unknown"))
    assert isinstance(power.energy_j, float)


def test_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "telemetry.jsonl"
    path.write_text(json.dumps(reading(0.0)) + "\n" + '{"time_s": 1.0, "dev')

    assert read_telemetry(path) == [reading(0.0)]
    assert read_telemetry(tmp_path / "none") == []


@pytest.mark.parametrize("farewell", [b"", b"\n"])
def test_sampler_ends_when_its_input_closes_or_says_so(tmp_path: Path, farewell: bytes) -> None:
    path = tmp_path / "telemetry.jsonl"
    with subprocess.Popen(sampler_command(path), stdin=subprocess.PIPE) as sampler:
        assert sampler.stdin is not None
        sampler.stdin.write(b"\n")
        sampler.stdin.flush()
        wait_for_lines(path, 1)

        sampler.stdin.write(farewell)
        sampler.stdin.close()

        assert sampler.wait(timeout=10) == 0
    [first, *_] = read_telemetry(path)
    assert first["device"] == "A CPU #0"
    assert first["memory_used_bytes"] > 0


def test_sampler_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "telemetry.jsonl"
    program = """
import subprocess, sys, time
sampler = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE)
sampler.stdin.write(b"\\n")
sampler.stdin.flush()
print(sampler.pid, flush=True)
time.sleep(600)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program, *sampler_command(path)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        sampler = int(parent.stdout.readline())
        wait_for_lines(path, 1)
        parent.kill()

    deadline_s = time.monotonic() + 10
    while running(sampler):
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_sampler_ends_although_a_forked_loader_process_holds_its_input(tmp_path: Path) -> None:
    path = tmp_path / "telemetry.jsonl"
    sampler = TelemetrySampler(bind(installed.find_vendor("cpu")), path, [CPU], {})
    with sampler:
        wait_for_lines(path, 2)
        loader = os.fork()
        if loader == 0:
            time.sleep(600)
            os._exit(0)
    process = sampler._process
    os.kill(loader, signal.SIGKILL)
    os.waitpid(loader, 0)

    # It ended of itself, and was not killed after a wait that would be part of the run's time.
    assert process is not None
    assert process.returncode == 0
    assert isinstance(sampler.summary(), Power)
    assert sampler.fault == ""


@pytest.mark.parametrize(
    ("number", "told"), [(signal.SIGKILL, "was killed by SIGKILL"), (signal.SIGSTOP, "did not end within 0.5 s")]
)
def test_sampler_that_died_or_hangs_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, told: str
) -> None:
    monkeypatch.setattr(telemetry_process, "_STOP_S", 0.5)
    monkeypatch.setattr(telemetry_process, "_GAP_S", 0.01)
    path = tmp_path / "telemetry.jsonl"
    sampler = TelemetrySampler(bind(installed.find_vendor("cpu")), path, [CPU], {})
    with sampler:
        wait_for_lines(path, 2)
        assert sampler._process is not None
        sampler._process.send_signal(number)
        time.sleep(0.5)

    assert told in sampler.fault
    power = sampler.summary()
    assert isinstance(power, Power)
    assert isinstance(power.used_peak_bytes, Missing)
    assert power.used_peak_bytes.missing == "failed"
    assert told in power.used_peak_bytes.reason
