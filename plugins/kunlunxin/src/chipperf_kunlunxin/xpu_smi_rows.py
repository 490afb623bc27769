"""Reads ``xpu-smi -m``: one line per device, fields by position."""

from __future__ import annotations

import shlex
from itertools import takewhile
from typing import Final

from chipperf.hardware import normalise_pci_address

from chipperf_kunlunxin.xpu_reading import XpuReading, mib_of, number_of, watts_of

# Positions are those of the tool's help; the fields behind the model are not read, because releases differ in them.
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


def parse_machine_rows(text: str) -> tuple[XpuReading, ...]:
    """Return a reading per line; a line that is none, is cut off or has other columns is skipped."""
    readings = (_parse_row(line) for line in text.splitlines())
    return tuple(reading for reading in readings if reading is not None)


def _parse_row(line: str) -> XpuReading | None:
    try:
        # The model is quoted, because it may contain spaces.
        fields = shlex.split(line)
    except ValueError:
        return None
    if len(fields) <= _MODEL or not fields[_DEVICE_ID].isdigit():
        return None
    reading = XpuReading(
        device_id=int(fields[_DEVICE_ID]),
        pci_bus_id=normalise_pci_address(fields[_PCI]),
        serial=fields[_SERIAL],
        name=" ".join(takewhile(lambda field: not field.isdigit(), fields[_MODEL:])) or None,
        temperature_c=number_of(fields[_TEMPERATURE], "C"),
        power_w=watts_of(fields[_POWER]),
        utilisation_percent=number_of(fields[_UTILISATION], "%"),
        memory_used_bytes=mib_of(fields[_MEMORY_USED]),
        memory_total_bytes=mib_of(fields[_MEMORY_TOTAL]),
        clock_mhz=number_of(fields[_CLOCK], ""),
    )
    return reading if _is_plausible(reading) else None


def _is_plausible(reading: XpuReading) -> bool:
    """Return False if the values cannot stand in these columns: then the columns are others."""
    used, total = reading.memory_used_bytes, reading.memory_total_bytes
    return (
        reading.pci_bus_id is not None
        and reading.name is not None
        and total is not None
        and total > 0
        and (used is None or used <= total)
        and (reading.utilisation_percent or 0) <= 100
        and (reading.temperature_c or 0) <= 150
    )
