"""Which GPUs CUDA shows to a process, and in which order.

The rules are those of ``CUDA_VISIBLE_DEVICES`` in NVIDIA's CUDA programming guide and of "Device Enumeration" in its
MIG user guide. An index counts GPUs by PCI address, which is what ``CUDA_DEVICE_ORDER=PCI_BUS_ID`` makes of it; the
plugin sets that for every worker.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from chipperf_nvidia.nvml import Gpu, MigInstance

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from chipperf import ProbedDevice

VARIABLE = "CUDA_VISIBLE_DEVICES"


def visible_devices(gpus: Sequence[Gpu], value: str | None) -> tuple[ProbedDevice, ...]:
    """Return the devices CUDA enumerates, numbered as torch numbers them.

    Args:
        gpus: All GPUs of the machine.
        value: ``CUDA_VISIBLE_DEVICES``: indices, UUIDs or their unique beginnings, or MIG instances, separated by
            commas. What follows the first entry that names nothing is ignored. ``None`` is an unset variable.

    Returns:
        Whole GPUs; or one MIG instance, the first that is visible, because a CUDA process uses no more than one and no
        whole GPU beside it.
    """
    chosen: list[Gpu | MigInstance] = list(gpus) if value is None else _chosen(gpus, value)
    if len({item.device.uuid or item.device.pci_bus_id for item in chosen}) < len(chosen):
        # CUDA shows nothing if an entry is repeated.
        return ()
    instances = [instance for item in chosen for instance in _instances_of(item)]
    whole_gpus = [item.device for item in chosen if isinstance(item, Gpu) and item.instances is None]
    devices = [instances[0].device] if instances else whole_gpus
    return tuple(replace(device, index=index) for index, device in enumerate(devices))


def _chosen(gpus: Sequence[Gpu], value: str) -> list[Gpu | MigInstance]:
    chosen: list[Gpu | MigInstance] = []
    for entry in value.split(","):
        item = _find(gpus, entry.strip())
        if item is None:
            break
        chosen.append(item)
    return chosen


def _find(gpus: Sequence[Gpu], entry: str) -> Gpu | MigInstance | None:
    if entry.isdecimal():
        return next((gpu for gpu in gpus if gpu.device.index == int(entry)), None)
    if entry.startswith("GPU-"):
        return _only(gpu for gpu in gpus if (gpu.device.uuid or "").startswith(entry))
    if entry.startswith("MIG-"):
        instances = [instance for gpu in gpus for instance in _instances_of(gpu)]
        return _only(
            instance
            for instance in instances
            if (instance.device.uuid or "").startswith(entry) or instance.legacy_uuid == entry
        )
    return None


def _only(matches: Iterable[Gpu | MigInstance]) -> Gpu | MigInstance | None:
    found = list(matches)
    return found[0] if len(found) == 1 else None


def _instances_of(item: Gpu | MigInstance) -> tuple[MigInstance, ...]:
    return (item.instances or ()) if isinstance(item, Gpu) else (item,)
