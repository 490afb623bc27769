"""A worker's device in MetaX's torch, which calls it ``cuda``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from chipperf import DeviceError, DeviceInfo

from chipperf_metax.visible_devices import active_choice

if TYPE_CHECKING:
    import torch
    from chipperf import Rank


def init_device(rank: Rank) -> torch.device:
    """Make the device of the rank's local index current.

    Raises:
        DeviceError: There is no such device, or the runtime cannot count devices.
    """
    import torch

    try:
        count = torch.cuda.device_count()
    except OSError as error:
        # Counting goes through MetaX's management library.
        raise DeviceError(
            f"MetaX's torch cannot count its devices: {error}", hint="add /opt/mxdriver/lib to LD_LIBRARY_PATH"
        ) from error
    if rank.local_rank >= count:
        choice = active_choice(os.environ)
        because = f" with {choice[0]}={choice[1]}" if choice else ""
        raise DeviceError(
            f"local rank {rank.local_rank} has no device: {count} MetaX device(s) are visible{because}",
            hint=f"start at most {count} process(es) on this machine, or make more devices visible"
            if count
            else "'perf doctor' says what the probe finds",
        )
    device = torch.device("cuda", rank.local_rank)
    torch.cuda.set_device(device)
    return device


def device_info(device: torch.device) -> DeviceInfo:
    """Identify a device by torch's properties; UUID and address are those that ``mx-smi -L`` lists."""
    import torch

    properties: Any = torch.cuda.get_device_properties(device)
    # Older builds tell neither.
    uuid = getattr(properties, "uuid", None)
    address = None
    if hasattr(properties, "pci_bus_id"):
        address = f"{properties.pci_domain_id:04x}:{properties.pci_bus_id:02x}:{properties.pci_device_id:02x}.0"
    return DeviceInfo(
        index=device.index or 0,
        name=properties.name,
        uuid=f"GPU-{uuid}" if uuid else None,
        pci_bus_id=address,
        total_bytes=properties.total_memory,
    )
