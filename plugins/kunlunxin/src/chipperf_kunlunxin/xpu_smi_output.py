"""Parsers of every layout in which ``xpu-smi`` and ``xpu_smi`` print devices.

Layouts differ between releases. What a parser does not recognize is unknown, and text of another tool gives no devices.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import TYPE_CHECKING, Final

from chipperf.hardware import (
    BYTES,
    CELSIUS,
    MEGAHERTZ,
    PERCENT,
    UNSTATED,
    DeviceReading,
    normalize_pci_address,
    quantity,
    whole,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

PLACEHOLDER_DRIVER_VERSION: Final = "515.58"
"""Containers without the matching library show this instead of the driver's version."""

_MIB: Final = {"": 2**20}
# No card draws as much; some releases write mW where the others write W.
_HIGHEST_PLAUSIBLE_W: Final = 2000

# Positions in a line of "xpu-smi -m" are those of the tool's help; the fields behind the model are not read, because
# releases differ in them.
_PCI: Final = 0
_DEVICE_ID: Final = 2
_SERIAL: Final = 3
_TEMPERATURE: Final = 4
_POWER: Final = 8
_CLOCK: Final = 9
_MEMORY_USED: Final = 17
_MEMORY_TOTAL: Final = 18
_UTILISATION: Final = 19
_MODEL: Final = 21

_GAP: Final = re.compile(r"\s{2,}")
_TEMPERATURE_CELL: Final = re.compile(r"\b(\d+)C\b")
_POWER_CELL: Final = re.compile(r"\b(\d+(?:\.\d+)?m?W) /")
_MEMORY_CELL: Final = re.compile(r"(\d+[KMG]i?B)\s*/\s*(\d+[KMG]i?B)")
_UTILISATION_CELL: Final = re.compile(r"\b(\d+)%")

_DEVICE: Final = re.compile(r"XPU ([0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-7])\s*")
_LISTED: Final = re.compile(r"XPU (\d+): (\S+)(?:.*UUID: ([0-9A-Za-z-]+))?")

Values = dict[tuple[str, ...], str]
"""Values of one device by the names of the sections around them and their key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class XpuQuery:
    """What ``xpu-smi -q`` says.

    Attributes:
        driver_version: Version of the kernel driver; ``None`` if it is unknown or the placeholder.
        runtime_version: Version of the library behind the tool.
        readings: The devices, in the tool's order.
    """

    driver_version: str | None = None
    runtime_version: str | None = None
    readings: tuple[DeviceReading, ...] = ()


def normalize_uuid(text: str | None) -> str | None:
    """Return a UUID as torch writes it: the tool puts ``GPU-`` in front of the same digits."""
    return text.strip().lower().removeprefix("gpu-") or None if text else None


def driver_version(text: str | None) -> str | None:
    """Return a driver version, or ``None`` for none, ``N/A`` and the placeholder."""
    version = (text or "").strip()
    return version if version[:1].isdigit() and version != PLACEHOLDER_DRIVER_VERSION else None


def bytes_of(text: str | None) -> int | None:
    """Read a memory size with its unit, for example ``98304 MiB``."""
    return whole(quantity(text, BYTES))


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
            readings[-1] = _with_values(readings[-1], cells)
    return tuple(readings)


def parse_query(text: str) -> XpuQuery:
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
    return XpuQuery(
        driver_version=driver_version(general.get(("Driver Version",))),
        runtime_version=_known(general.get(("XPU-RT Version",))),
        readings=tuple(
            _reading(position, pci_address, values) for position, (pci_address, values) in enumerate(devices)
        ),
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
    reading = DeviceReading(
        device_id=int(fields[_DEVICE_ID]),
        pci_bus_id=normalize_pci_address(fields[_PCI]),
        serial=fields[_SERIAL],
        name=" ".join(takewhile(lambda field: not field.isdigit(), fields[_MODEL:])) or None,
        temperature_c=quantity(fields[_TEMPERATURE], {**CELSIUS, **UNSTATED}),
        power_w=watts_of(fields[_POWER]),
        utilization_percent=quantity(fields[_UTILISATION], {**PERCENT, **UNSTATED}),
        memory_used_bytes=whole(quantity(fields[_MEMORY_USED], _MIB)),
        memory_total_bytes=whole(quantity(fields[_MEMORY_TOTAL], _MIB)),
        clock_mhz=quantity(fields[_CLOCK], UNSTATED),
    )
    return reading if _is_plausible(reading) else None


def _is_plausible(reading: DeviceReading) -> bool:
    """Return False if the values cannot stand in these columns: then the columns are others."""
    used, total = reading.memory_used_bytes, reading.memory_total_bytes
    return (
        reading.pci_bus_id is not None
        and reading.name is not None
        and total is not None
        and total > 0
        and (used is None or used <= total)
        and (reading.utilization_percent or 0) <= 100
        and (reading.temperature_c or 0) <= 150
    )


def _read_old_row(row: Mapping[str, str]) -> DeviceReading:
    used, _, total = row.get("Memory", "").partition(" / ")
    unit = total.rpartition(" ")[2]
    return DeviceReading(
        device_id=int(row["DevID"]) if row["DevID"].isdigit() else None,
        pci_bus_id=normalize_pci_address(row["PCI Addr"]),
        serial=row.get("SN") or None,
        name=row.get("Model") or None,
        temperature_c=quantity(row.get("Temp"), {**CELSIUS, **UNSTATED}),
        power_w=watts_of(row.get("Power(W)")),
        utilization_percent=quantity(row.get("UseRate"), {**PERCENT, **UNSTATED}),
        memory_used_bytes=bytes_of(f"{used} {unit}"),
        memory_total_bytes=bytes_of(total) or None,
        clock_mhz=quantity(row.get("Freq(MHz)"), {**MEGAHERTZ, **UNSTATED}),
    )


def _with_values(reading: DeviceReading, cells: list[str]) -> DeviceReading:
    temperature, power = _TEMPERATURE_CELL.search(cells[0]), _POWER_CELL.search(cells[0])
    memory, utilization = _MEMORY_CELL.search(cells[1]), _UTILISATION_CELL.search(cells[2])
    return replace(
        reading,
        temperature_c=quantity(temperature[1], UNSTATED) if temperature else None,
        power_w=watts_of(power[1]) if power else None,
        memory_used_bytes=bytes_of(memory[1]) if memory else None,
        memory_total_bytes=bytes_of(memory[2]) if memory else None,
        utilization_percent=quantity(utilization[1], UNSTATED) if utilization else None,
    )


def _reading(position: int, pci_address: str, values: Mapping[tuple[str, ...], str]) -> DeviceReading:
    return DeviceReading(
        device_id=position,
        pci_bus_id=normalize_pci_address(pci_address),
        serial=_known(values.get(("Serial Number",))),
        uuid=normalize_uuid(_known(values.get(("XPU UUID",)))),
        name=_known(values.get(("Product Name",))),
        temperature_c=quantity(values.get(("Temperature", "XPU Current Temp")), {**CELSIUS, **UNSTATED}),
        power_w=watts_of(values.get(("Power Readings", "Power Draw"))),
        utilization_percent=quantity(values.get(("Utilization", "Xpu")), {**PERCENT, **UNSTATED}),
        memory_used_bytes=bytes_of(values.get(("Memory Usage", "Used"))),
        memory_total_bytes=bytes_of(values.get(("Memory Usage", "Total"))) or None,
        clock_mhz=quantity(values.get(("Clocks", "Cluster")), {**MEGAHERTZ, **UNSTATED}),
    )


def _known(text: str | None) -> str | None:
    return text if text and text not in ("N/A", "Unknown") else None
