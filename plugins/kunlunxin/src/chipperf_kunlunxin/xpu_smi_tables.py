"""Reads the tables that the tool prints for people when it is called without options."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from chipperf.hardware import normalise_pci_address

from chipperf_kunlunxin.xpu_reading import XpuReading, bytes_of, number_of, watts_of

if TYPE_CHECKING:
    from collections.abc import Mapping

_GAP: Final = re.compile(r"\s{2,}")
_TEMPERATURE: Final = re.compile(r"\b(\d+)C\b")
_POWER: Final = re.compile(r"\b(\d+(?:\.\d+)?m?W) /")
_MEMORY: Final = re.compile(r"(\d+[KMG]i?B)\s*/\s*(\d+[KMG]i?B)")
_UTILISATION: Final = re.compile(r"\b(\d+)%")


def parse_tables(text: str) -> tuple[XpuReading, ...]:
    """Return a reading per device of the table in ``text``, new or old; other text gives none."""
    return parse_new_table(text) or parse_old_table(text)


def parse_old_table(text: str) -> tuple[XpuReading, ...]:
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


def parse_new_table(text: str) -> tuple[XpuReading, ...]:
    """Return the devices of the table of ``xpu-smi``: each has a line with its address and one with its values."""
    readings: list[XpuReading] = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) != 3:
            continue
        head = _GAP.split(cells[0])
        address = normalise_pci_address(cells[1])
        if address and head[0].isdigit() and len(head) > 1:
            readings.append(XpuReading(device_id=int(head[0]), pci_bus_id=address, name=head[1]))
        # The third line of a device shows its L3 cache in the same form as the second shows the memory.
        elif readings and readings[-1].memory_total_bytes is None:
            readings[-1] = _with_values(readings[-1], cells)
    return tuple(readings)


def _read_old_row(row: Mapping[str, str]) -> XpuReading:
    used, _, total = row.get("Memory", "").partition(" / ")
    unit = total.rpartition(" ")[2]
    return XpuReading(
        device_id=int(row["DevID"]) if row["DevID"].isdigit() else None,
        pci_bus_id=normalise_pci_address(row["PCI Addr"]),
        serial=row.get("SN") or None,
        name=row.get("Model") or None,
        temperature_c=number_of(row.get("Temp"), "C"),
        power_w=watts_of(row.get("Power(W)")),
        utilisation_percent=number_of(row.get("UseRate"), "%"),
        memory_used_bytes=bytes_of(f"{used} {unit}"),
        memory_total_bytes=bytes_of(total) or None,
        clock_mhz=number_of(row.get("Freq(MHz)"), "MHz"),
    )


def _with_values(reading: XpuReading, cells: list[str]) -> XpuReading:
    temperature, power = _TEMPERATURE.search(cells[0]), _POWER.search(cells[0])
    memory, utilisation = _MEMORY.search(cells[1]), _UTILISATION.search(cells[2])
    return replace(
        reading,
        temperature_c=number_of(temperature[1], "") if temperature else None,
        power_w=watts_of(power[1]) if power else None,
        memory_used_bytes=bytes_of(memory[1]) if memory else None,
        memory_total_bytes=bytes_of(memory[2]) if memory else None,
        utilisation_percent=number_of(utilisation[1], "") if utilisation else None,
    )
