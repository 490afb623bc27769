"""A FAKE ``pynvml``: enough of NVML for the plugin, over GPUs that a test makes up."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import ModuleType, SimpleNamespace
from typing import Any


@dataclass(eq=False)
class FakeGpu:
    """A GPU or MIG instance; a reading that is ``None`` is not supported. NVML's units: mW, °C, %, MHz, bytes."""

    name: str = "NVIDIA H200"
    uuid: str = "GPU-00000000-0000-0000-0000-000000000001"
    bus: str = "00000000:1B:00.0"
    total_bytes: int | None = 150_754_820_096
    used_bytes: int = 2 * 2**30
    reserved_bytes: int = 600 * 2**20
    power_mw: int | None = 412_345
    temperature_c: int | None = 61
    utilization: int | None = 97
    clock_mhz: int | None = 1980
    lost: bool = False
    instances: list[FakeGpu] | None = None
    ids: tuple[int, int] = (0, 0)


def h200(number: int, **changes: Any) -> FakeGpu:
    gpu = FakeGpu(uuid=f"GPU-{number:08d}-0000-0000-0000-000000000000", bus=f"00000000:{0x1B + number:02X}:00.0")
    return replace(gpu, **changes)


def mig(number: int, **changes: Any) -> FakeGpu:
    instance = FakeGpu(
        name="NVIDIA H200 MIG 1g.18gb",
        uuid=f"MIG-{number:08d}-0000-0000-0000-00000000000a",
        total_bytes=16 * 2**30,
        power_mw=None,
        utilization=None,
        ids=(number, 0),
    )
    return replace(instance, **changes)


@dataclass
class FakeMemory:
    total: int
    used: int
    free: int


class FakeNvml(ModuleType):
    """The module; its handles are the :class:`FakeGpu` objects themselves.

    ``broken`` has the exception that a call raises, for all GPUs or (call, bus address) for one.
    """

    NVML_DEVICE_MIG_ENABLE = 1
    NVML_TEMPERATURE_GPU = 0
    NVML_CLOCK_SM = 1
    nvmlMemory_v2 = 0x02000028

    class NVMLError(Exception):
        """What every failing NVML call raises."""

    def __init__(self, *gpus: FakeGpu, encode: bool = False) -> None:
        super().__init__("pynvml")
        self.gpus = gpus
        self.encode = encode
        self.users = 0
        self.init_error: Exception | None = None
        self.broken: dict[str | tuple[str, str], Exception] = {}
        self.knows_memory_v2 = True

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        broken = super().__getattribute__("__dict__").get("broken")
        if not broken or not name.startswith("nvml") or not callable(found):
            return found

        def call(*arguments: Any, **named: Any) -> Any:
            bus = getattr(arguments[0], "bus", "") if arguments else ""
            error = broken.get(name) or broken.get((name, bus))
            if error:
                raise error
            return found(*arguments, **named)

        return call

    def error(self, kind: str, words: str = "") -> Exception:
        """Return an error as pynvml raises it, for example of the kind ``GpuIsLost``."""
        return type(f"NVMLError_{kind}", (self.NVMLError,), {})(words or kind)

    def _text(self, value: str) -> str | bytes:
        return value.encode() if self.encode else value

    def _reading(self, value: int | None) -> int:
        if value is None:
            raise self.NVMLError("Not Supported")
        return value

    def _everything(self) -> list[FakeGpu]:
        return [item for gpu in self.gpus for item in (gpu, *(gpu.instances or ()))]

    def nvmlInit(self) -> None:
        if self.init_error:
            raise self.init_error
        self.users += 1

    def nvmlShutdown(self) -> None:
        self.users -= 1

    def nvmlSystemGetDriverVersion(self) -> str | bytes:
        return self._text("570.86.15")

    def nvmlSystemGetNVMLVersion(self) -> str | bytes:
        return self._text("12.570.86.15")

    def nvmlDeviceGetCount(self) -> int:
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeGpu:
        if self.gpus[index].lost:
            raise self.NVMLError("GPU is lost")
        return self.gpus[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> FakeGpu:
        for item in self._everything():
            if item.uuid == uuid and not item.lost:
                return item
        raise self.NVMLError("Not Found")

    def nvmlDeviceGetName(self, gpu: FakeGpu) -> str | bytes:
        return self._text(gpu.name)

    def nvmlDeviceGetUUID(self, gpu: FakeGpu) -> str | bytes:
        return self._text(gpu.uuid)

    def nvmlDeviceGetPciInfo(self, gpu: FakeGpu) -> SimpleNamespace:
        return SimpleNamespace(busId=self._text(gpu.bus))

    def nvmlDeviceGetMemoryInfo(self, gpu: FakeGpu, version: int | None = None) -> FakeMemory:
        if version and not self.knows_memory_v2:
            raise self.NVMLError("Function Not Found")
        total = self._reading(gpu.total_bytes)
        reserved = 0 if version else gpu.reserved_bytes
        return FakeMemory(total=total, used=gpu.used_bytes + reserved, free=total - gpu.used_bytes - gpu.reserved_bytes)

    def nvmlDeviceGetMigMode(self, gpu: FakeGpu) -> list[int]:
        mode = 0 if gpu.instances is None else self.NVML_DEVICE_MIG_ENABLE
        return [mode, mode]

    def nvmlDeviceGetMaxMigDeviceCount(self, gpu: FakeGpu) -> int:
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, gpu: FakeGpu, slot: int) -> FakeGpu:
        if gpu.instances is None or slot >= len(gpu.instances):
            raise self.NVMLError("Not Found")
        return gpu.instances[slot]

    def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self, instance: FakeGpu) -> FakeGpu:
        return next(gpu for gpu in self.gpus if instance in (gpu.instances or ()))

    def nvmlDeviceGetGpuInstanceId(self, instance: FakeGpu) -> int:
        return instance.ids[0]

    def nvmlDeviceGetComputeInstanceId(self, instance: FakeGpu) -> int:
        return instance.ids[1]

    def nvmlDeviceGetPowerUsage(self, gpu: FakeGpu) -> int:
        return self._reading(gpu.power_mw)

    def nvmlDeviceGetTemperature(self, gpu: FakeGpu, sensor: int) -> int:
        return self._reading(gpu.temperature_c)

    def nvmlDeviceGetUtilizationRates(self, gpu: FakeGpu) -> SimpleNamespace:
        return SimpleNamespace(gpu=self._reading(gpu.utilization), memory=12)

    def nvmlDeviceGetClockInfo(self, gpu: FakeGpu, clock: int) -> int:
        return self._reading(gpu.clock_mhz if clock == self.NVML_CLOCK_SM else None)
