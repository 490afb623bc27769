"""Identity of the GPUs that NVML lists.

NVML numbers all GPUs of the machine, whatever ``CUDA_VISIBLE_DEVICES`` says: join with torch by UUID, not by index.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from chipperf import ProbedDevice
from chipperf.hardware import normalise_pci_address


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """What NVML says about the machine.

    Attributes:
        driver_version: Version of the kernel driver.
        devices: GPUs that answered.
        faults: One message for each GPU that did not, with its index.
    """

    driver_version: str
    devices: tuple[ProbedDevice, ...]
    faults: tuple[str, ...]


def read_inventory() -> Inventory:
    """List the machine's GPUs; NVML is initialised for this call and shut down again.

    Raises:
        ImportError: ``nvidia-ml-py`` is missing.
        pynvml.NVMLError: NVML's library is missing or does not accept the loaded driver.
    """
    pynvml = importlib.import_module("pynvml")
    pynvml.nvmlInit()
    try:
        devices = []
        faults = []
        for index in range(pynvml.nvmlDeviceGetCount()):
            try:
                devices.append(_read_device(pynvml, index))
            except pynvml.NVMLError as error:
                faults.append(f"GPU {index}: {error}")
        return Inventory(
            driver_version=_text(pynvml.nvmlSystemGetDriverVersion()), devices=tuple(devices), faults=tuple(faults)
        )
    finally:
        pynvml.nvmlShutdown()


def _read_device(pynvml: Any, index: int) -> ProbedDevice:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    try:
        # Parts that share the host's memory report no memory of their own: an error, or 0.
        total_bytes = int(pynvml.nvmlDeviceGetMemoryInfo(handle).total) or None
    except pynvml.NVMLError:
        total_bytes = None
    return ProbedDevice(
        index=index,
        name=_text(pynvml.nvmlDeviceGetName(handle)),
        uuid=_text(pynvml.nvmlDeviceGetUUID(handle)),
        pci_bus_id=normalise_pci_address(_text(pynvml.nvmlDeviceGetPciInfo(handle).busId)),
        total_bytes=total_bytes,
    )


def _text(value: str | bytes) -> str:
    # Releases of nvidia-ml-py before 11.515 return bytes.
    return value.decode(errors="replace") if isinstance(value, bytes) else value
