"""Finds NVIDIA GPUs without torch.

Several vendors present themselves as CUDA, one of them down to an NVML library of its own. So a GPU counts only if the
kernel lists it as a PCI display device of NVIDIA; NVML and the driver's files then say whether it can be used.
"""

from __future__ import annotations

import re
from pathlib import Path

from chipperf import ProbedDevice, ProbeResult
from chipperf.hardware import call_bounded, find_pci_devices, normalise_pci_address, read_text

from chipperf_nvidia.nvml import Inventory, read_inventory

PCI_VENDOR_ID = 0x10DE
_DRIVER_VERSION = re.compile(r"^NVRM version:.*?\s(\d+(?:\.\d+)+)\b")


def probe(root: Path = Path("/"), *, timeout_s: float = 5.0) -> ProbeResult:
    """Find the GPUs of the machine whose file system starts at ``root``.

    Args:
        root: Directory that holds ``sys``, ``proc`` and ``dev``.
        timeout_s: How long NVML may take.

    Returns:
        NVIDIA's GPUs in NVML's order, or what was looked for and what to do.
    """
    pci_root = root / "sys/bus/pci/devices"
    functions = find_pci_devices(pci_root)
    addresses = {f.address for f in functions if f.vendor_id == PCI_VENDOR_ID and f.is_display}
    driver_version = read_driver_version(root)
    if not addresses:
        return ProbeResult(
            available=False,
            reason=(
                f"no NVIDIA GPU: none of the {len(functions)} PCI devices under {pci_root} is a display device of "
                "vendor 0x10de; check that the card is powered, seated and passed to this machine or container"
            ),
            driver_version=driver_version,
        )
    found = f"PCI lists NVIDIA GPUs at {', '.join(sorted(addresses))}"
    try:
        inventory = call_bounded(read_inventory, timeout_s=timeout_s)
    except ImportError as error:
        return _probe_driver_files(root, found, driver_version, f"NVML was not asked ({error})")
    except Exception as error:  # NVML is foreign code, and a probe never raises.
        return ProbeResult(
            available=False, reason=_explain_nvml(found, driver_version, error), driver_version=driver_version
        )
    return _accept(inventory, addresses, found)


def read_driver_version(root: Path) -> str | None:
    """Return the version of the loaded kernel driver, or ``None`` if none is loaded."""
    match = _DRIVER_VERSION.search(read_text(root / "proc/driver/nvidia/version") or "")
    return match.group(1) if match else None


def _accept(inventory: Inventory, addresses: set[str], found: str) -> ProbeResult:
    devices = tuple(device for device in inventory.devices if device.pci_bus_id in addresses)
    faults = "".join(f"; {fault}" for fault in inventory.faults)
    if not devices:
        foreign = ", ".join(f"{d.name} at {d.pci_bus_id}" for d in inventory.devices) or "no GPU"
        reason = (
            f"{found}, but NVML lists {foreign}{faults}; check that the container was started with the GPUs "
            "and that libnvidia-ml.so is NVIDIA's own"
        )
        return ProbeResult(available=False, reason=reason, driver_version=inventory.driver_version)
    names = ", ".join(sorted({device.name for device in devices}))
    return ProbeResult(
        available=True,
        reason=f"NVML lists {len(devices)} GPU(s): {names}; driver {inventory.driver_version}{faults}",
        devices=devices,
        driver_version=inventory.driver_version,
    )


def _explain_nvml(found: str, driver_version: str | None, error: Exception) -> str:
    if driver_version is None:
        return (
            f"{found}, but the kernel driver is not loaded: /proc/driver/nvidia/version is missing, NVML says "
            f"'{error}'; install or load NVIDIA's driver, or start the container with the GPUs"
        )
    return (
        f"{found} and driver {driver_version} is loaded, but NVML says '{error}'; if the driver was updated, restart "
        "the machine; in a container, start it with the GPUs"
    )


def _probe_driver_files(root: Path, found: str, driver_version: str | None, doubt: str) -> ProbeResult:
    remedy = "install nvidia-ml-py"
    devices = tuple(_read_driver_devices(root))
    has_nodes = any((root / "dev").glob("nvidia[0-9]*"))
    if not (driver_version and devices and has_nodes):
        reason = (
            f"{found}, but the driver's files under /proc/driver/nvidia and /dev/nvidia* are incomplete, and {doubt}; "
            f"load NVIDIA's driver or start the container with the GPUs, and {remedy}"
        )
        return ProbeResult(available=False, reason=reason, driver_version=driver_version)
    reason = f"the driver's files list {len(devices)} GPU(s); driver {driver_version}; {doubt}: {remedy}"
    return ProbeResult(available=True, reason=reason, devices=devices, driver_version=driver_version)


def _read_driver_devices(root: Path) -> list[ProbedDevice]:
    devices = []
    for index, path in enumerate(sorted((root / "proc/driver/nvidia/gpus").glob("*/information"))):
        lines = (read_text(path) or "").splitlines()
        facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
        uuid = facts.get("GPU UUID")
        devices.append(
            ProbedDevice(
                index=index,
                name=facts.get("Model") or "NVIDIA GPU",
                # The driver writes question marks until somebody has opened the GPU.
                uuid=uuid if uuid and "?" not in uuid else None,
                pci_bus_id=normalise_pci_address(path.parent.name),
            )
        )
    return devices
