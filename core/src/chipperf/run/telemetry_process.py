"""Telemetry: one process per machine reads all devices of the machine about once a second during training.

It is a process and not a thread, so that it never holds the interpreter lock of a training process. It ends when its
standard input receives a line, or closes because the worker that started it has ended.
"""

from __future__ import annotations

import json
import select
import statistics
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chipperf.errors import PerfError
from chipperf.plugin import installed
from chipperf.plugin.session import Session, bind
from chipperf.plugin.types import Capability, DeviceInfo, TelemetrySample
from chipperf.records.schema import Memory, Missing, Power
from chipperf.records.upgrade import upgrade_reading
from chipperf.run.programs import program
from chipperf.run.ranks import device_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from chipperf.plugin.types import ProbedDevice
    from chipperf.records.schema import Metrics

INTERVAL_S = 1.0
_STOP_S = 5.0

_COMBINED: Mapping[str, Callable[[list[Any]], float]] = {
    "mean_w": statistics.fmean,
    "max_w": max,
    "energy_j": sum,
    "mean_temperature_c": statistics.fmean,
    "max_temperature_c": max,
    "mean_utilization_percent": statistics.fmean,
    "used_peak_bytes": max,
}
"""How each value of a summary is made, first from all devices of a machine and then from all machines."""


class TelemetrySampler:
    """Runs the sampling process during a block and summarizes its readings.

    Args:
        path: File to which the readings are appended, one JSON object per line.
        idle_memory_bytes: Memory in use on each device before the run, see :func:`read_idle_memory`.
        run_session: How many times the run's processes have been started, including this time.
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
        self._idle_memory_bytes = idle_memory_bytes
        self._supported = Capability.TELEMETRY in session.vendor_info().capabilities
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> None:
        if self._supported:
            command = [*program("chipperf.run.telemetry_process"), *self._arguments]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE)

    def __exit__(self, *exception: object) -> None:
        if self._process and self._process.stdin:
            # Closing the pipe is not enough, because forked loader workers have a copy of its end.
            with suppress(BrokenPipeError), self._process.stdin as stdin:
                stdin.write(b"\n")
            try:
                self._process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def summary(self) -> Power | Missing:
        """Return the summary of the readings so far."""
        if not self._supported:
            return Missing(missing="not_applicable", reason="the vendor's plugin has no telemetry")
        return summarize(read_telemetry(self._path), self._idle_memory_bytes)


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
    """Return the readings of a telemetry file. Ignores an incomplete last line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    readings = []
    for line in lines:
        with suppress(ValueError, AttributeError):
            readings.append(upgrade_reading(json.loads(line)))
    return readings


def summarize(readings: Sequence[dict[str, Any]], idle_memory_bytes: Mapping[str, int]) -> Power | Missing:
    """Return energy, power, temperature, utilization and peak memory, less the idle memory, over all devices.

    Energy is the sum over devices of the trapezoidal integral of the power over the device's readings. If a run was
    interrupted, the energies of its sessions are added, without the time between them.
    """
    if not readings:
        return Missing(missing="failed", reason="no telemetry was read")
    by_session: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for reading in readings:
        by_session.setdefault((reading["device"], reading.get("session", 1)), []).append(reading)
    powers_w = _values(readings, "power_w")
    temperatures_c = _values(readings, "temperature_c")
    energies_j = [_energy_j(series) for series in by_session.values()]
    values: dict[str, list[Any]] = {
        "mean_w": powers_w,
        "max_w": powers_w,
        "energy_j": [] if None in energies_j else energies_j,
        "mean_temperature_c": temperatures_c,
        "max_temperature_c": temperatures_c,
        "mean_utilization_percent": _values(readings, "utilization_percent"),
        "used_peak_bytes": [
            max(0, int(reading["memory_used_bytes"]) - idle_memory_bytes.get(reading["device"], 0))
            for reading in readings
            if reading.get("memory_used_bytes") is not None
        ],
    }
    unknown = Missing(missing="unknown", reason="the device does not tell")
    combined: dict[str, Any] = {
        name: combine(values[name]) if values[name] else unknown for name, combine in _COMBINED.items()
    }
    return Power(
        samples=min(Counter(reading["device"] for reading in readings).values()),
        source=next(filter(_tells_anything, readings), readings[0])["source"],
        **combined,
    )


def measured_everywhere(metrics: Metrics, powers: Sequence[Power | Missing]) -> dict[str, Any]:
    """Return the metrics of a record that the telemetry of all machines changes.

    Every machine must have the same number of devices. A value that is unknown on one machine is unknown in the result.
    """
    known = [power for power in powers if isinstance(power, Power)]
    if not known or len(known) < len(powers):
        return {"power": next((power for power in powers if isinstance(power, Missing)), metrics.power)}
    combined: dict[str, Any] = {}
    for name, combine in _COMBINED.items():
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
    return float(
        sum(
            (after_s - before_s) * (before_w + after_w) / 2
            for (before_s, before_w), (after_s, after_w) in zip(points, points[1:], strict=False)
        )
    )


def sample(vendor: str, path: Path, devices: Sequence[DeviceInfo], run_session: int = 1) -> None:
    """Append a reading of every device about once a second until standard input ends or receives a line."""
    session = bind(installed.find_vendor(vendor), purpose="inspect")
    with path.open("a", encoding="utf-8") as file:
        next_s = time.monotonic()
        while True:
            for device in devices:
                try:
                    reading = session.telemetry(device)
                except PerfError as error:
                    reading = TelemetrySample(source=f"failed: {error.message}")
                entry = {"time_s": time.monotonic(), "session": run_session, "device": device_key(device)}
                file.write(json.dumps(entry | asdict(reading)) + "\n")
            file.flush()
            next_s = max(next_s + INTERVAL_S, time.monotonic())
            asked_to_stop, _, _ = select.select([sys.stdin], [], [], max(0.0, next_s - time.monotonic()))
            if asked_to_stop:
                return


if __name__ == "__main__":
    sample(sys.argv[1], Path(sys.argv[2]), [DeviceInfo(**each) for each in json.loads(sys.argv[3])], int(sys.argv[4]))
