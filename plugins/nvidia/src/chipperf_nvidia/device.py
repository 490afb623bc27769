"""One worker's device: its identity, and its memory."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING

from chipperf import DeviceInfo, hookimpl, torchtools
from chipperf.hardware import call_bounded

from chipperf_nvidia.nvml import Memory, find_handle, opened, read_inventory, read_memory, version
from chipperf_nvidia.probe import VARIABLE, visible_devices

if TYPE_CHECKING:
    import torch
    from chipperf import MemoryStats, ProbedDevice, Rank

_NVML_TIMEOUT_S = 5.0


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
    return info if found is None else DeviceInfo(**{**asdict(found), "index": info.index})


@hookimpl
def perf_memory_query(device: torch.device) -> MemoryStats:
    """Read torch's allocator, and the use of the whole device from NVML or, failing that, from the CUDA runtime."""
    import torch

    device_bytes, source = _read_nvml_memory(perf_device_info(device).uuid) or (None, "cudaMemGetInfo")
    return torchtools.read_memory(torch.cuda, device, device_bytes=device_bytes, device_source=source)


def _find_by_uuid(uuid: str | None, index: int) -> ProbedDevice | None:
    """Return the GPU or MIG instance with torch's UUID, which lacks NVML's prefix; ``None`` if NVML lists none.

    A runtime that gives a MIG instance the UUID of its GPU leaves open which instance it is; then CUDA's own rule of
    what is visible decides.
    """
    if uuid is None:
        return None
    try:
        gpus = call_bounded(read_inventory, timeout_s=_NVML_TIMEOUT_S).gpus
    except Exception:  # NVML is foreign code; without it, torch's properties have to do.
        return None
    for gpu in gpus:
        for instance in gpu.instances or ():
            if instance.device.uuid == f"MIG-{uuid}":
                return instance.device
        if gpu.device.uuid != f"GPU-{uuid}":
            continue
        if gpu.instances is None:
            return gpu.device
        visible = visible_devices(gpus, os.environ.get(VARIABLE))
        own = {instance.device.uuid for instance in gpu.instances}
        return next((device for device in visible if device.index == index and device.uuid in own), None)
    return None


def _read_nvml_memory(uuid: str | None) -> tuple[Memory, str] | None:
    if uuid is None:
        return None

    def read() -> tuple[Memory, str]:
        with opened() as pynvml:
            return read_memory(pynvml, find_handle(pynvml, uuid)), f"NVML {version(pynvml)}"

    try:
        reading, source = call_bounded(read, timeout_s=_NVML_TIMEOUT_S)
    except Exception:  # NVML is foreign code; without it, the CUDA runtime knows the same.
        return None
    return None if reading[1] is None else (reading, source)
