"""The rank of a process, and checks before training that every rank has its own card, which is free."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from chipperf.errors import DeviceError, PluginError
from chipperf.plugin.types import Rank
from chipperf.run.rendezvous import is_loopback

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from chipperf.plugin.types import DeviceInfo, ProbedDevice, VendorInfo

BUSY_FRACTION = 0.05
"""Fraction of a card's memory. More memory in use before a run means that another program uses the card; drivers use
less."""

_DRIVER_BYTES = 2**30


def job_ranks(per_machine: int, *, machines: int = 1) -> list[Rank]:
    """Return the ranks of a job with ``per_machine`` processes on each machine."""
    return [
        Rank(
            rank=number,
            local_rank=number % per_machine,
            world_size=machines * per_machine,
            local_world_size=per_machine,
            node_rank=number // per_machine,
        )
        for number in range(machines * per_machine)
    ]


def rank_from_environment(environment: Mapping[str, str] = os.environ) -> Rank:
    """Return this process's rank from the variables of torch's launcher; without a launcher, of a job of one process.

    Variables that are not numbers or contradict each other are a :class:`PluginError`.
    """
    if "RANK" not in environment:
        return Rank()
    try:
        rank = Rank(
            rank=int(environment["RANK"]),
            local_rank=int(environment["LOCAL_RANK"]),
            world_size=int(environment["WORLD_SIZE"]),
            local_world_size=int(environment["LOCAL_WORLD_SIZE"]),
            node_rank=int(environment.get("GROUP_RANK", "0")),
        )
    except (KeyError, ValueError) as error:
        raise PluginError(
            f"the launcher's variables are incomplete: {error}",
            hint="RANK, LOCAL_RANK, WORLD_SIZE and LOCAL_WORLD_SIZE must be numbers",
        ) from error
    if not (0 <= rank.local_rank < rank.local_world_size <= rank.world_size and 0 <= rank.rank < rank.world_size):
        raise PluginError(f"the launcher's variables contradict each other: {rank}", hint="check the launcher")
    return rank


def rank_variables(rank: Rank, host: str, port: int) -> dict[str, str]:
    """Return the variables that tell a process its rank and where the ranks' store listens.

    On one machine, gloo listens on the loopback interface, unless the user has chosen another one.
    """
    numbers = {
        "RANK": rank.rank,
        "LOCAL_RANK": rank.local_rank,
        "WORLD_SIZE": rank.world_size,
        "LOCAL_WORLD_SIZE": rank.local_world_size,
        "GROUP_RANK": rank.node_rank,
        "MASTER_PORT": port,
    }
    variables = {"MASTER_ADDR": host, **{name: str(value) for name, value in numbers.items()}}
    # The loopback interface is lo on Linux, and lo0 on BSD and macOS.
    interfaces = [name for _, name in socket.if_nameindex() if name in ("lo", "lo0")]
    is_alone = rank.local_world_size == rank.world_size or is_loopback(host)
    if interfaces and is_alone and not os.environ.get("GLOO_SOCKET_IFNAME"):
        variables["GLOO_SOCKET_IFNAME"] = interfaces[0]
    return variables


def require_free_cards(
    info: VendorInfo,
    devices: Sequence[ProbedDevice],
    idle_memory_bytes: Mapping[str, int],
    processes: int,
    environment: Mapping[str, str] = os.environ,
) -> None:
    """Raise :class:`DeviceError` unless each of ``processes`` has its own card, which no other program uses.

    Processes on the CPU share it. ``devices`` are the vendor's visible ones on this machine, and ``idle_memory_bytes``
    is the memory in use on each, by :func:`device_key`, if the vendor reports it. ``environment`` may select cards.
    """
    if info.device_type == "cpu":
        return
    # Libraries differ in which variable they use.
    chosen = {name: environment[name] for name in info.visible_devices_env if name in environment}
    if len(set(chosen.values())) > 1:
        listed = ", ".join(f"{name}={value}" for name, value in chosen.items())
        raise DeviceError(
            f"{listed} choose different cards", hint="set only one of them, or set all to the same devices"
        )
    if processes > len(devices):
        raise DeviceError(
            f"{processes} processes need one card each, and {info.name} has {len(devices)} on this machine",
            hint="lower --nproc"
            + "".join(f", or show more cards with {name}" for name in info.visible_devices_env[:1]),
        )
    for device in devices[:processes]:
        used_bytes = idle_memory_bytes.get(device_key(device))
        if used_bytes is None or device.total_bytes is None:
            continue
        if used_bytes > max(_DRIVER_BYTES, BUSY_FRACTION * device.total_bytes):
            raise DeviceError(
                f"{describe_card(device)} is in use: {used_bytes / 2**30:.1f} GiB of its memory before training begins",
                hint="wait for the other program, or exclude the card; with --no-device-check both use the card",
            )


def require_distinct_cards(devices: Sequence[DeviceInfo], ranks_per_node: int, device_type: str) -> None:
    """Raise :class:`DeviceError` if two of the ``devices`` of all ranks have the same UUID or bus address.

    Bus addresses are unique only within a machine, which has ``ranks_per_node``. Ranks on a CPU share it.
    """
    if device_type == "cpu":
        return
    owners: dict[tuple[object, ...], int] = {}
    for rank, device in enumerate(devices):
        node = rank // ranks_per_node
        identity = (device.uuid,) if device.uuid else (node, device.pci_bus_id or device.index)
        if identity in owners:
            raise DeviceError(
                f"ranks {owners[identity]} and {rank} use the same card: {describe_card(device)}",
                hint="make a different card visible to each process, or all cards to all processes",
            )
        owners[identity] = rank


def describe_card(device: DeviceInfo | ProbedDevice) -> str:
    """Return a card's name with its UUID, bus address or index."""
    return f"{device.name} {device.uuid or device.pci_bus_id or f'#{device.index}'}"


def device_key(device: DeviceInfo | ProbedDevice) -> str:
    """Return the UUID, bus address, or name and index of a device, by which telemetry knows it."""
    return device.uuid or device.pci_bus_id or describe_card(device)
