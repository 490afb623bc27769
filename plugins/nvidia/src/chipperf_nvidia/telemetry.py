"""Readings of a running GPU from NVML, without torch."""

from __future__ import annotations

from typing import Any

from chipperf import DeviceError, DeviceInfo, TelemetrySample
from chipperf.hardware import call_bounded

from chipperf_nvidia.nvml import find_handle, open_for_good, read_memory, value_or_none, version

_TIMEOUT_S = 2.0
_unresponsive: set[str] = set()


def read_sample(device: DeviceInfo) -> TelemetrySample:
    """Read a GPU or MIG instance, found by its UUID.

    NVML's units are milliwatts, degrees Celsius, percent, bytes and megahertz. A MIG instance has memory of its own;
    temperature and clock are those of its GPU, and power and utilisation, which NVML tells for the whole GPU only, stay
    unknown.

    Raises:
        DeviceError: The device has no UUID, or NVML does not reach it or does not answer.
    """
    uuid = device.uuid
    if uuid is None:
        raise DeviceError(f"{device.name} has no UUID to find it by", hint="torch 2.4 and later tell it")
    # A call that hangs keeps its thread, so no second one is made.
    if uuid not in _unresponsive:
        try:
            return call_bounded(lambda: _read(uuid), timeout_s=_TIMEOUT_S)
        except TimeoutError:
            _unresponsive.add(uuid)
    raise DeviceError(
        f"NVML did not answer for {uuid} within {_TIMEOUT_S:g} s and is not asked again",
        hint="dmesg names GPUs that were lost",
    )


def _read(uuid: str) -> TelemetrySample:
    nvml = open_for_good()
    handle = find_handle(nvml, uuid)
    is_instance = uuid.startswith("MIG-")
    gpu = nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle) if is_instance else handle
    return TelemetrySample(
        source=f"NVML {version(nvml)}",
        power_w=None if is_instance else _power_w(nvml, gpu),
        temperature_c=_number(nvml, lambda: nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU)),
        utilisation_percent=None if is_instance else _number(nvml, lambda: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu),
        memory_used_bytes=read_memory(nvml, handle).used_bytes,
        clock_mhz=_number(nvml, lambda: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM)),
    )


def _power_w(nvml: Any, handle: Any) -> float | None:
    milliwatts = _number(nvml, lambda: nvml.nvmlDeviceGetPowerUsage(handle))
    return None if milliwatts is None else milliwatts / 1000


def _number(nvml: Any, read: Any) -> float | None:
    value = value_or_none(nvml, read)
    return None if value is None else float(value)
