"""Finds NVIDIA GPUs without torch.

Several vendors present themselves as CUDA, one of them down to an NVML library of its own. So a GPU counts only if the
kernel lists it as a PCI display device of NVIDIA; NVML and the driver's files then say whether it can be used, and
``CUDA_VISIBLE_DEVICES`` whether it may.

The rules of that variable are those of NVIDIA's CUDA programming guide and of "Device Enumeration" in its MIG user
guide. An index counts GPUs by PCI address, which is what ``CUDA_DEVICE_ORDER=PCI_BUS_ID`` makes of it; the plugin sets
that for every worker.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from chipperf import ProbedDevice, ProbeResult, ToolCommand, hookimpl
from chipperf.hardware import call_bounded, normalize_pci_address, only, probe_cards, read_text, select_visible

from chipperf_nvidia.nvml import Gpu, Inventory, MigInstance, read_inventory

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from chipperf.hardware import PciDevice

VARIABLE = "CUDA_VISIBLE_DEVICES"
PCI_VENDOR_ID = 0x10DE
_DRIVER_VERSION = re.compile(r"^NVRM version:.*?\s(\d+(?:\.\d+)+)\b")


def probe(root: Path = Path("/"), *, timeout_s: float = 5.0) -> ProbeResult:
    """Find the GPUs of the machine whose file system starts at ``root``, as CUDA numbers them.

    NVML may take ``timeout_s`` seconds.
    """
    driver_version = read_driver_version(root)

    def examine(cards: tuple[PciDevice, ...]) -> ProbeResult | str:
        try:
            inventory = call_bounded(read_inventory, timeout_s=timeout_s)
        except ImportError as error:
            return _probe_driver_files(root, driver_version, f"NVML was not asked ({error})")
        except Exception as error:  # NVML is foreign code, and a probe never raises.
            return _explain_nvml(driver_version, error)
        return _accept(inventory, {card.address for card in cards})

    return probe_cards(
        root,
        lambda function: function.vendor_id == PCI_VENDOR_ID and function.is_display,
        examine,
        called="NVIDIA GPU",
        criterion="is a display device of vendor 0x10de",
        driver_version=driver_version,
    )


@hookimpl
def perf_tool_commands() -> tuple[ToolCommand, ...]:
    """List the driver's files that the probe parses; NVML answers in numbers, not in text."""
    find_gpus = ("find", "/proc/driver/nvidia/gpus", "-name", "information", "-exec", "cat", "{}", "+")
    return (
        ToolCommand(name="driver-version", argv=("cat", "/proc/driver/nvidia/version")),
        ToolCommand(name="driver-gpus", argv=find_gpus),
    )


def read_driver_version(root: Path) -> str | None:
    """Return the version of the loaded kernel driver, or ``None`` if none is loaded."""
    match = _DRIVER_VERSION.search(read_text(root / "proc/driver/nvidia/version") or "")
    return match.group(1) if match else None


def visible_devices(gpus: Sequence[Gpu], value: str | None) -> tuple[ProbedDevice, ...]:
    """Return the devices CUDA enumerates, numbered as torch numbers them.

    Args:
        gpus: All GPUs of the machine.
        value: ``CUDA_VISIBLE_DEVICES``: indices, UUIDs or their unique beginnings, or MIG instances, separated by
            commas. ``None`` is an unset variable.

    Returns:
        Whole GPUs; or one MIG instance, the first that is visible, because a CUDA process uses no more than one and no
        whole GPU beside it.
    """
    chosen: Sequence[Gpu | MigInstance] = gpus
    if value is not None:
        chosen = select_visible(value, lambda entry: _find_visible(gpus, entry))
    instances = [instance for item in chosen for instance in _instances_of(item)]
    whole_gpus = [item.device for item in chosen if isinstance(item, Gpu) and item.instances is None]
    devices = [instances[0].device] if instances else whole_gpus
    return tuple(replace(device, index=index) for index, device in enumerate(devices))


def _accept(inventory: Inventory, addresses: set[str]) -> ProbeResult | str:
    gpus = [gpu for gpu in inventory.gpus if gpu.device.pci_bus_id in addresses]
    faults = "".join(f"; {fault}" for fault in inventory.faults)
    if gpus:
        return _result(gpus, inventory.driver_version, "NVML lists", faults)
    foreign = ", ".join(f"{g.device.name} at {g.device.pci_bus_id}" for g in inventory.gpus) or "no GPU"
    return (
        f"NVML lists {foreign}{faults}; check that the container was started with the GPUs "
        "and that libnvidia-ml.so is NVIDIA's own"
    )


def _result(gpus: list[Gpu], driver_version: str, listed_by: str, remarks: str) -> ProbeResult:
    value = os.environ.get(VARIABLE)
    names = ", ".join(sorted({gpu.device.name for gpu in gpus}))
    listed = f"{listed_by} {len(gpus)} GPU(s): {names}; driver {driver_version}{remarks}"
    devices = visible_devices(gpus, value)
    if devices:
        if value is not None:
            listed += f"; {VARIABLE}={value} shows {len(devices)} device(s)"
        return ProbeResult(available=True, reason=listed, devices=devices, driver_version=driver_version)
    if value is None:
        why = "all are in MIG mode and have no instance; create one with nvidia-smi mig -cgi, or leave MIG mode"
    else:
        why = f"{VARIABLE}={value!r} shows none of them; unset it, or list indices or UUIDs of nvidia-smi -L"
    return ProbeResult(available=False, reason=f"{listed}; {why}", driver_version=driver_version)


def _explain_nvml(driver_version: str | None, error: Exception) -> str:
    if driver_version is None:
        return (
            "the kernel driver is not loaded: /proc/driver/nvidia/version is missing, NVML says "
            f"'{error}'; install or load NVIDIA's driver, or start the container with the GPUs"
        )
    return (
        f"NVML says '{error}' although driver {driver_version} is loaded; if the driver was updated, restart the "
        "machine; in a container, start it with the GPUs"
    )


def _probe_driver_files(root: Path, driver_version: str | None, doubt: str) -> ProbeResult | str:
    remedy = "install nvidia-ml-py"
    gpus = list(_read_driver_gpus(root))
    has_nodes = any((root / "dev").glob("nvidia[0-9]*"))
    if driver_version and gpus and has_nodes:
        return _result(gpus, driver_version, "the driver's files list", f"; {doubt}: {remedy}")
    return (
        f"the driver's files under /proc/driver/nvidia and /dev/nvidia* are incomplete, and {doubt}; "
        f"load NVIDIA's driver or start the container with the GPUs, and {remedy}"
    )


def _read_driver_gpus(root: Path) -> Iterator[Gpu]:
    for index, path in enumerate(sorted((root / "proc/driver/nvidia/gpus").glob("*/information"))):
        lines = (read_text(path) or "").splitlines()
        facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
        uuid = facts.get("GPU UUID")
        yield Gpu(
            device=ProbedDevice(
                index=index,
                name=facts.get("Model") or "NVIDIA GPU",
                # The driver writes question marks until somebody has opened the GPU.
                uuid=uuid if uuid and "?" not in uuid else None,
                pci_bus_id=normalize_pci_address(path.parent.name),
            )
        )


def _find_visible(gpus: Sequence[Gpu], entry: str) -> Gpu | MigInstance | None:
    if entry.isdecimal():
        return next((gpu for gpu in gpus if gpu.device.index == int(entry)), None)
    if entry.startswith("GPU-"):
        return only(gpu for gpu in gpus if (gpu.device.uuid or "").startswith(entry))
    if entry.startswith("MIG-"):
        instances = [instance for gpu in gpus for instance in _instances_of(gpu)]
        return only(
            instance
            for instance in instances
            if (instance.device.uuid or "").startswith(entry) or instance.legacy_uuid == entry
        )
    return None


def _instances_of(item: Gpu | MigInstance) -> tuple[MigInstance, ...]:
    return (item.instances or ()) if isinstance(item, Gpu) else (item,)
