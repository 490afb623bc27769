"""Telemetry: one process per machine reads all devices of the machine about once a second during training.

It is a process and not a thread, so that it never holds the interpreter lock of a training process. It opens the
vendor's library and reports that on its standard output. Then it reads from a first line on its standard input to a
second one, or until the input closes because the worker that started it has ended.

The worker marks the beginning and the end of training in the telemetry's file. Whatever happens to the process, it is
then known how much of the training has readings.
"""

from __future__ import annotations

import json
import os
import select
import statistics
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chipperf.errors import PerfError
from chipperf.plugin import installed
from chipperf.plugin.session import Session, bind
from chipperf.plugin.types import Capability, DeviceInfo, TelemetrySample
from chipperf.records import event_metrics
from chipperf.records.schema import LEAST_COVERAGE, Memory, Missing, Power
from chipperf.records.upgrade import upgrade_reading
from chipperf.run.programs import describe_exit, program
from chipperf.run.ranks import device_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from chipperf.plugin.types import ProbedDevice
    from chipperf.records.schema import Metrics

INTERVAL_S = 1.0
_OPEN_S = 10.0
"""Time within which the vendor's library must answer. Otherwise training begins without telemetry, and has it later."""

_STOP_S = 5.0

_GAP_S = 3 * INTERVAL_S
"""Longest time between two readings of a device that counts as read."""

_FAILED = "failed: "
"""Beginning of the source of a reading that failed."""

_VALUES: Mapping[str, tuple[str, Callable[[list[Any]], float]]] = {
    "mean_w": ("power_w", statistics.fmean),
    "max_w": ("power_w", max),
    "energy_j": ("power_w", sum),
    "mean_temperature_c": ("temperature_c", statistics.fmean),
    "max_temperature_c": ("temperature_c", max),
    "mean_utilization_percent": ("utilization_percent", statistics.fmean),
    "used_peak_bytes": ("memory_used_bytes", max),
    "coverage": ("", min),
    "longest_gap_s": ("", max),
}
"""What of a reading each value of a summary is made from, and how: of a machine's devices, and then of all machines."""


class TelemetrySampler:
    """Runs the sampling process during a block and summarizes its readings.

    Args:
        path: File to which the readings are appended, one JSON object per line.
        idle_memory_bytes: Memory in use on each device before the run, see :func:`read_idle_memory`.
        run_session: How many times the run's processes have been started, including this time.

    Attributes:
        fault: How the process ended, if not as it should.
        trained_s: Duration of the run's training before this block.
    """

    def __init__(
        self,
        session: Session,
        path: Path,
        devices: Sequence[DeviceInfo],
        idle_memory_bytes: Mapping[str, int],
        run_session: int = 1,
    ) -> None:
        serialized = json.dumps([asdict(device) for device in devices])
        self._arguments = [session.entry.name, str(path), serialized, str(run_session)]
        self._path = path
        self._run_session = run_session
        self._idle_memory_bytes = idle_memory_bytes
        self._supported = Capability.TELEMETRY in session.vendor_info().capabilities
        self._process: subprocess.Popen[bytes] | None = None
        self.fault = ""
        self.trained_s = 0.0

    def open(self) -> None:
        """Let the process open the vendor's library, while this one prepares training."""
        if self._supported and (self._process is None or self._process.returncode is not None):
            command = [*program("chipperf.run.telemetry_process"), *self._arguments]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __enter__(self) -> None:
        self.open()
        if self._process is not None and self._process.stdin and self._process.stdout:
            select.select([self._process.stdout], [], [], _OPEN_S)
            self._mark("start", trained_s=self.trained_s)
            with suppress(OSError):
                os.write(self._process.stdin.fileno(), b"\n")

    def __exit__(self, *exception: object) -> None:
        if self._process is None:
            return
        stopped_s = time.monotonic()
        try:
            # Closing the pipe is not enough, because forked loader workers have a copy of its end.
            self._process.communicate(b"\n", timeout=_STOP_S)
            self.fault = describe_exit(self._process.returncode)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            self.fault = f"did not end within {_STOP_S:g} s: a call of the vendor's library hangs"
        self._mark("stop", time_s=stopped_s, fault=self.fault)

    def summary(self) -> Power | Missing:
        """Return the summary of the readings so far."""
        if not self._supported:
            return Missing(missing="not_applicable", reason="the vendor's plugin has no telemetry")
        return summarize(read_telemetry(self._path), self._idle_memory_bytes)

    def _mark(self, mark: str, **facts: object) -> None:
        entry = {"time_s": time.monotonic(), "session": self._run_session, "mark": mark, **facts}
        # The process may have died within a line. If the file cannot be written, the readings lack their end, too.
        with suppress(OSError), self._path.open("a", encoding="utf-8") as file:
            file.write(f"\n{json.dumps(entry)}\n")


def read_idle_memory(session: Session, devices: Iterable[ProbedDevice]) -> dict[str, int]:
    """Return the memory in use on each device before a run, by :func:`.device_key`. Omits unknown values."""
    if Capability.TELEMETRY not in session.vendor_info().capabilities:
        return {}
    idle = {}
    for probed in devices:
        with suppress(PerfError):
            used_bytes = session.telemetry(DeviceInfo(**asdict(probed))).memory_used_bytes
            if used_bytes is not None:
                idle[device_key(probed)] = used_bytes
    return idle


def read_telemetry(path: Path) -> list[dict[str, Any]]:
    """Return the readings and marks of a telemetry file. Ignores incomplete lines, and the rest after too many."""
    readings: list[dict[str, Any]] = []
    faults = 0
    with suppress(OSError), path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                readings.append(upgrade_reading(json.loads(line)))
            except (ValueError, AttributeError, RecursionError):
                faults += 1
                if faults > event_metrics.MOST_FAULTS:
                    break
    return readings


def summarize(readings: Sequence[dict[str, Any]], idle_memory_bytes: Mapping[str, int]) -> Power | Missing:
    """Return energy, power, temperature, utilization and peak memory, less the idle memory, over all devices.

    Energy is the sum over devices of the trapezoidal integral of the power over the device's readings. If a run was
    interrupted, the energies of its sessions are added, without the time between them. A value that was read in less
    than :data:`LEAST_COVERAGE` of the training is not stated. Files of earlier versions have no marks, and tell nothing
    about that.
    """
    marks = [reading for reading in readings if "mark" in reading]
    readings = [reading for reading in readings if "mark" not in reading]
    fault = next((f"; the telemetry process {mark['fault']}" for mark in marks if mark.get("fault")), "")
    if not any(map(_tells_anything, readings)):
        fault += next((f"; {each['source']}" for each in readings if each["source"].startswith(_FAILED)), "")
        if fault or not readings:
            return Missing(missing="failed", reason=f"no telemetry was read{fault}")
    by_session: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for reading in readings:
        by_session.setdefault((reading["device"], reading.get("session", 1)), []).append(reading)
    energies_j = [_energy_j(series) for series in by_session.values()]
    covered = {
        key: _coverage(by_session, key, marks) for key, _ in _VALUES.values() if marks and _values(readings, key)
    }
    combined: dict[str, Any] = {}
    for name, (key, combine) in _VALUES.items():
        coverage, gap_s = covered.get(key, (1.0, 0.0))
        values: list[Any] = _values(readings, key)
        if name == "energy_j":
            values = [] if None in energies_j else energies_j
        elif name == "used_peak_bytes":
            used = ((int(r[key]), idle_memory_bytes.get(r["device"], 0)) for r in readings if r.get(key) is not None)
            values = [max(0, used_bytes - idle_bytes) for used_bytes, idle_bytes in used]
        if coverage < LEAST_COVERAGE:
            reason = f"read in {coverage:.0%} of the training, longest gap {gap_s:.0f} s{fault}"
            combined[name] = Missing(missing="failed", reason=reason)
        elif key:
            combined[name] = (
                combine(values) if values else Missing(missing="unknown", reason="the device does not tell")
            )
    if covered:
        combined["coverage"] = min(coverage for coverage, _ in covered.values())
        combined["longest_gap_s"] = max(gap_s for _, gap_s in covered.values())
    return Power(
        samples=min(Counter(reading["device"] for reading in readings).values()),
        source=next(filter(_tells_anything, readings), readings[0])["source"],
        **combined,
    )


def _coverage(
    by_session: Mapping[tuple[str, int], Sequence[dict[str, Any]]], key: str, marks: Sequence[dict[str, Any]]
) -> tuple[float, float]:
    """Return in which fraction of the training a value was read, and the longest gap, both of the worst device.

    A session without an end was killed, and ends with its last reading of any device.
    """
    coverage, longest_s = 1.0, 0.0
    for device in {device for device, _ in by_session}:
        total_s = missed_s = 0.0
        for start in (mark for mark in marks if mark["mark"] == "start"):
            session, start_s = start["session"], start["time_s"]
            # Training of earlier sessions that no mark and no reading knows: its telemetry died, or the file is gone.
            if (unknown_s := start.get("trained_s", 0.0) - total_s) > _GAP_S:
                total_s, missed_s, longest_s = total_s + unknown_s, missed_s + unknown_s, max(longest_s, unknown_s)
            times_s = [each["time_s"] for each in by_session.get((device, session), ()) if each.get(key) is not None]
            last_s = [series[-1]["time_s"] for (_, other), series in by_session.items() if other == session]
            ends_s = [mark["time_s"] for mark in marks if mark["mark"] == "stop" and mark["session"] == session]
            end_s = max(ends_s or last_s, default=start_s)
            gaps_s = [after_s - before_s for before_s, after_s in pairwise([start_s, *times_s, end_s])]
            total_s += end_s - start_s
            missed_s += sum(gap_s for gap_s in gaps_s if gap_s > _GAP_S)
            longest_s = max(longest_s, *gaps_s)
        coverage = min(coverage, 1 - missed_s / total_s if total_s > 0 else 1.0)
    return max(0.0, coverage), longest_s


def measured_everywhere(metrics: Metrics, powers: Sequence[Power | Missing]) -> dict[str, Any]:
    """Return the metrics of a record that the telemetry of all machines changes.

    Every machine must have the same number of devices. A value that is unknown on one machine is unknown in the result.
    """
    known = [power for power in powers if isinstance(power, Power)]
    if not known or len(known) < len(powers):
        return {"power": next((power for power in powers if isinstance(power, Missing)), metrics.power)}
    combined: dict[str, Any] = {}
    for name, (_, combine) in _VALUES.items():
        values = [getattr(power, name) for power in known]
        missing = next((value for value in values if isinstance(value, Missing)), None)
        combined[name] = combine(values) if missing is None else missing
    power = Power(samples=min(power.samples for power in known), source=known[0].source, **combined)
    changes: dict[str, Any] = {"power": power}
    if isinstance(metrics.memory, Memory) and not isinstance(metrics.memory.device_peak_bytes, Missing):
        changes["memory"] = metrics.memory.model_copy(update={"device_peak_bytes": power.used_peak_bytes})
    return changes


def _tells_anything(reading: Mapping[str, Any]) -> bool:
    return any(
        value is not None for key, value in reading.items() if key not in ("time_s", "session", "device", "source")
    )


def _values(readings: Iterable[dict[str, Any]], key: str) -> list[float]:
    return [float(reading[key]) for reading in readings if reading.get(key) is not None]


def _energy_j(series: Sequence[dict[str, Any]]) -> float | None:
    points = [(reading["time_s"], reading["power_w"]) for reading in series if reading.get("power_w") is not None]
    if len(points) < 2:
        return None
    pairs = pairwise(points)
    return float(sum((after_s - at_s) * (at_w + after_w) / 2 for (at_s, at_w), (after_s, after_w) in pairs))


def sample(vendor: str, path: Path, devices: Sequence[DeviceInfo], run_session: int = 1) -> None:
    """Read every device once, and after a byte on standard input about once a second, up to its next byte or end."""
    # What the vendor's library prints belongs into the log.
    opened = os.dup(1)
    os.dup2(2, 1)
    session = bind(installed.find_vendor(vendor), purpose="inspect")
    deadline_s = time.monotonic() + _OPEN_S
    for device in devices:
        # A library that takes its time to open answers later.
        while _read(session, device).source.startswith(_FAILED) and time.monotonic() < deadline_s:
            time.sleep(INTERVAL_S / 5)
    os.write(opened, b"\n")
    if not os.read(0, 1):
        return
    asked_to_stop = False
    with path.open("a", encoding="utf-8") as file:
        next_s = time.monotonic()
        while True:
            for device in devices:
                reading = _read(session, device)
                entry = {"time_s": time.monotonic(), "session": run_session, "device": device_key(device)}
                file.write(json.dumps(entry | asdict(reading)) + "\n")
            file.flush()
            # The last reading comes after the end of training, so that none of its time is left out.
            if asked_to_stop:
                return
            next_s = max(next_s + INTERVAL_S, time.monotonic())
            asked_to_stop = bool(select.select([0], [], [], max(0.0, next_s - time.monotonic()))[0])


def _read(session: Session, device: DeviceInfo) -> TelemetrySample:
    try:
        return session.telemetry(device)
    except PerfError as error:
        return TelemetrySample(source=f"{_FAILED}{error.message}")


if __name__ == "__main__":
    sample(sys.argv[1], Path(sys.argv[2]), [DeviceInfo(**each) for each in json.loads(sys.argv[3])], int(sys.argv[4]))
