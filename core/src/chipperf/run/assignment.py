"""Which rank gets which card, and whether it has the card to itself; known before training."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from chipperf.errors import DeviceError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from chipperf.plugin.types import DeviceInfo, ProbedDevice, VendorInfo

BUSY_FRACTION = 0.05
"""Share of a card's memory whose use before a run, where drivers take less for themselves, tells of another program."""

_DRIVER_BYTES = 2**30


def require_free_cards(
    info: VendorInfo,
    devices: Sequence[ProbedDevice],
    idle_memory_bytes: Mapping[str, int],
    processes: int,
    environment: Mapping[str, str] = os.environ,
) -> None:
    """Refuse to begin where processes would not have a card each to themselves.

    Args:
        info: The vendor. Processes on a CPU share it.
        devices: The vendor's devices on this machine that are visible.
        idle_memory_bytes: Memory in use on each, by UUID or bus address, as far as the vendor tells.
        processes: How many are to be started here.
        environment: Variables that choose among the cards.

    Raises:
        DeviceError: There are fewer cards than processes, variables choose different cards, or a card is in use.
    """
    if info.device_type == "cpu":
        return
    _require_one_choice(info.visible_devices_env, environment)
    if processes > len(devices):
        raise DeviceError(
            f"{processes} processes need a card each, and {info.name} has {len(devices)} here",
            hint="lower --nproc"
            + "".join(f", or show more cards with {name}" for name in info.visible_devices_env[:1]),
        )
    for device in devices[:processes]:
        used_bytes = idle_memory_bytes.get(device.uuid or device.pci_bus_id or f"{device.name} #{device.index}")
        if used_bytes is None or device.total_bytes is None:
            continue
        if used_bytes > max(_DRIVER_BYTES, BUSY_FRACTION * device.total_bytes):
            raise DeviceError(
                f"{describe_card(device)} is in use: {used_bytes / 2**30:.1f} GiB of its memory before training begins",
                hint="wait for the other program, or leave the card out; --no-device-check trains beside it",
            )


def _require_one_choice(names: Sequence[str], environment: Mapping[str, str]) -> None:
    """Refuse variables that are set to different cards: which one a library obeys is its own affair."""
    chosen = {name: environment[name] for name in names if name in environment}
    if len(set(chosen.values())) > 1:
        listed = ", ".join(f"{name}={value}" for name, value in chosen.items())
        raise DeviceError(f"{listed} choose different cards", hint="set one of them, or all alike")


def require_distinct_cards(devices: Sequence[DeviceInfo], ranks_per_node: int, device_type: str) -> None:
    """Refuse two ranks on one card.

    Args:
        devices: Every rank's, in the order of ranks.
        ranks_per_node: Ranks of each machine: addresses on the bus are the machine's own.
        device_type: torch's name for it; ranks on a CPU share it.

    Raises:
        DeviceError: Two have the same UUID, or on one machine the same place; names the ranks and the card.
    """
    if device_type == "cpu":
        return
    owners: dict[tuple[object, ...], int] = {}
    for rank, device in enumerate(devices):
        node = rank // ranks_per_node
        identity = (device.uuid,) if device.uuid else (node, device.pci_bus_id or device.index)
        if identity in owners:
            raise DeviceError(
                f"ranks {owners[identity]} and {rank} are on one card: {describe_card(device)}",
                hint="show every process another card, or all cards to all processes",
            )
        owners[identity] = rank


def describe_card(device: DeviceInfo | ProbedDevice) -> str:
    """Return a card's name and what tells it from others."""
    return f"{device.name} {device.uuid or device.pci_bus_id or f'#{device.index}'}"
