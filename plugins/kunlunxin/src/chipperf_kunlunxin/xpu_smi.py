"""Kunlunxin's management tool, ``xpu-smi`` (``xpu_smi`` in old releases): its calls, and telemetry from them.

Intel's XPU Manager installs a tool of the same name with other options: its presence proves nothing, and an output that
does not parse is nobody's. Only options that read are ever passed; ``-r`` would reset the device.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from chipperf import TelemetrySample, ToolCommand, hookimpl
from chipperf.hardware import DeviceReport, LayoutReader, ManagementTool, SharedReport, find_reading

from chipperf_kunlunxin.xpu_smi_output import parse_list, parse_machine_rows, parse_query, parse_tables

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chipperf import DeviceInfo
    from chipperf.hardware import DeviceReading

TOOL: Final = ManagementTool(
    names=("xpu-smi", "xpu_smi"), directories=(Path("/opt/xre/bin"), Path("/usr/local/xpu/bin"))
)
_SERIAL_NUMBER: Final = r"\b02K[0-9A-Z]{8,}\b"


@hookimpl
def perf_tool_commands() -> tuple[ToolCommand, ...]:
    """List the calls of xpu-smi whose output is parsed; ``-r``, which resets the device, is never called."""
    tool = TOOL.find() or "xpu-smi"
    calls = {"xpu-smi-m": ("-m",), "xpu-smi-q": ("-q",), "xpu-smi-L": ("-L",), "xpu-smi-table": ()}
    return tuple(
        ToolCommand(name=name, argv=(tool, *options), private_patterns=(_SERIAL_NUMBER,))
        for name, options in calls.items()
    )


def layout_reader() -> LayoutReader:
    """Return what reads all devices in the first layout that the installed tool has, the most exact one first."""
    layouts = (
        (("-m",), lambda text: DeviceReport(readings=parse_machine_rows(text))),
        ((), lambda text: DeviceReport(readings=parse_tables(text))),
        (("-L",), lambda text: DeviceReport(readings=parse_list(text))),
    )
    return LayoutReader(TOOL, layouts, misread="the output of {call} is not Kunlunxin's")


def query_devices(*, timeout_s: float) -> DeviceReport:
    """Ask ``xpu-smi -q`` for versions and identities; nothing is known where it does not answer."""
    output = TOOL.run(("-q",), timeout_s=timeout_s)
    return DeviceReport() if output.problem else parse_query(output.stdout)


def identify_devices(*, timeout_s: float) -> DeviceReport:
    """Read all devices together with what only ``xpu-smi -q`` tells: their UUIDs, and the versions.

    Args:
        timeout_s: Time for each of the two.
    """
    report = layout_reader().read(timeout_s=timeout_s)
    return _with_identities(report, query_devices(timeout_s=timeout_s)) if report.readings else report


def _with_identities(report: DeviceReport, query: DeviceReport) -> DeviceReport:
    """Return the report with the versions of ``query``, and with what each address has there.

    The two devices of a K200 share one address, which then identifies neither.
    """
    count = Counter(reading.pci_bus_id for reading in report.readings)
    by_address = {identity.pci_bus_id: identity for identity in query.readings}
    readings = tuple(
        _completed(reading, by_address.get(reading.pci_bus_id, reading)) if count[reading.pci_bus_id] == 1 else reading
        for reading in report.readings
    )
    return replace(report, readings=readings, driver_version=query.driver_version, sdk_version=query.sdk_version)


def _completed(reading: DeviceReading, other: DeviceReading) -> DeviceReading:
    """Return the reading with what it does not know of the device's identity and capacity from ``other``."""
    names: Sequence[str] = ("serial", "uuid", "name", "memory_total_bytes")
    return replace(reading, **{name: getattr(reading, name) or getattr(other, name) for name in names})


class TelemetryReader:
    """Reads devices for as long as a process lives.

    Args:
        timeout_s: Time a call of the tool may take.
        fresh_s: How long one call serves all devices.
    """

    def __init__(self, *, timeout_s: float = 2.0, fresh_s: float = 0.5) -> None:
        self._timeout_s = timeout_s
        self._layouts = layout_reader()
        self._query: DeviceReport | None = None
        self._shared = SharedReport(self._take, fresh_s=fresh_s)

    def sample(self, device: DeviceInfo) -> TelemetrySample:
        """Return the device's values; none of them is known if the tool does not list it, and ``source`` says why."""
        report = self._shared.current()
        reading = find_reading(report.readings, uuid=device.uuid, pci_bus_id=device.pci_bus_id)
        if reading is None:
            which = device.uuid or device.pci_bus_id or f"{device.name} #{device.index}"
            return TelemetrySample(source=report.problem or f"{report.source}, which does not identify {which}")
        library = f" (XPU-RT {report.sdk_version})" if report.sdk_version else ""
        return TelemetrySample(source=report.source + library, **reading.sensors())

    def _take(self) -> DeviceReport:
        report = self._layouts.read(timeout_s=self._timeout_s)
        if not report.readings:
            return report
        self._query = self._query or query_devices(timeout_s=self._timeout_s)
        return _with_identities(report, self._query)


_telemetry = TelemetryReader()


@hookimpl
def perf_telemetry(device: DeviceInfo) -> TelemetrySample:
    """Read the device's values from one call of xpu-smi for all devices."""
    return _telemetry.sample(device)
