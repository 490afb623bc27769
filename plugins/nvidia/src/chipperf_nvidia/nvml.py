"""What NVML, NVIDIA's management library, says: identity, driver, memory, and readings of a running GPU.

NVML numbers all GPUs of the machine by PCI address, whatever ``CUDA_VISIBLE_DEVICES`` says, and divides a GPU into MIG
instances that have UUIDs of their own. torch's devices are therefore found by UUID, never by index.
"""

from __future__ import annotations

import functools
import importlib
import re
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from chipperf import DeviceError, ProbedDevice, TelemetrySample, hookimpl, read_variables
from chipperf.hardware import call_bounded, distribution_version, normalize_pci_address

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chipperf import DeviceInfo

START_TIMEOUT_S: Final = 35.0
"""Longest start: without persistence mode, NVML's first user waits until the driver has started up to eight GPUs."""

_GPU_TIMEOUT_S = 10.0
_SLOW_START_S = 3.0
_SAMPLE_TIMEOUT_S = 2.0
_FAULTS: Final = read_variables(Path(__file__).with_name("faults.toml")).meanings
_VIRTUAL_GPU: Final = re.compile(r"-\d+[ABCQ](?:ME)?$")
_asked: set[str] = set()
"""GPUs that have not yet answered. A call that hangs keeps its thread, so no second one is made until it returns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A GPU with its place in NVML's list, or a MIG instance, whose PCI address is that of its GPU.

    Attributes:
        device: Identity.
        instances: MIG instances; ``None`` if the GPU is not in MIG mode.
        legacy_uuid: The name of an instance before R470, ``MIG-GPU-<UUID>/<GPU instance>/<compute instance>``.
    """

    device: ProbedDevice
    instances: tuple[Gpu, ...] | None = None
    legacy_uuid: str = ""

    @property
    def mig_instances(self) -> tuple[Gpu, ...]:
        """The instances of a GPU, or the instance itself."""
        return (self,) if self.legacy_uuid else self.instances or ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """What NVML says about the machine: the GPUs that answered, by PCI address, and a message about every fault."""

    driver_version: str | None
    gpus: tuple[Gpu, ...]
    faults: tuple[str, ...]


Memory = tuple[int | None, int | None]
"""Bytes in use and capacity of a GPU or MIG instance; ``None`` is unknown."""


class Nvml:
    """NVML, initialized; calls go by their names without ``nvml``. ``misfits`` is what failed in Python, not in NVML.

    To make one raises ``ImportError`` without ``nvidia-ml-py``, and ``pynvml.NVMLError`` if NVML's library is missing
    or does not accept the loaded driver.
    """

    def __init__(self) -> None:
        self.module: Any = importlib.import_module("pynvml")
        self.module.nvmlInit()
        self.misfits: dict[str, None] = {}

    def get(self, call: str, *arguments: object, **named: object) -> Any:
        """Return what a call returns."""
        return _text(getattr(self.module, f"nvml{call}")(*arguments, **named))

    def find(self, call: str, *arguments: object, **named: object) -> Any:
        """Return what a call returns, or ``None`` if it is not supported here; the error of a lost GPU is raised."""
        try:
            return self.get(call, *arguments, **named)
        except Exception as error:
            if call.startswith("Device") and type(error).__name__ in _FAULTS["card"]:
                raise
            if is_python_fault(error):
                self.misfits[explain(error)] = None
            return None


@contextmanager
def opened() -> Iterator[Nvml]:
    """Give NVML, which counts its users, so that this may nest."""
    nvml = Nvml()
    try:
        yield nvml
    finally:
        # A lost GPU may fail or hang here too, after all others have answered.
        with suppress(Exception):
            call_bounded(nvml.module.nvmlShutdown, timeout_s=_SAMPLE_TIMEOUT_S)


@functools.cache
def open_for_good() -> Nvml:
    """Give NVML, initialized until the process ends; for readings that are often repeated."""
    return Nvml()


def is_python_fault(error: BaseException) -> bool:
    """Return True for an error of the Python module itself, which is none of NVML's and no time limit."""
    return not isinstance(error, TimeoutError) and all(each.__name__ != "NVMLError" for each in type(error).__mro__)


def explain(error: BaseException) -> str:
    """Say what failed, in NVML's words, and what to do."""
    if is_python_fault(error):
        file, old = getattr(sys.modules.get("pynvml"), "__file__", "pynvml"), distribution_version("pynvml")
        which = f"{file} (pynvml {old})" if old else file
        return f"{type(error).__name__} in {which}: {error}; {_FAULTS['other']['python']}"
    remedies = {**_FAULTS["library"], **_FAULTS["card"]}
    return f"{error}; {remedies.get(type(error).__name__, _FAULTS['other']['nvml'])}"


def take_inventory(*, timeout_s: float = 5.0) -> Inventory:
    """List the machine's GPUs and their MIG instances; for the errors see :class:`Nvml`.

    No answer in time is a ``TimeoutError``. Within a worker, CUDA has started the driver already.
    """
    return call_bounded(_read_inventory, timeout_s=timeout_s)


def _read_inventory() -> Inventory:
    gpus, faults = [], []
    faulty: dict[str, list[str]] = {}
    started_s = time.monotonic()
    with opened() as nvml:
        took_s = time.monotonic() - started_s
        if took_s > _SLOW_START_S:
            faults.append(_FAULTS["other"]["slow"].format(seconds=took_s))
        for index in range(nvml.get("DeviceGetCount")):
            try:
                gpus.append(call_bounded(functools.partial(_read_gpu, nvml, index), timeout_s=_GPU_TIMEOUT_S))
            except Exception as error:  # One faulty GPU does not hide the others.
                name = _describe_cached(nvml, index) if type(error).__name__ in _FAULTS["card"] else ""
                faulty.setdefault(explain(error), []).append(f"{index}{name}")
        driver_version = nvml.find("SystemGetDriverVersion")
        faults += [*(f"GPU {', '.join(which)}: {why}" for why, which in faulty.items()), *nvml.misfits]
    return Inventory(driver_version=driver_version, gpus=tuple(gpus), faults=tuple(faults))


def _describe_cached(nvml: Nvml, index: int) -> str:
    with suppress(Exception):
        handle = nvml.get("DeviceGetHandleByIndex", index)
        identity = f"{nvml.get('DeviceGetName', handle)} {nvml.get('DeviceGetUUID', handle)}"
        return f" ({identity}, which NVML knows from its cache only)"
    return ""


def find_handle(nvml: Nvml, uuid: str) -> Any:
    """Return NVML's handle of the GPU or MIG instance with this UUID, or raise a :class:`DeviceError`."""
    try:
        return nvml.get("DeviceGetHandleByUUID", uuid)
    except Exception as error:
        raise _unreachable(uuid, error) from error


def read_memory(nvml: Nvml, handle: Any) -> Memory:
    """Read memory; use is everybody's without the driver's reserve, as ``nvidia-smi`` shows it."""
    newer = getattr(nvml.module, "nvmlMemory_v2", None)
    memory = newer and nvml.find("DeviceGetMemoryInfo", handle, version=newer)
    # Drivers before R510, and older bindings, know this form only, whose use includes the reserve.
    memory = memory or nvml.find("DeviceGetMemoryInfo", handle)
    # Parts that share the host's memory report no memory of their own: an error, or 0.
    return (int(memory.used), int(memory.total)) if memory and memory.total else (None, None)


def read_memory_of(uuid: str) -> tuple[Memory, str]:
    """Return the memory of the GPU or MIG instance with this UUID, and the source; an error if it is unknown."""

    def read() -> tuple[Memory, str]:
        with opened() as nvml:
            memory = read_memory(nvml, find_handle(nvml, uuid))
            if memory[1] is None:
                raise DeviceError(f"NVML does not tell the memory of {uuid}")
            return memory, source(nvml)

    return call_bounded(read)


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
    starts = not _asked and not open_for_good.cache_info().currsize
    timeout_s = START_TIMEOUT_S if starts else _SAMPLE_TIMEOUT_S
    if uuid not in _asked:
        _asked.add(uuid)
        with suppress(TimeoutError):
            return call_bounded(lambda: _answer(uuid), timeout_s=timeout_s)
    raise DeviceError(
        f"NVML did not answer for {uuid} within {timeout_s:g} s, and is asked again when it has",
        hint="dmesg names GPUs that were lost",
    )


def source(nvml: Nvml) -> str:
    """Return NVML's name, with the version of its library if that is known."""
    return " ".join(filter(None, ("NVML", nvml.find("SystemGetNVMLVersion"))))


def part_of(name: str) -> str | None:
    """Return what part of a GPU has this name: a MIG instance, or the share of a virtual machine (vGPU)."""
    instance = re.search(r"\bMIG \S+", name)
    return instance[0] if instance else "vGPU" if _VIRTUAL_GPU.search(name) else None


def _answer(uuid: str) -> TelemetrySample:
    try:
        return _read_sample(uuid)
    except DeviceError:
        raise
    except Exception as error:
        raise _unreachable(uuid, error) from error
    finally:
        _asked.discard(uuid)


def _unreachable(uuid: str, error: Exception) -> DeviceError:
    problem, _, remedy = explain(error).partition("; ")
    return DeviceError(f"NVML cannot reach {uuid}: {problem}", hint=remedy)


def _read_sample(uuid: str) -> TelemetrySample:
    nvml = open_for_good()
    handle = find_handle(nvml, uuid)
    is_instance = uuid.startswith("MIG-")
    gpu = nvml.get("DeviceGetDeviceHandleFromMigDeviceHandle", handle) if is_instance else handle
    sensors = _read_sensors(nvml, gpu)
    if is_instance:
        sensors |= {"power_w": None, "utilization_percent": None}
    return TelemetrySample(source=source(nvml), memory_used_bytes=read_memory(nvml, handle)[0], **sensors)


def _read_sensors(nvml: Nvml, gpu: Any) -> dict[str, float | None]:
    power_mw, rates = (nvml.find(f"DeviceGet{what}", gpu) for what in ("PowerUsage", "UtilizationRates"))
    return {
        "power_w": None if power_mw is None else power_mw / 1000,
        "temperature_c": nvml.find("DeviceGetTemperature", gpu, nvml.module.NVML_TEMPERATURE_GPU),
        "utilization_percent": rates and rates.gpu,
        "clock_mhz": nvml.find("DeviceGetClockInfo", gpu, nvml.module.NVML_CLOCK_SM),
    }


def _read_gpu(nvml: Nvml, index: int) -> Gpu:
    handle = nvml.get("DeviceGetHandleByIndex", index)
    device = _read_identity(nvml, handle, index)
    # A GPU that is lost has its name and UUID in NVML's cache, and fails here.
    _read_sensors(nvml, handle)
    mode = nvml.find("DeviceGetMigMode", handle)
    is_divided = mode is not None and mode[0] == nvml.module.NVML_DEVICE_MIG_ENABLE
    return Gpu(device=device, instances=tuple(_read_instances(nvml, handle, device)) if is_divided else None)


def _read_identity(nvml: Nvml, handle: Any, index: int, gpu: ProbedDevice | None = None) -> ProbedDevice:
    """Return a GPU, or a MIG instance of ``gpu``."""
    name, uuid = (nvml.get(f"DeviceGet{what}", handle) for what in ("Name", "UUID"))
    address = gpu.pci_bus_id if gpu else normalize_pci_address(_text(nvml.get("DeviceGetPciInfo", handle).busId))
    total_bytes, part = read_memory(nvml, handle)[1], part_of(name) or ("MIG instance" if gpu else None)
    return ProbedDevice(index=index, name=name, uuid=uuid, pci_bus_id=address, total_bytes=total_bytes, part=part)


def _read_instances(nvml: Nvml, gpu_handle: Any, gpu: ProbedDevice) -> Iterator[Gpu]:
    for slot in range(nvml.find("DeviceGetMaxMigDeviceCount", gpu_handle) or 0):
        # Most slots are empty: a GPU has fewer instances than it could have.
        handle = nvml.find("DeviceGetMigDeviceHandleByIndex", gpu_handle, slot)
        if handle is not None:
            ids = [nvml.get(f"DeviceGet{kind}InstanceId", handle) for kind in ("Gpu", "Compute")]
            device = _read_identity(nvml, handle, slot, gpu)
            yield Gpu(device=device, legacy_uuid=f"MIG-{gpu.uuid}/{ids[0]}/{ids[1]}")


def _text(value: Any) -> Any:
    # Releases of nvidia-ml-py before 11.515 return bytes.
    return value.decode(errors="replace") if isinstance(value, bytes) else value
