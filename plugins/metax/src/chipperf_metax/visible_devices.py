"""The environment variables that choose devices, by the rules of MetaX's torch.

``MACA_VISIBLE_DEVICES`` hides ``CUDA_VISIBLE_DEVICES``, the one that launchers set: left over in a shell or an image,
it would silently send a job to other devices than it was given. So the two may not contradict each other.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from chipperf import ProbedDevice

VARIABLES: Final = ("MACA_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES")
"""The one that wins first."""


def find_conflict(environment: Mapping[str, str]) -> str | None:
    """Return what is wrong with the variables and what to do, or ``None`` if they agree."""
    stale, chosen = (environment.get(name) for name in VARIABLES)
    if stale is None or chosen is None or _entries(stale) == _entries(chosen):
        return None
    return (
        f"MACA_VISIBLE_DEVICES={stale!r} contradicts CUDA_VISIBLE_DEVICES={chosen!r}, and MetaX's torch would follow "
        "the first: unset MACA_VISIBLE_DEVICES to use what the launcher chose, or give both the same value"
    )


def active_choice(environment: Mapping[str, str]) -> tuple[str, str] | None:
    """Return name and value of the variable in force, or ``None`` if all devices are visible."""
    return next(((name, environment[name]) for name in VARIABLES if name in environment), None)


def select(devices: Sequence[ProbedDevice], choice: str) -> tuple[ProbedDevice, ...]:
    """Return the devices that a variable's value leaves, numbered as torch numbers them.

    Args:
        devices: All devices, in the runtime's order.
        choice: Indices, or UUIDs or beginnings of such, separated by commas. As in CUDA, an entry that names no device
            ends the list, and one that repeats a device empties it.
    """
    chosen: list[ProbedDevice] = []
    for entry in _entries(choice):
        device = _find(devices, entry)
        if device is None:
            break
        if device in chosen:
            return ()
        chosen.append(device)
    return tuple(replace(device, index=index) for index, device in enumerate(chosen))


def _find(devices: Sequence[ProbedDevice], entry: str) -> ProbedDevice | None:
    if entry.isdecimal():
        return devices[int(entry)] if int(entry) < len(devices) else None
    matching = [device for device in devices if entry and device.uuid and device.uuid.startswith(entry)]
    return matching[0] if len(matching) == 1 else None


def _entries(choice: str) -> list[str]:
    return [entry.strip() for entry in choice.split(",")]
