"""One worker's device: choosing it, identifying it, its memory."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from chipperf import DeviceError, DeviceInfo, MemoryStats
from chipperf.hardware import call_bounded

from chipperf_nvidia.nvml import MemoryReading, find_handle, opened, read_inventory, read_memory, version
from chipperf_nvidia.visibility import VARIABLE, visible_devices

if TYPE_CHECKING:
    import torch
    from chipperf import ProbedDevice, Rank

_NVML_TIMEOUT_S = 5.0


def initialise(rank: Rank) -> torch.device:
    """Make the GPU of the rank current.

    Raises:
        DeviceError: There is no such GPU.
    """
    import torch

    available = torch.cuda.device_count()
    if rank.local_rank >= available:
        value = os.environ.get(VARIABLE)
        setting = f"{VARIABLE} is not set" if value is None else f"{VARIABLE}={value}"
        raise DeviceError(
            f"local rank {rank.local_rank} needs GPU {rank.local_rank}, but torch sees {available} GPU(s); {setting}",
            hint=f"use --nproc {available}, or show more GPUs" if available else "perf doctor says why",
        )
    device = torch.device("cuda", rank.local_rank)
    torch.cuda.set_device(device)
    return device


def identify(device: torch.device) -> DeviceInfo:
    """Return NVML's identity of the device, found by torch's UUID; torch's own where NVML cannot be asked."""
    import torch

    properties = torch.cuda.get_device_properties(device)
    # Builds of torch before 2.4 do not tell the UUID.
    uuid = str(properties.uuid) if hasattr(properties, "uuid") else None
    index = device.index or 0
    found = _find_by_uuid(uuid, index)
    if found is None:
        return DeviceInfo(
            index=index,
            name=properties.name,
            uuid=uuid and f"GPU-{uuid}",
            total_bytes=int(properties.total_memory) or None,
        )
    return DeviceInfo(
        index=index,
        name=found.name,
        uuid=found.uuid,
        pci_bus_id=found.pci_bus_id,
        total_bytes=found.total_bytes,
    )


def query_memory(device: torch.device) -> MemoryStats:
    """Read torch's allocator, and the use of the whole device from NVML or, failing that, from the CUDA runtime."""
    import torch

    reading, source = _read_nvml_memory(identify(device).uuid) or _read_runtime_memory(device)
    return MemoryStats(
        source=f"torch.cuda allocator; used and total: {source}",
        allocated_bytes=torch.cuda.memory_allocated(device),
        peak_allocated_bytes=torch.cuda.max_memory_allocated(device),
        reserved_bytes=torch.cuda.memory_reserved(device),
        peak_reserved_bytes=torch.cuda.max_memory_reserved(device),
        used_bytes=reading.used_bytes,
        total_bytes=reading.total_bytes,
    )


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


def _read_nvml_memory(uuid: str | None) -> tuple[MemoryReading, str] | None:
    if uuid is None:
        return None

    def read() -> tuple[MemoryReading, str]:
        with opened() as pynvml:
            return read_memory(pynvml, find_handle(pynvml, uuid)), f"NVML {version(pynvml)}"

    try:
        reading, source = call_bounded(read, timeout_s=_NVML_TIMEOUT_S)
    except Exception:  # NVML is foreign code; without it, the CUDA runtime knows the same.
        return None
    return None if reading.total_bytes is None else (reading, source)


def _read_runtime_memory(device: torch.device) -> tuple[MemoryReading, str]:
    import torch

    free_bytes, total_bytes = torch.cuda.mem_get_info(device)
    return MemoryReading(used_bytes=total_bytes - free_bytes, total_bytes=total_bytes), "cudaMemGetInfo"
