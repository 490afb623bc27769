"""Kunlunxin's management tool, ``xpu-smi`` (``xpu_smi`` in old releases): its calls, its layouts, and telemetry.

Intel's XPU Manager installs a tool of the same name with other options: its presence proves nothing, and an output that
does not parse is nobody's. Only options that read are ever passed; ``-r`` would reset the device. Layouts differ
between releases: what a parser does not recognize is unknown.
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
    WATTS,
    DeviceReading,
    DeviceReport,
    LayoutReader,
    ManagementTool,
    SharedReport,
    find_reading,
    quantity,
    read_device,
    read_sections,
    read_table,
    stated,
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
_ROW: Final = {"pci_bus_id": 0, "device_id": 2, "serial": 3, "temperature_c": 4, "power_w": 8, "clock_mhz": 9}
_ROW_MEMORY: Final = {"memory_used_bytes": 17, "memory_total_bytes": 18}
_UTILIZATION: Final = 19
_MODEL: Final = 21

# Headers of the columns of the table of "xpu_smi", which differ between releases.
_COLUMNS: Final = {
    "device_id": "DevID",
    "pci_bus_id": "PCI Addr",
    "serial": "SN",
    "name": "Model",
    "power_w": "Power(W)",
    "temperature_c": "Temp",
    "utilization_percent": "UseRate",
    "clock_mhz": "Freq(MHz)",
}

# Forms of the values in the table of "xpu-smi". A device's third line shows its L3 cache as the second its memory.
_CELLS: Final = {
    "device_id": re.compile(r"^\|\s*(\d+)\s+\S"),
    "name": re.compile(r"^\|\s*\d+\s+([^\s|]+(?: [^\s|]+)*)"),
    "temperature_c": re.compile(r"(?<!\S)(\d+C)(?!\S)"),
    "power_w": re.compile(r"(?<!\S)(\d+(?:\.\d+)?m?W) /"),
    "memory_used_bytes": re.compile(r"^.*\n.*\s(\d+[KMG]i?B)\s*/\s*\d+[KMG]i?B"),
    "memory_total_bytes": re.compile(r"^.*\n.*/\s*(\d+[KMG]i?B)"),
    "utilization_percent": re.compile(r"(?<!\S)(\d+%)"),
}

# Sections and key of each value of "xpu-smi -q".
_KEYS: Final = {
    "node": ("Minor Number",),
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


def query_devices(*, timeout_s: float = 2.0) -> DeviceReport:
    """Ask ``xpu-smi -q`` for versions and identities; nothing is known where it does not answer."""
    return TOOL.report(("-q",), parse_query, timeout_s=timeout_s)


class DeviceReader:
    """Reads all devices together with what only ``xpu-smi -q`` tells, which is asked once: UUIDs, and versions.

    Each of the two calls may take ``timeout_s`` seconds. One reading serves the samples of ``fresh_s`` seconds.
    """

    def __init__(self, *, timeout_s: float = 2.0, fresh_s: float = 0.5) -> None:
        self._timeout_s = timeout_s
        self._layouts = layout_reader()
        self._query: DeviceReport | None = None
        self._shared = SharedReport(self.read, fresh_s=fresh_s)

    def read(self) -> DeviceReport:
        """Return the readings, completed with what ``-q`` tells of the identity and capacity at each address."""
        report = self._layouts.read(timeout_s=self._timeout_s)
        if not report.readings:
            return report
        self._query = self._query or query_devices(timeout_s=self._timeout_s)
        # The two devices of a K200 share one address, which then identifies neither.
        count = Counter(reading.pci_bus_id for reading in report.readings)
        known = {reading.pci_bus_id: reading for reading in self._query.readings if count[reading.pci_bus_id] == 1}
        readings = []
        for reading in report.readings:
            other = known.get(reading.pci_bus_id, reading)
            names = ("node", "serial", "uuid", "name", "memory_total_bytes")
            completed = {name: getattr(reading, name) or getattr(other, name) for name in names}
            readings.append(replace(reading, **completed))
        return replace(self._query, readings=tuple(readings), source=report.source, problem=report.problem)

    def sample(self, device: DeviceInfo) -> TelemetrySample:
        """Return the device's values; none of them is known if the tool does not list it, and ``source`` says why."""
        report = self._shared.current()
        reading = find_reading(report.readings, uuid=device.uuid, pci_bus_id=device.pci_bus_id)
        if reading is None:
            which = device.uuid or device.pci_bus_id or f"{device.name} #{device.index}"
            return TelemetrySample(source=report.problem or f"{report.source}, which does not identify {which}")
        library = f" (XPU-RT {report.sdk_version})" if report.sdk_version else ""
        return TelemetrySample(source=report.source + library, **reading.sensors())


_reader = DeviceReader()


@hookimpl
def perf_telemetry(device: DeviceInfo) -> TelemetrySample:
    """Read the device's values from one call of xpu-smi for all devices."""
    return _reader.sample(device)


def normalize_uuid(text: str | None) -> str | None:
    """Return a UUID as torch writes it: the tool puts ``GPU-`` in front of the same digits."""
    return text.strip().lower().removeprefix("gpu-") or None if text else None


def driver_version(text: str | None) -> str | None:
    """Return a driver version, or ``None`` for none, ``N/A`` and the placeholder."""
    version = (text or "").strip()
    return version if version[:1].isdigit() and version != PLACEHOLDER_DRIVER_VERSION else None


def watts_of(text: str | None) -> float | None:
    """Read a power; a value that no card reaches in W is in mW, which old releases write without saying so."""
    value = quantity(text, {**WATTS, **UNSTATED})
    return value / 1000 if value is not None and value > _HIGHEST_PLAUSIBLE_W else value


def parse_machine_rows(text: str) -> tuple[DeviceReading, ...]:
    """Read ``xpu-smi -m``: one line per device, fields by position; other lines and those cut off are skipped."""
    readings = tuple(filter(None, map(_parse_row, text.splitlines())))
    # Without any capacity, nothing shows that the columns are these; one card may not tell its own.
    return readings if any(reading.memory_total_bytes for reading in readings) else ()


def parse_tables(text: str) -> tuple[DeviceReading, ...]:
    """Return a reading per device of the table in ``text``, new or old; other text gives none."""
    return parse_new_table(text) or parse_old_table(text)


def parse_old_table(text: str) -> tuple[DeviceReading, ...]:
    """Return the devices of the table of ``xpu_smi``; columns go by their headers, which differ between releases."""
    readings = []
    columns: list[str] = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if "DevID" in cells:
            # Processes and video units have tables of their own, which list devices by number only.
            columns = cells if "PCI Addr" in cells else []
        elif columns and len(cells) == len(columns):
            row = dict(zip(columns, cells, strict=True))
            used, _, total = row.get("Memory", "").partition(" / ")
            memory = {"memory_used_bytes": f"{used} {total.rpartition(' ')[2]}", "memory_total_bytes": total}
            readings.append(_reading({name: row.get(column) for name, column in _COLUMNS.items()} | memory))
    return tuple(readings)


def parse_new_table(text: str) -> tuple[DeviceReading, ...]:
    """Return the devices of the table of ``xpu-smi``: each has a line with its address and one with its values."""
    return tuple(_reading(texts) for texts in read_table(text, _CELLS) if texts["name"])


def parse_query(text: str) -> DeviceReport:
    """Read ``xpu-smi -q``, whose sections repeat the same keys, as far as the output came."""
    general, devices = read_sections(text, _DEVICE)
    readings = []
    for position, (heading, values) in enumerate(devices):
        texts = {name: stated(values.get(key)) for name, key in _KEYS.items()}
        identity = {"uuid": normalize_uuid(texts["uuid"]), "pci_bus_id": heading[1], "device_id": str(position)}
        readings.append(_reading({**texts, **identity}))
    return DeviceReport(
        driver_version=driver_version(general.get(("Driver Version",))),
        sdk_version=stated(general.get(("XPU-RT Version",))),
        readings=tuple(readings),
    )


def parse_list(text: str) -> tuple[DeviceReading, ...]:
    """Return the numbers and addresses that ``xpu-smi -L`` lists."""
    matches = filter(None, map(_LISTED.match, text.splitlines()))
    texts = ({"device_id": match[1], "pci_bus_id": match[2], "uuid": normalize_uuid(match[3])} for match in matches)
    return tuple(reading for reading in map(_reading, texts) if reading.pci_bus_id)


def _parse_row(line: str) -> DeviceReading | None:
    try:
        # The model is quoted, because it may contain spaces.
        fields = shlex.split(line)
    except ValueError:
        return None
    if len(fields) <= _MODEL or not fields[_ROW["device_id"]].isdigit():
        return None
    texts = {name: fields[place] for name, place in _ROW.items()}
    texts |= {name: f"{fields[place]} MiB" for name, place in _ROW_MEMORY.items()}
    name = " ".join(takewhile(lambda field: not field.isdigit(), fields[_MODEL:]))
    reading = _reading({**texts, "utilization_percent": fields[_UTILIZATION], "name": name})
    used, total = reading.memory_used_bytes or 0, reading.memory_total_bytes or 0
    load, heat = reading.utilization_percent or 0, reading.temperature_c or 0
    # Values that cannot stand in these columns mean that the columns are others.
    is_plausible = reading.pci_bus_id and name and used <= total and load <= 100 and heat <= 150
    return reading if is_plausible else None


def _reading(texts: Mapping[str, str | None]) -> DeviceReading:
    """Return a reading; bare numbers are in the usual units, and a capacity of 0 is none."""
    reading = read_device(texts, unstated=UNSTATED, power_w=watts_of(texts.get("power_w")))
    return replace(reading, memory_total_bytes=reading.memory_total_bytes or None)
