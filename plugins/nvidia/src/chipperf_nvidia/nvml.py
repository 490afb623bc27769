"""What NVML, NVIDIA's management library, says: identity, driver, memory, and readings of a running GPU.

NVML numbers all GPUs of the machine by PCI address, whatever ``CUDA_VISIBLE_DEVICES`` says, and divides a GPU into MIG
instances that have UUIDs of their own. torch's devices are therefore found by UUID, never by index.
"""

from __future__ import annotations

import functools
import importlib
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chipperf import DeviceError, ProbedDevice, TelemetrySample, hookimpl
from chipperf.hardware import call_bounded, normalize_pci_address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from chipperf import DeviceInfo

_SAMPLE_TIMEOUT_S = 2.0
_asked: set[str] = set()
"""GPUs that have not yet answered. A call that hangs keeps its thread, so no second one is made until it returns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MigInstance:
    """A MIG instance.

    Attributes:
        device: Its identity; the PCI address is that of its GPU.
        legacy_uuid: The name drivers before R470 gave it: ``MIG-GPU-<UUID>/<GPU instance>/<compute instance>``.
    """

    device: ProbedDevice
    legacy_uuid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A GPU with its place in NVML's list.

    Attributes:
        device: Identity.
        instances: MIG instances; ``None`` if the GPU is not in MIG mode.
    """

    device: ProbedDevice
    instances: tuple[MigInstance, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """What NVML says about the machine.

    Attributes:
        driver_version: Version of the kernel driver.
        gpus: GPUs that answered, by PCI address.
        faults: One message for each GPU that did not, with its index.
    """

    driver_version: str
    gpus: tuple[Gpu, ...]
    faults: tuple[str, ...]


Memory = tuple[int | None, int | None]
"""Bytes in use and capacity of a GPU or MIG instance; ``None`` is unknown."""


@contextmanager
def opened() -> Iterator[Any]:
    """Give the ``pynvml`` module with NVML initialized; NVML counts its users, so this may nest.

    Raises:
        ImportError: ``nvidia-ml-py`` is missing.
        pynvml.NVMLError: NVML's library is missing or does not accept the loaded driver.
    """
    pynvml = importlib.import_module("pynvml")
    pynvml.nvmlInit()
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


@functools.cache
def open_for_good() -> Any:
    """Give the ``pynvml`` module with NVML initialized until the process ends; for readings that are often repeated.

    Raises:
        ImportError: ``nvidia-ml-py`` is missing.
        pynvml.NVMLError: NVML's library is missing or does not accept the loaded driver.
    """
    pynvml = importlib.import_module("pynvml")
    pynvml.nvmlInit()
    return pynvml


def read_inventory() -> Inventory:
    """List the machine's GPUs and their MIG instances.

    Raises:
        ImportError: ``nvidia-ml-py`` is missing.
        pynvml.NVMLError: NVML's library is missing or does not accept the loaded driver.
    """
    gpus = []
    faults = []
    with opened() as pynvml:
        for index in range(pynvml.nvmlDeviceGetCount()):
            try:
                gpus.append(_read_gpu(pynvml, index))
            except pynvml.NVMLError as error:
                faults.append(f"GPU {index}: {error}")
        driver_version = _text(pynvml.nvmlSystemGetDriverVersion())
    return Inventory(driver_version=driver_version, gpus=tuple(gpus), faults=tuple(faults))


def find_handle(pynvml: Any, uuid: str) -> Any:
    """Return NVML's handle of the GPU or MIG instance with this UUID.

    Raises:
        DeviceError: NVML does not list it, or it no longer answers.
    """
    try:
        return pynvml.nvmlDeviceGetHandleByUUID(uuid)
    except pynvml.NVMLError as error:
        raise DeviceError(
            f"NVML cannot reach {uuid}: {error}", hint="nvidia-smi -L lists the GPUs; dmesg names those that were lost"
        ) from error


def read_memory(pynvml: Any, handle: Any) -> Memory:
    """Read memory; use is everybody's without the driver's reserve, as ``nvidia-smi`` shows it."""
    memory = _value(pynvml, lambda: pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2))
    if memory is None:
        # Drivers before R510 know this form only, whose use includes the reserve.
        memory = _value(pynvml, lambda: pynvml.nvmlDeviceGetMemoryInfo(handle))
    # Parts that share the host's memory report no memory of their own: an error, or 0.
    if memory is None or not memory.total:
        return None, None
    return int(memory.used), int(memory.total)


@hookimpl
def perf_telemetry(device: DeviceInfo) -> TelemetrySample:
    """Read a GPU or MIG instance, found by its UUID.

    NVML's units are milliwatts, degrees Celsius, percent, bytes and megahertz. A MIG instance has memory of its own;
    temperature and clock are those of its GPU, and power and utilization, which NVML tells for the whole GPU only, stay
    unknown.

    Raises:
        DeviceError: The device has no UUID, or NVML does not reach it or does not answer.
    """
    uuid = device.uuid
    if uuid is None:
        raise DeviceError(f"{device.name} has no UUID to find it by", hint="torch 2.4 and later tell it")
    if uuid not in _asked:
        _asked.add(uuid)
        with suppress(TimeoutError):
            return call_bounded(lambda: _answer(uuid), timeout_s=_SAMPLE_TIMEOUT_S)
    raise DeviceError(
        f"NVML did not answer for {uuid} within {_SAMPLE_TIMEOUT_S:g} s, and is asked again when it has",
        hint="dmesg names GPUs that were lost",
    )


def version(pynvml: Any) -> str:
    """Return the version of NVML's library."""
    return _text(pynvml.nvmlSystemGetNVMLVersion())


def _answer(uuid: str) -> TelemetrySample:
    try:
        return _read_sample(uuid)
    finally:
        _asked.discard(uuid)


def _read_sample(uuid: str) -> TelemetrySample:
    nvml = open_for_good()
    handle = find_handle(nvml, uuid)
    is_instance = uuid.startswith("MIG-")
    gpu = nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle) if is_instance else handle
    return TelemetrySample(
        source=f"NVML {version(nvml)}",
        power_w=None if is_instance else _number(nvml, lambda: nvml.nvmlDeviceGetPowerUsage(gpu) / 1000),
        temperature_c=_number(nvml, lambda: nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU)),
        utilization_percent=None if is_instance else _number(nvml, lambda: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu),
        memory_used_bytes=read_memory(nvml, handle)[0],
        clock_mhz=_number(nvml, lambda: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM)),
    )


def _number(nvml: Any, read: Any) -> float | None:
    value = _value(nvml, read)
    return None if value is None else float(value)


def _read_gpu(pynvml: Any, index: int) -> Gpu:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    device = ProbedDevice(
        index=index,
        name=_text(pynvml.nvmlDeviceGetName(handle)),
        uuid=_text(pynvml.nvmlDeviceGetUUID(handle)),
        pci_bus_id=normalize_pci_address(_text(pynvml.nvmlDeviceGetPciInfo(handle).busId)),
        total_bytes=read_memory(pynvml, handle)[1],
    )
    mode = _value(pynvml, lambda: pynvml.nvmlDeviceGetMigMode(handle)[0])
    if mode != pynvml.NVML_DEVICE_MIG_ENABLE:
        return Gpu(device=device)
    return Gpu(device=device, instances=tuple(_read_instances(pynvml, handle, device)))


def _read_instances(pynvml: Any, gpu_handle: Any, gpu: ProbedDevice) -> Iterator[MigInstance]:
    for slot in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(gpu_handle)):
        try:
            handle = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu_handle, slot)
        except pynvml.NVMLError:
            # Most slots are empty: a GPU has fewer instances than it could have.
            continue
        ids = (pynvml.nvmlDeviceGetGpuInstanceId(handle), pynvml.nvmlDeviceGetComputeInstanceId(handle))
        device = ProbedDevice(
            index=slot,
            name=_text(pynvml.nvmlDeviceGetName(handle)),
            uuid=_text(pynvml.nvmlDeviceGetUUID(handle)),
            pci_bus_id=gpu.pci_bus_id,
            total_bytes=read_memory(pynvml, handle)[1],
        )
        yield MigInstance(device=device, legacy_uuid=f"MIG-{gpu.uuid}/{ids[0]}/{ids[1]}")


def _value(pynvml: Any, read: Callable[[], Any]) -> Any:
    """Return what ``read`` returns, or ``None`` if NVML does not support it on this device."""
    try:
        return read()
    except pynvml.NVMLError:
        return None


def _text(value: str | bytes) -> str:
    # Releases of nvidia-ml-py before 11.515 return bytes.
    return value.decode(errors="replace") if isinstance(value, bytes) else value
