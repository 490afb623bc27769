"""One worker's device: its identity, and its memory."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from chipperf import DeviceInfo, hookimpl, torchtools

from chipperf_nvidia.nvml import part_of, read_memory_of, take_inventory
from chipperf_nvidia.probe import VARIABLE, visible_devices

if TYPE_CHECKING:
    import torch
    from chipperf import MemoryStats, ProbedDevice, Rank


@hookimpl
def perf_device_init(rank: Rank) -> torch.device:
    """Make the rank's GPU current."""
    import torch

    return torchtools.use_device(torch.cuda, "cuda", rank, called="GPU", visible_devices_env=(VARIABLE,))


@hookimpl
def perf_device_info(device: torch.device) -> DeviceInfo:
    """Return NVML's identity of the device, found by torch's UUID; torch's own where NVML cannot be asked."""
    info = torchtools.perf_device_info(device)
    found = _find_by_uuid(info.uuid and info.uuid.removeprefix("GPU-"), info.index)
    if found is None:
        return replace(info, part=part_of(info.name))
    return DeviceInfo(**{**asdict(found), "index": info.index})


@hookimpl
def perf_memory_query(device: torch.device) -> MemoryStats:
    """Read torch's allocator, and the use of the whole device from NVML or, failing that, from the CUDA runtime."""
    import torch

    uuid, device_bytes, source = perf_device_info(device).uuid, None, "cudaMemGetInfo"
    with suppress(Exception):  # NVML is foreign code; without it, the CUDA runtime knows the same.
        device_bytes, source = read_memory_of(uuid or "")
    return torchtools.read_memory(torch.cuda, device, device_bytes=device_bytes, device_source=source)


def _find_by_uuid(uuid: str | None, index: int) -> ProbedDevice | None:
    """Return the GPU or MIG instance with torch's UUID, which lacks NVML's prefix; ``None`` if NVML lists none.

    A runtime that gives a MIG instance the UUID of its GPU leaves open which instance it is; then CUDA's own rule of
    what is visible decides.
    """
    if uuid is None:
        return None
    try:
        gpus = take_inventory().gpus
    except Exception:  # NVML is foreign code; without it, torch's properties have to do.
        return None
    everything = (item for gpu in gpus for item in (*gpu.mig_instances, gpu))
    found = next((item for item in everything if item.device.uuid in (f"MIG-{uuid}", f"GPU-{uuid}")), None)
    if found is None or found.instances is None:
        return None if found is None else found.device
    visible = visible_devices(gpus, os.environ.get(VARIABLE))
    own = {instance.device.uuid for instance in found.instances}
    return next((device for device in visible if device.index == index and device.uuid in own), None)
