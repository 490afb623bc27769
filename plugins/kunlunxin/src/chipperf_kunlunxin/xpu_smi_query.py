"""Reads ``xpu-smi -q``, whose sections repeat the same keys, and ``xpu-smi -L``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from chipperf.hardware import normalise_pci_address

from chipperf_kunlunxin.xpu_reading import (
    XpuReading,
    bytes_of,
    driver_version,
    normalise_uuid,
    number_of,
    watts_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

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
    readings: tuple[XpuReading, ...] = ()


def parse_query(text: str) -> XpuQuery:
    """Return what the output says, as far as it came; other text gives a query without devices."""
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


def parse_list(text: str) -> tuple[XpuReading, ...]:
    """Return the numbers and addresses that ``xpu-smi -L`` lists."""
    matches = filter(None, map(_LISTED.match, text.splitlines()))
    return tuple(
        XpuReading(device_id=int(match[1]), pci_bus_id=address, uuid=normalise_uuid(match[3]))
        for match in matches
        if (address := normalise_pci_address(match[2]))
    )


def _reading(position: int, pci_address: str, values: Mapping[tuple[str, ...], str]) -> XpuReading:
    return XpuReading(
        device_id=position,
        pci_bus_id=normalise_pci_address(pci_address),
        serial=_known(values.get(("Serial Number",))),
        uuid=normalise_uuid(_known(values.get(("XPU UUID",)))),
        name=_known(values.get(("Product Name",))),
        temperature_c=number_of(values.get(("Temperature", "XPU Current Temp")), "C"),
        power_w=watts_of(values.get(("Power Readings", "Power Draw"))),
        utilisation_percent=number_of(values.get(("Utilization", "Xpu")), "%"),
        memory_used_bytes=bytes_of(values.get(("Memory Usage", "Used"))),
        memory_total_bytes=bytes_of(values.get(("Memory Usage", "Total"))) or None,
        clock_mhz=number_of(values.get(("Clocks", "Cluster")), "MHz"),
    )


def _known(text: str | None) -> str | None:
    return text if text and text not in ("N/A", "Unknown") else None
