"""One device as ``xpu-smi`` shows it, whatever the layout, in this project's units."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

PLACEHOLDER_DRIVER_VERSION: Final = "515.58"
"""Containers without the matching library show this instead of the driver's version."""

# The tool counts in units of 2**10, however it spells them.
_BYTES_PER_UNIT: Final = {"B": 1, "KB": 2**10, "KIB": 2**10, "MB": 2**20, "MIB": 2**20, "GB": 2**30, "GIB": 2**30}
_MIB: Final = 2**20
_QUANTITY: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z%]*)")
# No card draws as much; some releases write mW where the others write W.
_HIGHEST_PLAUSIBLE_W: Final = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class XpuReading:
    """What one call of the tool says of one device; ``None`` is unknown.

    Attributes:
        device_id: The tool's number of the device.
        pci_bus_id: Address, as :func:`chipperf.hardware.normalise_pci_address` writes it.
        serial: Serial number of the card.
        uuid: UUID without its prefix, lower case, as torch writes it.
        name: Product name.
        temperature_c: Temperature of the chip.
        power_w: Power draw; on cards with two devices, possibly that of the card.
        utilisation_percent: Share of time in which the device was busy.
        memory_used_bytes: Device memory in use by everybody.
        memory_total_bytes: Capacity.
        clock_mhz: Clock of the compute units.
    """

    device_id: int | None = None
    pci_bus_id: str | None = None
    serial: str | None = None
    uuid: str | None = None
    name: str | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    utilisation_percent: float | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    clock_mhz: float | None = None

    def identified_by(self, other: XpuReading) -> XpuReading:
        """Return this reading with what it does not know of the device's identity and capacity from ``other``."""
        return replace(
            self,
            serial=self.serial or other.serial,
            uuid=self.uuid or other.uuid,
            name=self.name or other.name,
            memory_total_bytes=self.memory_total_bytes or other.memory_total_bytes,
        )


def normalise_uuid(text: str | None) -> str | None:
    """Return a UUID as torch writes it: the tool puts ``GPU-`` in front of the same digits."""
    return text.strip().lower().removeprefix("gpu-") or None if text else None


def driver_version(text: str | None) -> str | None:
    """Return a driver version, or ``None`` for none, ``N/A`` and the placeholder."""
    version = (text or "").strip()
    return version if version[:1].isdigit() and version != PLACEHOLDER_DRIVER_VERSION else None


def bytes_of(text: str | None) -> int | None:
    """Read a memory size with its unit, for example ``98304 MiB``."""
    match = _QUANTITY.fullmatch((text or "").strip())
    scale = _BYTES_PER_UNIT.get(match[2].upper()) if match else None
    return round(float(match[1]) * scale) if match and scale else None


def number_of(text: str | None, unit: str) -> float | None:
    """Read a number that carries ``unit`` or none, for example ``42 C``."""
    match = _QUANTITY.fullmatch((text or "").strip())
    return float(match[1]) if match and match[2] in ("", unit) else None


def watts_of(text: str | None) -> float | None:
    """Read a power; a value that no card reaches in W is in mW, which old releases write without saying so."""
    if (text or "").strip().endswith("mW"):
        milliwatts = number_of(text, "mW")
        return None if milliwatts is None else milliwatts / 1000
    value = number_of(text, "W")
    return value / 1000 if value is not None and value > _HIGHEST_PLAUSIBLE_W else value


def mib_of(text: str | None) -> int | None:
    """Read a memory size in bytes from a column that states no unit and counts in MiB."""
    value = number_of(text, "")
    return None if value is None else round(value * _MIB)
