"""Kunlunxin's management tool, ``xpu-smi`` (``xpu_smi`` in old releases): its calls, its layouts, and telemetry.

Intel's XPU Manager installs a tool of the same name with other options: its presence proves nothing, and an output that
does not parse is nobody's. Only options that read are ever passed; ``-r`` would reset the device.

Layouts differ between releases: what a parser does not recognize is unknown.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from chipperf import TelemetrySample, ToolCommand, hookimpl
from chipperf.hardware import (
    UNSTATED,
    DeviceReading,
    DeviceReport,
    LayoutReader,
    ManagementTool,
    SharedReport,
    find_reading,
    normalize_pci_address,
    quantity,
    read_device,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chipperf import DeviceInfo

TOOL: Final = ManagementTool(
    names=("xpu-smi", "xpu_smi"), directories=(Path("/opt/xre/bin"), Path("/usr/local/xpu/bin"))
)
_SERIAL_NUMBER: Final = r"\b02K[0-9A-Z]{8,}\b"

PLACEHOLDER_DRIVER_VERSION: Final = "515.58"
"""Containers without the matching library show this instead of the driver's version."""

# No card draws as much; some releases write mW where the others write W.
_HIGHEST_PLAUSIBLE_W: Final = 2000

# Positions in a line of "xpu-smi -m" are those of the tool's help; the fields behind the model are not read, because
# releases differ in them.
_ROW: Final = {"pci_bus_id": 0, "serial": 3, "temperature_c": 4, "clock_mhz": 9, "utilization_percent": 19}
_ROW_MEMORY: Final = {"memory_used_bytes": 17, "memory_total_bytes": 18}
_DEVICE_ID: Final = 2
_POWER: Final = 8
_MODEL: Final = 21

# Headers of the columns of the table of "xpu_smi", which differ between releases.
_COLUMNS: Final = {
    "pci_bus_id": "PCI Addr",
    "serial": "SN",
    "name": "Model",
    "temperature_c": "Temp",
    "utilization_percent": "UseRate",
    "clock_mhz": "Freq(MHz)",
}

# Cell and form of each value in the table of "xpu-smi".
_CELLS: Final = {
    "temperature_c": (0, re.compile(r"\b(\d+C)\b")),
    "power_w": (0, re.compile(r"\b(\d+(?:\.\d+)?m?W) /")),
    "memory_used_bytes": (1, re.compile(r"(\d+[KMG]i?B)\s*/\s*\d+[KMG]i?B")),
    "memory_total_bytes": (1, re.compile(r"\d+[KMG]i?B\s*/\s*(\d+[KMG]i?B)")),
    "utilization_percent": (2, re.compile(r"\b(\d+%)")),
}
_GAP: Final = re.compile(r"\s{2,}")

# Sections and key of each value of "xpu-smi -q".
_KEYS: Final = {
    "serial": ("Serial Number",),
    "uuid": ("XPU UUID",),
    "name": ("Product Name",),
    "temperature_c": ("Temperature", "XPU Current Temp"),
    "power_w": ("Power Readings", "Power Draw"),
    "utilization_percent": ("Utilization", "Xpu"),
    "memory_used_bytes": ("Memory Usage", "Used"),
    "memory_total_bytes": ("Memory Usage", "Total"),
    "clock_mhz": ("Clocks", "Cluster"),
}
_DEVICE: Final = re.compile(r"XPU ([0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-7])\s*")
_LISTED: Final = re.compile(r"XPU (\d+): (\S+)(?:.*UUID: ([0-9A-Za-z-]+))?")

Values = dict[tuple[str, ...], str]
"""Values of one device by the names of the sections around them and their key."""


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
    names = ("serial", "uuid", "name", "memory_total_bytes")
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


def normalize_uuid(text: str | None) -> str | None:
    """Return a UUID as torch writes it: the tool puts ``GPU-`` in front of the same digits."""
    return text.strip().lower().removeprefix("gpu-") or None if text else None


def driver_version(text: str | None) -> str | None:
    """Return a driver version, or ``None`` for none, ``N/A`` and the placeholder."""
    version = (text or "").strip()
    return version if version[:1].isdigit() and version != PLACEHOLDER_DRIVER_VERSION else None


def watts_of(text: str | None) -> float | None:
    """Read a power; a value that no card reaches in W is in mW, which old releases write without saying so."""
    milliwatts = quantity(text, {"mW": 1})
    if milliwatts is not None:
        return milliwatts / 1000
    value = quantity(text, {"W": 1, **UNSTATED})
    return value / 1000 if value is not None and value > _HIGHEST_PLAUSIBLE_W else value


def parse_machine_rows(text: str) -> tuple[DeviceReading, ...]:
    """Read ``xpu-smi -m``: one line per device, fields by position; other lines and those cut off are skipped."""
    readings = (_parse_row(line) for line in text.splitlines())
    return tuple(reading for reading in readings if reading is not None)


def parse_tables(text: str) -> tuple[DeviceReading, ...]:
    """Return a reading per device of the table in ``text``, new or old; other text gives none."""
    return parse_new_table(text) or parse_old_table(text)


def parse_old_table(text: str) -> tuple[DeviceReading, ...]:
    """Return the devices of the table of ``xpu_smi``; columns go by their headers, which differ between releases."""
    readings = []
    columns: list[str] = []
    for line in text.splitlines():
        if not line.startswith("|"):
            # A line of dashes is part of a table; a title ends one.
            columns = [] if line.strip("- ") else columns
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if "DevID" in cells:
            # Processes and video units have tables of their own, which list devices by number only.
            columns = cells if "PCI Addr" in cells else []
        elif len(cells) == len(columns):
            readings.append(_read_old_row(dict(zip(columns, cells, strict=True))))
    return tuple(readings)


def parse_new_table(text: str) -> tuple[DeviceReading, ...]:
    """Return the devices of the table of ``xpu-smi``: each has a line with its address and one with its values."""
    readings: list[DeviceReading] = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) != 3:
            continue
        head = _GAP.split(cells[0])
        address = normalize_pci_address(cells[1])
        if address and head[0].isdigit() and len(head) > 1:
            readings.append(DeviceReading(device_id=int(head[0]), pci_bus_id=address, name=head[1]))
        # The third line of a device shows its L3 cache in the same form as the second shows the memory.
        elif readings and readings[-1].memory_total_bytes is None:
            found = {name: pattern.search(cells[cell]) for name, (cell, pattern) in _CELLS.items()}
            texts = {name: match[1] if match else None for name, match in found.items()}
            last = readings[-1]
            values = _reading(texts, device_id=last.device_id)
            readings[-1] = replace(values, pci_bus_id=last.pci_bus_id, name=last.name)
    return tuple(readings)


def parse_query(text: str) -> DeviceReport:
    """Read ``xpu-smi -q``, whose sections repeat the same keys, as far as the output came."""
    general: Values = {}
    devices: list[tuple[str, Values]] = []
    sections: list[tuple[int, str]] = []
    for line in text.splitlines():
        device = _DEVICE.fullmatch(line)
        if device:
            devices.append((device[1], {}))
            continue
        indentation = len(line) - len(line.lstrip())
        while sections and sections[-1][0] >= indentation:
            sections.pop()
        key, colon, value = line.partition(" : ")
        if colon:
            values = devices[-1][1] if devices else general
            path = (*(name for _, name in sections), key.strip())
            values[path] = value.strip()
        elif line.strip():
            sections.append((indentation, line.strip()))
    return DeviceReport(
        driver_version=driver_version(general.get(("Driver Version",))),
        sdk_version=_known(general.get(("XPU-RT Version",))),
        readings=tuple(_queried(position, address, values) for position, (address, values) in enumerate(devices)),
    )


def parse_list(text: str) -> tuple[DeviceReading, ...]:
    """Return the numbers and addresses that ``xpu-smi -L`` lists."""
    matches = filter(None, map(_LISTED.match, text.splitlines()))
    return tuple(
        DeviceReading(device_id=int(match[1]), pci_bus_id=address, uuid=normalize_uuid(match[3]))
        for match in matches
        if (address := normalize_pci_address(match[2]))
    )


def _parse_row(line: str) -> DeviceReading | None:
    try:
        # The model is quoted, because it may contain spaces.
        fields = shlex.split(line)
    except ValueError:
        return None
    if len(fields) <= _MODEL or not fields[_DEVICE_ID].isdigit():
        return None
    texts = {name: fields[place] for name, place in _ROW.items()}
    memory = {name: f"{fields[place]} MiB" for name, place in _ROW_MEMORY.items()}
    name = " ".join(takewhile(lambda field: not field.isdigit(), fields[_MODEL:]))
    reading = _reading({**texts, **memory, "name": name, "power_w": fields[_POWER]}, device_id=int(fields[_DEVICE_ID]))
    return reading if _is_plausible(reading) else None


def _is_plausible(reading: DeviceReading) -> bool:
    """Return False if the values cannot stand in these columns: then the columns are others."""
    used, total = reading.memory_used_bytes, reading.memory_total_bytes
    return (
        reading.pci_bus_id is not None
        and reading.name is not None
        and total is not None
        and (used is None or used <= total)
        and (reading.utilization_percent or 0) <= 100
        and (reading.temperature_c or 0) <= 150
    )


def _read_old_row(row: Mapping[str, str]) -> DeviceReading:
    used, _, total = row.get("Memory", "").partition(" / ")
    texts = {name: row.get(column) for name, column in _COLUMNS.items()}
    memory = {"memory_used_bytes": f"{used} {total.rpartition(' ')[2]}", "memory_total_bytes": total}
    device_id = int(row["DevID"]) if row["DevID"].isdigit() else None
    return _reading({**texts, **memory, "power_w": row.get("Power(W)")}, device_id=device_id)


def _reading(texts: Mapping[str, str | None], *, device_id: int | None = None) -> DeviceReading:
    """Return a reading; bare numbers are in the usual units, and a capacity of 0 is none."""
    reading = read_device(texts, unstated=UNSTATED, device_id=device_id, power_w=watts_of(texts.get("power_w")))
    return replace(reading, memory_total_bytes=reading.memory_total_bytes or None)


def _queried(position: int, address: str, values: Values) -> DeviceReading:
    texts = {name: _known(values.get(key)) for name, key in _KEYS.items()}
    return _reading({**texts, "uuid": normalize_uuid(texts["uuid"]), "pci_bus_id": address}, device_id=position)


def _known(text: str | None) -> str | None:
    return text if text and text not in ("N/A", "Unknown") else None
