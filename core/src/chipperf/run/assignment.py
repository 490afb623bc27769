"""Checks before training that every rank has its own card, and that no other program uses it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from chipperf.errors import DeviceError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from chipperf.plugin.types import DeviceInfo, ProbedDevice, VendorInfo

BUSY_FRACTION = 0.05
"""Fraction of a card's memory. More memory in use before a run means that another program uses the card; drivers use
less."""

_DRIVER_BYTES = 2**30


def require_free_cards(
    info: VendorInfo,
    devices: Sequence[ProbedDevice],
    idle_memory_bytes: Mapping[str, int],
    processes: int,
    environment: Mapping[str, str] = os.environ,
) -> None:
    """Check that each process has its own card, which no other program uses.

    Args:
        info: The vendor. Processes on the CPU share it.
        devices: The vendor's visible devices on this machine.
        idle_memory_bytes: Memory in use on each device, by UUID or bus address, if the vendor reports it.
        processes: Number of processes to start on this machine.
        environment: Environment with the variables that select cards.

    Raises:
        DeviceError: There are fewer cards than processes, variables select different cards, or a card is in use.
    """
    if info.device_type == "cpu":
        return
    _require_one_choice(info.visible_devices_env, environment)
    if processes > len(devices):
        raise DeviceError(
            f"{processes} processes need one card each, and {info.name} has {len(devices)} on this machine",
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
                hint="wait for the other program, or exclude the card; with --no-device-check both use the card",
            )


def _require_one_choice(names: Sequence[str], environment: Mapping[str, str]) -> None:
    """Check that all variables select the same cards, because libraries differ in which variable they use."""
    chosen = {name: environment[name] for name in names if name in environment}
    if len(set(chosen.values())) > 1:
        listed = ", ".join(f"{name}={value}" for name, value in chosen.items())
        raise DeviceError(f"{listed} choose different cards", hint="set one of them, or all alike")


def require_distinct_cards(devices: Sequence[DeviceInfo], ranks_per_node: int, device_type: str) -> None:
    """Check that no two ranks use the same card.

    Args:
        devices: The device of every rank, in the order of ranks.
        ranks_per_node: Number of ranks per machine. Bus addresses are unique only within a machine.
        device_type: torch's type of the device. Ranks on the CPU share it.

    Raises:
        DeviceError: Two ranks have the same UUID or, on one machine, the same bus address. The message names the ranks
            and the card.
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
                hint="make a different card visible to each process, or all cards to all processes",
            )
        owners[identity] = rank


def describe_card(device: DeviceInfo | ProbedDevice) -> str:
    """Return a card's name with its UUID, bus address or index."""
    return f"{device.name} {device.uuid or device.pci_bus_id or f'#{device.index}'}"
