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
from chipperf.hardware import normalize_pci_address, only, probe_cards, read_text, select_visible

from chipperf_nvidia.nvml import START_TIMEOUT_S, Gpu, explain, is_python_fault, part_of, take_inventory

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

VARIABLE = "CUDA_VISIBLE_DEVICES"
PCI_VENDOR_ID = 0x10DE
_DRIVER_VERSION = re.compile(r"^NVRM version:.*?\s(\d+(?:\.\d+)+)\b")


def probe(root: Path = Path("/"), *, timeout_s: float = START_TIMEOUT_S) -> ProbeResult:
    """Find the GPUs of the machine whose file system starts at ``root``, as CUDA numbers them.

    NVML may take ``timeout_s`` seconds. WSL2 shows its GPUs as ``/dev/dxg``; only NVML tells whose they are.
    """
    driver_version = read_driver_version(root)
    otherwise = _describe_jetson(root)
    if (root / "dev/dxg").exists():
        examined = _ask_nvml(root, driver_version, None, timeout_s)
        if isinstance(examined, ProbeResult):
            return examined
        otherwise = f"this is WSL2 (/dev/dxg), and {examined}; the driver for it is NVIDIA's for Windows"
    return probe_cards(
        root,
        lambda function: function.vendor_id == PCI_VENDOR_ID and function.is_display,
        lambda cards: _ask_nvml(root, driver_version, {card.address for card in cards}, timeout_s),
        called="NVIDIA GPU",
        criterion="is a display device of vendor 0x10de",
        driver_version=driver_version,
        otherwise=otherwise,
    )


@hookimpl
def perf_tool_commands() -> tuple[ToolCommand, ...]:
    """List the driver's files that the probe parses, and the tool that says what NVML answers in numbers."""
    sensors = "index,name,pci.bus_id,power.draw,temperature.gpu,utilization.gpu,clocks.sm,memory.used,memory.total"
    find_gpus = ("find", "/proc/driver/nvidia/gpus", "-name", "information", "-exec", "cat", "{}", "+")
    return (
        ToolCommand(name="driver-version", argv=("cat", "/proc/driver/nvidia/version")),
        ToolCommand(name="driver-gpus", argv=find_gpus),
        ToolCommand(name="nvidia-smi", argv=("nvidia-smi", f"--query-gpu={sensors}", "--format=csv")),
    )


def read_driver_version(root: Path) -> str | None:
    """Return the version of the loaded kernel driver, or ``None`` if none is loaded."""
    match = _DRIVER_VERSION.search(read_text(root / "proc/driver/nvidia/version") or "")
    return match.group(1) if match else None


def visible_devices(gpus: Sequence[Gpu], value: str | None) -> tuple[ProbedDevice, ...]:
    """Return those of the machine's GPUs that CUDA enumerates, numbered as torch numbers them.

    ``value`` is ``CUDA_VISIBLE_DEVICES``: indices, UUIDs or unique prefixes of UUIDs, or MIG instances, separated by
    commas; ``None`` is an unset variable. The result is whole GPUs, or one MIG instance, the first that is visible,
    because a CUDA process uses no more than one and no whole GPU beside it.
    """
    chosen = gpus if value is None else select_visible(value, lambda entry: _find_visible(gpus, entry))
    instances = [instance for item in chosen for instance in item.mig_instances]
    whole_gpus = [item.device for item in chosen if item.instances is None]
    devices = [instances[0].device] if instances else whole_gpus
    return tuple(replace(device, index=index) for index, device in enumerate(devices))


def _describe_jetson(root: Path) -> str:
    chip = re.search(r"nvidia,tegra\w*", read_text(root / "proc/device-tree/compatible") or "")
    if chip is None:
        return ""
    return (
        f"this is an NVIDIA Jetson or Thor ({chip[0]}), whose integrated GPU is no PCI device and shares the host's "
        "memory; it is not supported: use a machine with a GPU of its own on the PCI bus"
    )


def _ask_nvml(
    root: Path, driver_version: str | None, addresses: set[str] | None, timeout_s: float
) -> ProbeResult | str:
    """Return the GPUs at these PCI addresses, or at any of them (``None``), or why there are none."""
    try:
        inventory = take_inventory(timeout_s=timeout_s)
    except Exception as error:  # NVML is foreign code, and a probe never raises.
        if is_python_fault(error):
            remedy = f"{error}): install nvidia-ml-py" if isinstance(error, ImportError) else f"{explain(error)})"
            return _probe_driver_files(root, driver_version, f"NVML was not asked ({remedy}")
        missing = "the kernel driver is not loaded: /proc/driver/nvidia/version is missing, and "
        return f"{'' if driver_version or addresses is None else missing}NVML says: {explain(error)}"
    gpus = [gpu for gpu in inventory.gpus if addresses is None or gpu.device.pci_bus_id in addresses]
    faults = "".join(f"; {fault}" for fault in inventory.faults)
    if gpus:
        return _result(gpus, inventory.driver_version or driver_version, "NVML lists", faults)
    if inventory.gpus or not faults:
        foreign = ", ".join(f"{g.device.name} at {g.device.pci_bus_id}" for g in inventory.gpus) or "no GPU"
        faults += "; start the container with the GPUs, and check that libnvidia-ml.so is NVIDIA's own"
        return f"NVML lists {foreign}{faults}"
    return f"none answers NVML{faults}"


def _result(gpus: list[Gpu], driver_version: str | None, listed_by: str, remarks: str) -> ProbeResult:
    value = os.environ.get(VARIABLE)
    names = ", ".join(sorted({gpu.device.name for gpu in gpus}))
    listed = f"{listed_by} {len(gpus)} GPU(s): {names}; driver {driver_version or 'unknown'}{remarks}"
    empty = ", ".join(str(gpu.device.index) for gpu in gpus if gpu.instances == ())
    if empty:
        listed += f"; GPU {empty} is in MIG mode without an instance: make one (nvidia-smi mig -cgi), or leave MIG mode"
    devices = visible_devices(gpus, value)
    if value is None and len(devices) < sum(len(gpu.mig_instances) or gpu.instances is None for gpu in gpus):
        listed += f"; CUDA uses one MIG instance and no GPU beside it: set {VARIABLE} to the UUID of what to use"
    if value is not None and devices:
        listed += f"; {VARIABLE}={value} shows {len(devices)} device(s)"
    elif value is not None:
        listed += f"; {VARIABLE}={value!r} shows none of them; unset it, or name each device of nvidia-smi -L once"
    return ProbeResult(available=bool(devices), reason=listed, devices=devices, driver_version=driver_version)


def _probe_driver_files(root: Path, driver_version: str | None, doubt: str) -> ProbeResult | str:
    gpus = list(_read_driver_gpus(root))
    if driver_version and gpus and any((root / "dev").glob("nvidia[0-9]*")):
        return _result(gpus, driver_version, "the driver's files list", f"; {doubt}")
    return (
        f"the driver's files under /proc/driver/nvidia and /dev/nvidia* are incomplete; load NVIDIA's driver or start "
        f"the container with the GPUs; {doubt}"
    )


def _read_driver_gpus(root: Path) -> Iterator[Gpu]:
    for index, path in enumerate(sorted((root / "proc/driver/nvidia/gpus").glob("*/information"))):
        lines = (read_text(path) or "").splitlines()
        facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
        uuid, name = facts.get("GPU UUID"), facts.get("Model") or "NVIDIA GPU"
        yield Gpu(
            device=ProbedDevice(
                index=index,
                name=name,
                part=part_of(name),
                # The driver writes question marks until somebody has opened the GPU.
                uuid=uuid if uuid and "?" not in uuid else None,
                pci_bus_id=normalize_pci_address(path.parent.name),
            )
        )


def _find_visible(gpus: Sequence[Gpu], entry: str) -> Gpu | None:
    if entry.isascii() and entry.isdecimal():
        return next((gpu for gpu in gpus if gpu.device.index == int(entry)), None)
    if entry.startswith("GPU-"):
        return only(gpu for gpu in gpus if (gpu.device.uuid or "").startswith(entry))
    if entry.startswith("MIG-"):
        instances = [instance for gpu in gpus for instance in gpu.mig_instances]
        return only(i for i in instances if (i.device.uuid or "").startswith(entry) or i.legacy_uuid == entry)
    return None
