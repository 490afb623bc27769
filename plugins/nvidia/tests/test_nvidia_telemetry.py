"""Readings of NVML: units, what is unknown, and a library that fails or hangs."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from chipperf import DeviceError, DeviceInfo, TelemetrySample
from chipperf_nvidia import nvml as nvml_module
from chipperf_nvidia.plugin import perf_telemetry
from fake_nvml import FakeGpu, h200, mig
from support import wait_for

if TYPE_CHECKING:
    from conftest import InstallNvml


def info(gpu: FakeGpu) -> DeviceInfo:
    return DeviceInfo(index=0, name=gpu.name, uuid=gpu.uuid)


@pytest.mark.parametrize("encode", [False, True], ids=["str", "bytes"])
def test_units_are_normalized(install_nvml: InstallNvml, encode: bool) -> None:
    gpu = h200(0)
    install_nvml(gpu, encode=encode)
    assert perf_telemetry(info(gpu)) == TelemetrySample(
        source="NVML 12.570.86.15",
        power_w=412.345,
        temperature_c=61.0,
        utilization_percent=97.0,
        memory_used_bytes=2 * 2**30,
        clock_mhz=1980.0,
    )


def test_gpu_is_found_by_uuid_whatever_its_index(install_nvml: InstallNvml) -> None:
    install_nvml(h200(0, power_mw=100_000), h200(1, power_mw=200_000))
    assert perf_telemetry(info(h200(1))).power_w == 200.0


@pytest.mark.parametrize(
    ("unsupported", "field"),
    [
        ("power_mw", "power_w"),
        ("temperature_c", "temperature_c"),
        ("utilization", "utilization_percent"),
        ("clock_mhz", "clock_mhz"),
        ("total_bytes", "memory_used_bytes"),
    ],
)
def test_unsupported_reading_is_unknown_and_the_others_stay(
    install_nvml: InstallNvml, unsupported: str, field: str
) -> None:
    gpu = h200(0, **{unsupported: None})
    install_nvml(gpu)
    sample = perf_telemetry(info(gpu))
    values = {name: getattr(sample, name) for name in sample.__slots__}
    assert [name for name, value in values.items() if value is None] == [field]


def test_idle_gpu_reads_zero_not_unknown(install_nvml: InstallNvml) -> None:
    gpu = h200(0, utilization=0, used_bytes=0)
    install_nvml(gpu)
    sample = perf_telemetry(info(gpu))
    assert (sample.utilization_percent, sample.memory_used_bytes) == (0.0, 0)


def test_old_driver_knows_only_memory_with_its_reserve(install_nvml: InstallNvml) -> None:
    gpu = h200(0)
    install_nvml(gpu).knows_memory_v2 = False
    assert perf_telemetry(info(gpu)).memory_used_bytes == 2 * 2**30 + 600 * 2**20


def test_mig_instance_has_its_own_memory_and_its_gpus_temperature(install_nvml: InstallNvml) -> None:
    instance = mig(1, used_bytes=2**30, temperature_c=None, clock_mhz=None)
    install_nvml(h200(0, temperature_c=55, clock_mhz=1700, instances=[mig(0), instance]))
    sample = perf_telemetry(info(instance))
    assert (sample.memory_used_bytes, sample.temperature_c, sample.clock_mhz) == (2**30, 55.0, 1700.0)
    assert (sample.power_w, sample.utilization_percent) == (None, None)


def test_library_is_opened_once(install_nvml: InstallNvml) -> None:
    gpu = h200(0)
    nvml = install_nvml(gpu)
    for _ in range(3):
        perf_telemetry(info(gpu))
    assert nvml.users == 1


def test_lost_gpu_is_named(install_nvml: InstallNvml) -> None:
    gpu = h200(0, lost=True)
    install_nvml(gpu)
    with pytest.raises(DeviceError, match=f"{gpu.uuid}: Not Found"):
        perf_telemetry(info(gpu))


def test_gpu_lost_while_it_is_read_is_named_with_a_remedy(install_nvml: InstallNvml) -> None:
    gpu = h200(0)
    nvml = install_nvml(gpu)
    nvml.broken["nvmlDeviceGetPowerUsage"] = nvml.error("GpuIsLost", "GPU is lost")
    with pytest.raises(DeviceError, match=f"{gpu.uuid}: GPU is lost") as caught:
        perf_telemetry(info(gpu))
    assert "Xid 79" in (caught.value.hint or "")


def test_broken_sensor_costs_no_other_reading(install_nvml: InstallNvml) -> None:
    nvml = install_nvml(h200(0))
    nvml.broken["nvmlDeviceGetPowerUsage"] = nvml.error("Unknown", "Unknown Error")
    sample = perf_telemetry(info(h200(0)))
    assert (sample.power_w, sample.temperature_c, sample.utilization_percent) == (None, 61.0, 97.0)


@pytest.mark.parametrize("kind", ["NotSupported", "Unknown"])
def test_version_that_is_not_told_costs_no_reading(install_nvml: InstallNvml, kind: str) -> None:
    nvml = install_nvml(h200(0))
    nvml.broken["nvmlSystemGetNVMLVersion"] = nvml.error(kind)
    sample = perf_telemetry(info(h200(0)))
    assert (sample.source, sample.temperature_c) == ("NVML", 61.0)


def test_device_without_uuid_is_refused() -> None:
    with pytest.raises(DeviceError, match="no UUID"):
        perf_telemetry(DeviceInfo(index=0, name="NVIDIA H200"))


def test_hanging_gpu_is_asked_again_when_it_has_answered_and_another_answers_meanwhile(
    install_nvml: InstallNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck, healthy = h200(0), h200(1)
    nvml = install_nvml(stuck, healthy)
    calls = []
    release = threading.Event()

    def read_temperature(gpu: FakeGpu, sensor: int) -> int:
        calls.append(gpu.uuid)
        if gpu is stuck:
            release.wait()
        return 40

    monkeypatch.setattr(nvml, "nvmlDeviceGetTemperature", read_temperature)
    for limit in ("START_TIMEOUT_S", "_SAMPLE_TIMEOUT_S"):
        monkeypatch.setattr(f"chipperf_nvidia.nvml.{limit}", 0.5)
    for _ in range(2):
        with pytest.raises(DeviceError, match="did not answer"):
            perf_telemetry(info(stuck))
    assert perf_telemetry(info(healthy)).temperature_c == 40.0
    assert calls == [stuck.uuid, healthy.uuid]
    release.set()
    wait_for(lambda: not nvml_module._asked)
    assert perf_telemetry(info(stuck)).temperature_c == 40.0
