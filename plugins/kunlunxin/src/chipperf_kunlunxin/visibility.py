"""Which devices the profile's visible-devices variable leaves, in the order in which torch numbers them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chipperf_kunlunxin.xpu_reading import XpuReading


def visible_devices(devices: Sequence[XpuReading], value: str | None, *, keeps_order: bool) -> tuple[XpuReading, ...]:
    """Return the devices that are visible.

    As in CUDA, whose convention Kunlunxin follows, the first entry that names no device hides itself and all behind it.

    Args:
        devices: All devices; one without a number of its own is named by its position.
        value: The variable's value; ``None`` if it is not set, which hides nothing.
        keeps_order: Whether torch numbers the devices in the variable's order, or in that of ``devices``.
    """
    if value is None:
        return tuple(devices)
    positions: list[int] = []
    for entry in value.split(","):
        position = _position_of(entry.strip(), devices)
        if position is None or position in positions:
            break
        positions.append(position)
    return tuple(devices[position] for position in (positions if keeps_order else sorted(positions)))


def _position_of(entry: str, devices: Sequence[XpuReading]) -> int | None:
    for position, device in enumerate(devices):
        number = position if device.device_id is None else device.device_id
        if entry == str(number):
            return position
        if device.uuid and entry.lower().removeprefix("gpu-") == device.uuid:
            return position
    return None
