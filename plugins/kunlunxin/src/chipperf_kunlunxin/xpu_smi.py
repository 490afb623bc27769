"""Kunlunxin's management tool, ``xpu-smi`` (``xpu_smi`` in old releases): its calls, and telemetry from them.

Intel's XPU Manager installs a tool of the same name with other options: its presence proves nothing, and an output that
does not parse is nobody's. Only options that read are ever passed; ``-r`` would reset the device.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from chipperf import TelemetrySample, ToolCommand, hookimpl
from chipperf.hardware import DeviceReading, find_tool, only, run_tool

from chipperf_kunlunxin.xpu_smi_output import XpuQuery, parse_list, parse_machine_rows, parse_query, parse_tables

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chipperf import DeviceInfo

_INSTALLED_IN: Final = (Path("/opt/xre/bin"), Path("/usr/local/xpu/bin"))

# The devices of a machine are asked about one after the other: one call of the tool serves them all.
_SHARED_FOR_S: Final = 0.5

_LAYOUTS: Final[tuple[tuple[tuple[str, ...], Callable[[str], tuple[DeviceReading, ...]]], ...]] = (
    (("-m",), parse_machine_rows),
    ((), parse_tables),
    (("-L",), parse_list),
)
"""Options and parser of each layout, the most exact one first."""


_SERIAL_NUMBER: Final = r"\b02K[0-9A-Z]{8,}\b"


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What the tool says of all devices.

    Attributes:
        readings: The devices, in the tool's order; none if the tool is of no help.
        source: The call they come from, for example ``xpu-smi -m``.
        problem: Why there are no readings.
    """

    readings: tuple[DeviceReading, ...] = ()
    source: str = ""
    problem: str = ""


def find_xpu_smi() -> str | None:
    """Return the path of a tool with this name, or ``None``."""
    return find_tool("xpu-smi", _INSTALLED_IN) or find_tool("xpu_smi", _INSTALLED_IN)


@hookimpl
def perf_tool_commands() -> tuple[ToolCommand, ...]:
    """List the calls of xpu-smi whose output is parsed; ``-r``, which resets the device, is never called."""
    tool = find_xpu_smi() or "xpu-smi"
    calls = {"xpu-smi-m": ("-m",), "xpu-smi-q": ("-q",), "xpu-smi-L": ("-L",), "xpu-smi-table": ()}
    return tuple(
        ToolCommand(name=name, argv=(tool, *options), private_patterns=(_SERIAL_NUMBER,))
        for name, options in calls.items()
    )


def survey_devices(*, timeout_s: float) -> Survey:
    """Read all devices in the first layout that the installed tool has.

    Args:
        timeout_s: Time for all calls together. A tool that hangs is not called again.
    """
    tool = find_xpu_smi()
    if tool is None:
        return Survey(problem="xpu-smi is not installed")
    deadline_s = time.monotonic() + timeout_s
    problem = ""
    for options, parse in _LAYOUTS:
        remaining_s = deadline_s - time.monotonic()
        if remaining_s <= 0:
            break
        output = run_tool([tool, *options], timeout_s=remaining_s)
        readings = () if output.problem else parse(output.stdout)
        if readings:
            return Survey(readings=readings, source=" ".join((Path(tool).name, *options)))
        problem = problem or output.problem or f"the output of {' '.join((tool, *options))} is not Kunlunxin's"
    return Survey(problem=problem)


def query_devices(*, timeout_s: float) -> XpuQuery:
    """Ask ``xpu-smi -q`` for versions and identities; nothing is known where it does not answer."""
    tool = find_xpu_smi()
    output = run_tool([tool, "-q"], timeout_s=timeout_s) if tool else None
    return parse_query(output.stdout) if output and not output.problem else XpuQuery()


def identify_devices(*, timeout_s: float) -> tuple[Survey, XpuQuery]:
    """Read all devices together with what only ``xpu-smi -q`` tells: their UUIDs, and the versions.

    Args:
        timeout_s: Time for each of the two.
    """
    survey = survey_devices(timeout_s=timeout_s)
    if not survey.readings:
        return survey, XpuQuery()
    query = query_devices(timeout_s=timeout_s)
    return replace(survey, readings=with_identities(survey.readings, query.readings)), query


def with_identities(
    readings: Sequence[DeviceReading], identities: Sequence[DeviceReading]
) -> tuple[DeviceReading, ...]:
    """Return the readings, each with what its address has in ``identities``.

    The two devices of a K200 share one address, which then identifies neither.
    """
    count = Counter(reading.pci_bus_id for reading in readings)
    by_address = {identity.pci_bus_id: identity for identity in identities}
    return tuple(
        _completed(reading, by_address.get(reading.pci_bus_id, reading)) if count[reading.pci_bus_id] == 1 else reading
        for reading in readings
    )


def find_reading(
    readings: Sequence[DeviceReading], *, uuid: str | None, pci_bus_id: str | None
) -> DeviceReading | None:
    """Return the reading of the device with this UUID, or else at this address; ``None`` unless it is exactly one."""
    matches = [reading for reading in readings if uuid and reading.uuid == uuid]
    return only(matches or [reading for reading in readings if pci_bus_id and reading.pci_bus_id == pci_bus_id])


def _completed(reading: DeviceReading, other: DeviceReading) -> DeviceReading:
    """Return the reading with what it does not know of the device's identity and capacity from ``other``."""
    return replace(
        reading,
        serial=reading.serial or other.serial,
        uuid=reading.uuid or other.uuid,
        name=reading.name or other.name,
        memory_total_bytes=reading.memory_total_bytes or other.memory_total_bytes,
    )


class TelemetryReader:
    """Reads devices for as long as a process lives.

    Args:
        timeout_s: Time a call of the tool may take.
    """

    def __init__(self, *, timeout_s: float = 2.0) -> None:
        self._timeout_s = timeout_s
        self._query: XpuQuery | None = None
        self._survey = Survey()
        self._surveyed_s = float("-inf")

    def sample(self, device: DeviceInfo) -> TelemetrySample:
        """Return the device's values; none of them is known if the tool does not list it, and ``source`` says why."""
        survey = self._current_survey()
        reading = find_reading(survey.readings, uuid=device.uuid, pci_bus_id=device.pci_bus_id)
        if reading is None:
            which = device.uuid or device.pci_bus_id or f"{device.name} #{device.index}"
            return TelemetrySample(source=survey.problem or f"{survey.source}, which does not identify {which}")
        return TelemetrySample(source=self._source(survey), **reading.sensors())

    def _current_survey(self) -> Survey:
        if time.monotonic() - self._surveyed_s > _SHARED_FOR_S:
            survey = survey_devices(timeout_s=self._timeout_s)
            if survey.readings:
                self._query = self._query or query_devices(timeout_s=self._timeout_s)
                survey = replace(survey, readings=with_identities(survey.readings, self._query.readings))
            self._survey, self._surveyed_s = survey, time.monotonic()
        return self._survey

    def _source(self, survey: Survey) -> str:
        version = self._query.runtime_version if self._query else None
        return f"{survey.source} (XPU-RT {version})" if version else survey.source


_telemetry = TelemetryReader()


@hookimpl
def perf_telemetry(device: DeviceInfo) -> TelemetrySample:
    """Read the device's values from one call of xpu-smi for all devices."""
    return _telemetry.sample(device)
