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

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from types import TracebackType

    from chipperf.plugin.types import ProbedDevice
    from chipperf.records.schema import Metrics

INTERVAL_S = 1.0
_STOP_S = 5.0


class TelemetrySampler:
    """Runs the sampling process during a block and summarizes its readings.

    Args:
        session: The vendor.
        path: File to which the readings are appended, one JSON object per line.
        devices: Devices of this machine.
        idle_memory_bytes: Memory in use on each device before the run.
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
        self._run_session = run_session
        self._idle_memory_bytes = idle_memory_bytes
        self._path = path
        self._devices = devices
        self._vendor = session.entry.name
        self._supported = Capability.TELEMETRY in session.vendor_info().capabilities
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> None:
        if self._supported:
            devices = json.dumps([asdict(device) for device in self._devices])
            self._process = subprocess.Popen(
                [
                    *program("chipperf.run.telemetry_process"),
                    *(self._vendor, str(self._path), devices, str(self._run_session)),
                ],
                stdin=subprocess.PIPE,
            )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
    """Return the memory in use on each device before a run, by the device's key in readings. Omits unknown values."""
    if Capability.TELEMETRY not in session.vendor_info().capabilities:
        return {}
    idle = {}
    for probed in devices:
        device = DeviceInfo(
            index=probed.index,
            name=probed.name,
            uuid=probed.uuid,
            pci_bus_id=probed.pci_bus_id,
            total_bytes=probed.total_bytes,
        )
        try:
            used_bytes = session.telemetry(device).memory_used_bytes
        except PerfError:
            continue
        if used_bytes is not None:
            idle[_key(device)] = used_bytes
    return idle


def read_telemetry(path: Path) -> list[dict[str, Any]]:
    """Return the readings of a telemetry file. Ignores an incomplete last line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    readings = []
    for line in lines:
        try:
            readings.append(upgrade_reading(json.loads(line)))
        except (ValueError, AttributeError):
            continue
    return readings


def summarize(readings: Sequence[dict[str, Any]], idle_memory_bytes: Mapping[str, int]) -> Power | Missing:
    """Return energy, power, temperature, utilization and peak memory over all devices.

    Args:
        readings: Readings of a telemetry file.
        idle_memory_bytes: Memory in use on each device before the run. It is subtracted from the run's peak.

    Energy is the sum over devices of the trapezoidal integral of the power over the device's readings. If a run was
    interrupted, the energies of its sessions are added, without the time between them.
    """
    if not readings:
        return Missing(missing="failed", reason="no telemetry was read")
    by_device: dict[str, list[dict[str, Any]]] = {}
    by_session: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for reading in readings:
        by_device.setdefault(reading["device"], []).append(reading)
        by_session.setdefault((reading["device"], reading.get("session", 1)), []).append(reading)
    powers_w = _values(readings, "power_w")
    temperatures_c = _values(readings, "temperature_c")
    utilizations_percent = _values(readings, "utilization_percent")
    energies_j = [_energy_j(series) for series in by_session.values()]
    used_peak_bytes = _peak_over_idle_bytes(readings, idle_memory_bytes)
    unknown = Missing(missing="unknown", reason="the device does not tell")
    return Power(
        samples=min(len(series) for series in by_device.values()),
        mean_w=statistics.fmean(powers_w) if powers_w else unknown,
        max_w=max(powers_w) if powers_w else unknown,
        energy_j=sum(energy for energy in energies_j if energy is not None)
        if energies_j and None not in energies_j
        else unknown,
        mean_temperature_c=statistics.fmean(temperatures_c) if temperatures_c else unknown,
        max_temperature_c=max(temperatures_c, default=unknown),
        mean_utilization_percent=statistics.fmean(utilizations_percent) if utilizations_percent else unknown,
        used_peak_bytes=unknown if used_peak_bytes is None else used_peak_bytes,
        source=next((r["source"] for r in readings if _tells_anything(r)), readings[0]["source"]),
    )


def measured_everywhere(metrics: Metrics, powers: Sequence[Power | Missing]) -> dict[str, Any]:
    """Return the metrics of a record that the telemetry of all machines changes.

    Every machine must have the same number of devices. A value that is unknown on one machine is unknown in the result.
    """
    known = [power for power in powers if isinstance(power, Power)]
    if not known or len(known) < len(powers):
        return {"power": next((power for power in powers if isinstance(power, Missing)), metrics.power)}

    def over(name: str, combine: Callable[[list[Any]], float]) -> Any:
        values = [getattr(power, name) for power in known]
        return next((value for value in values if isinstance(value, Missing)), None) or combine(values)

    power = Power(
        samples=min(power.samples for power in known),
        mean_w=over("mean_w", statistics.fmean),
        max_w=over("max_w", max),
        energy_j=over("energy_j", sum),
        mean_temperature_c=over("mean_temperature_c", statistics.fmean),
        max_temperature_c=over("max_temperature_c", max),
        mean_utilization_percent=over("mean_utilization_percent", statistics.fmean),
        used_peak_bytes=over("used_peak_bytes", max),
        source=known[0].source,
    )
    changes: dict[str, Any] = {"power": power}
    if isinstance(metrics.memory, Memory) and not isinstance(metrics.memory.device_peak_bytes, Missing):
        changes["memory"] = metrics.memory.model_copy(update={"device_peak_bytes": power.used_peak_bytes})
    return changes


def _key(device: DeviceInfo) -> str:
    return device.uuid or device.pci_bus_id or f"{device.name} #{device.index}"


def _peak_over_idle_bytes(readings: Sequence[dict[str, Any]], idle_memory_bytes: Mapping[str, int]) -> int | None:
    """Return the highest memory use of any device, minus its memory in use before the run."""
    used = [
        max(0, int(reading["memory_used_bytes"]) - idle_memory_bytes.get(reading["device"], 0))
        for reading in readings
        if reading.get("memory_used_bytes") is not None
    ]
    return max(used, default=None)


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
                entry = {"time_s": time.monotonic(), "session": run_session, "device": _key(device)}
                file.write(json.dumps(entry | asdict(reading)) + "\n")
            file.flush()
            next_s = max(next_s + INTERVAL_S, time.monotonic())
            asked_to_stop, _, _ = select.select([sys.stdin], [], [], max(0.0, next_s - time.monotonic()))
            if asked_to_stop:
                return


if __name__ == "__main__":
    sample(sys.argv[1], Path(sys.argv[2]), [DeviceInfo(**each) for each in json.loads(sys.argv[3])], int(sys.argv[4]))
