"""Readings of a device while it trains: from MetaX's library if it is installed, else from its tool."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from chipperf import TelemetrySample, hookimpl
from chipperf.hardware import DeviceReading, call_bounded

from chipperf_metax.mx_smi import Query, ask
from chipperf_metax.mx_smi_reports import Report, parse_dmon, parse_json, parse_log, parse_table
from chipperf_metax.mxsml import open_library

if TYPE_CHECKING:
    from collections.abc import Callable

    from chipperf import DeviceInfo

_TIMEOUT_S: Final = 2.0

# One output covers all devices of the machine, which are asked for one after the other.
_FRESH_S: Final = 0.5

# The most complete one first; not every version has all of them.
_FORMATS: Final[tuple[tuple[Query, Callable[[str], Report]], ...]] = (
    (Query.SUMMARY, parse_log),
    (Query.TABLE, parse_table),
    (Query.JSON, parse_json),
    (Query.DMON, parse_dmon),
)

# torch sees more than 99 % of a whole board.
_WHOLE_BOARD: Final = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """State of all boards at one moment, and where it comes from or why there is none."""

    source: str
    readings: tuple[DeviceReading, ...] = ()


class Sampler:
    """Reads all boards at once and finds a device among them."""

    def __init__(self) -> None:
        self._snapshot = Snapshot(source="")
        self._taken_s = float("-inf")
        self._formats = _FORMATS
        self._uses_library = True

    def sample(self, device: DeviceInfo) -> TelemetrySample:
        """Return the latest reading of a device; when there is none, the source says why."""
        snapshot = self._current()
        reading = find_reading(device, snapshot.readings)
        if reading is None:
            unlisted = f"{snapshot.source}: {device.uuid or device.pci_bus_id or device.name} is not listed"
            return TelemetrySample(source=unlisted if snapshot.readings else snapshot.source)
        if is_slice(device, reading):
            # Memory and load of the board are also other people's.
            own = replace(reading, utilization_percent=None, memory_used_bytes=None)
            source = f"{snapshot.source}, of the whole board that this device is a slice of"
            return TelemetrySample(source=source, **own.sensors())
        return TelemetrySample(source=snapshot.source, **reading.sensors())

    def _current(self) -> Snapshot:
        if time.monotonic() - self._taken_s > _FRESH_S:
            self._snapshot = self._ask_library() or self._ask_tool()
            self._taken_s = time.monotonic()
        return self._snapshot

    def _ask_library(self) -> Snapshot | None:
        library = open_library() if self._uses_library else None
        if library is None:
            return None
        try:
            report = call_bounded(library.report, timeout_s=_TIMEOUT_S)
        except TimeoutError:
            # The thread that hangs stays; another one each second must not.
            self._uses_library = False
            return None
        source = f"pymxsml (MACA {report.maca_version})" if report.maca_version else "pymxsml"
        return Snapshot(source=source, readings=report.readings) if _tells(report) else None

    def _ask_tool(self) -> Snapshot:
        deadline_s = time.monotonic() + _TIMEOUT_S
        problem = "the output of mx-smi is not understood"
        for place, (query, parse) in enumerate(self._formats):
            output = ask(query, timeout_s=max(0.1, round(deadline_s - time.monotonic(), 1)))
            report = parse(output.stdout) if output.problem is None else Report()
            if _tells(report):
                # What works is not searched for again.
                self._formats = self._formats[place:]
                name = " ".join(("mx-smi", *filter(None, [report.tool_version]), *query.value))
                return Snapshot(source=name, readings=report.readings)
            problem = output.problem or problem
            if time.monotonic() >= deadline_s:
                break
        return Snapshot(source=problem)


_sampler = Sampler()


@hookimpl
def perf_telemetry(device: DeviceInfo) -> TelemetrySample:
    """Read the board's power, temperature, utilization and memory from pymxsml or mx-smi."""
    return _sampler.sample(device)


def find_reading(device: DeviceInfo, readings: tuple[DeviceReading, ...]) -> DeviceReading | None:
    """Return the board of a device by UUID, or by PCI address: a slice has a UUID of its own at its board's address.

    Older builds of torch tell neither; then only the machine's single board can be meant.
    """
    for reading in readings:
        if device.uuid and reading.uuid and _same_uuid(device.uuid, reading.uuid):
            return reading
    for reading in readings:
        if device.pci_bus_id and device.pci_bus_id == reading.pci_bus_id:
            return reading
    is_anonymous = device.uuid is None and device.pci_bus_id is None
    return readings[0] if is_anonymous and len(readings) == 1 else None


def is_slice(device: DeviceInfo, board: DeviceReading) -> bool:
    """Return True if the device is a part of the board, whose memory and load are then also other people's."""
    if device.total_bytes is None or board.memory_total_bytes is None:
        return False
    return device.total_bytes < _WHOLE_BOARD * board.memory_total_bytes


def _same_uuid(one: str, other: str) -> bool:
    # torch leaves the prefix out that the tools write.
    first, second = (uuid.casefold().removeprefix("gpu-").removeprefix("mx-") for uuid in (one, other))
    return first == second


def _tells(report: Report) -> bool:
    return any(
        value is not None
        for reading in report.readings
        for name, value in reading.sensors().items()
        if name != "clock_mhz"
    )
