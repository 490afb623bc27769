"""The NVIDIA probe against fake machines and a fake NVML."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

import pytest
from chipperf.plugin.probe_process import PROBE_TIMEOUT_S
from chipperf_nvidia.nvml import START_TIMEOUT_S
from chipperf_nvidia.plugin import perf_tool_commands
from chipperf_nvidia.probe import probe, read_driver_version
from fake_nvml import FakeGpu, h200, mig

if TYPE_CHECKING:
    from conftest import InstallNvml
    from fake_machine import FakeMachine

H200 = FakeGpu()
VERSION_FILE = (
    "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build  (builder)\n"
    "GCC version:  gcc version 12.2.0\n"
)


@pytest.mark.parametrize("encode", [False, True], ids=["str", "bytes"])
def test_gpu_is_found_and_nvml_shut_down(machine: FakeMachine, install_nvml: InstallNvml, encode: bool) -> None:
    machine.add_pci("0000:1b:00.0", 0x10DE, 0x2335)
    nvml = install_nvml(H200, encode=encode)
    result = probe(machine.root)
    (device,) = result.devices
    assert (device.index, device.name, device.uuid) == (0, "NVIDIA H200", H200.uuid)
    assert (device.pci_bus_id, device.total_bytes) == ("0000:1b:00.0", H200.total_bytes)
    assert result.driver_version == "570.86.15"
    assert nvml.users == 0


@pytest.mark.parametrize("total_bytes", [0, None], ids=["zero", "unsupported"])
def test_unified_memory_is_unknown_not_zero(
    machine: FakeMachine, install_nvml: InstallNvml, total_bytes: int | None
) -> None:
    machine.add_pci("0000:1b:00.0", 0x10DE, 0x2E12)
    install_nvml(FakeGpu(total_bytes=total_bytes))
    assert probe(machine.root).devices[0].total_bytes is None


def test_lost_gpu_is_named_and_the_others_stay(machine: FakeMachine, install_nvml: InstallNvml) -> None:
    machine.add_pci("0000:1b:00.0", 0x10DE, 0x2335)
    machine.add_pci("0000:1c:00.0", 0x10DE, 0x2335)
    nvml = install_nvml(h200(0, lost=True), h200(1))
    result = probe(machine.root)
    assert [(device.index, device.uuid) for device in result.devices] == [(0, h200(1).uuid)]
    assert "GPU 0: GPU is lost" in result.reason
    assert nvml.users == 0


@pytest.mark.parametrize(
    ("vendor_id", "device_id"), [(0x1D22, 0x3688), (0x9999, 0x4001), (0x1E3E, 0x0001), (0x1D94, 0x54B7)]
)
def test_other_vendors_card_is_not_claimed_even_if_nvml_answers(
    machine: FakeMachine, install_nvml: InstallNvml, vendor_id: int, device_id: int
) -> None:
    machine.add_pci("0000:1b:00.0", vendor_id, device_id)
    install_nvml(FakeGpu(name="GPU"))
    result = probe(machine.root)
    assert not result.available
    assert "vendor 0x10de" in result.reason


def test_nvml_of_another_vendor_beside_an_nvidia_card_is_refused(
    machine: FakeMachine, install_nvml: InstallNvml
) -> None:
    machine.add_pci("0000:1b:00.0", 0x1D22, 0x3688)
    machine.add_pci("0000:65:00.0", 0x10DE, 0x1EB8)
    install_nvml(FakeGpu(name="P800 OAM"))
    result = probe(machine.root)
    assert not result.available
    assert "NVML lists P800 OAM at 0000:1b:00.0" in result.reason


def test_network_card_of_nvidia_is_no_gpu(machine: FakeMachine, install_nvml: InstallNvml) -> None:
    machine.add_pci("0000:1b:00.0", 0x10DE, 0x1234, 0x020700)
    install_nvml(H200)
    assert not probe(machine.root).available


def test_missing_driver_is_the_reason(machine: FakeMachine, install_nvml: InstallNvml) -> None:
    machine.add_pci("0000:1b:00.0", 0x10DE, 0x2335)
    nvml = install_nvml()
    nvml.init_error = nvml.NVMLError("NVML Shared Library Not Found")
    result = probe(machine.root)
    assert not result.available
    assert "PCI lists NVIDIA GPUs at 0000:1b:00.0, but the kernel driver is not loaded" in result.reason
    assert "NVML Shared Library Not Found" in result.reason


def test_mismatched_driver_is_the_reason(machine: FakeMachine, install_nvml: InstallNvml) -> None:
    machine.add_pci("0000:1b:00.0", 0x10DE, 0x2335)
    machine.add_file("proc/driver/nvidia/version", VERSION_FILE)
    nvml = install_nvml()
    nvml.init_error = nvml.NVMLError("RM has detected an NVML/RM version mismatch.")
    result = probe(machine.root)
    assert (result.available, result.driver_version) == (False, "570.86.15")
    assert "version mismatch" in result.reason


REMEDIES = {
    "GpuIsLost": "Xid 79",
    "NoPermission": "may not open the devices",
    "LibRmVersionMismatch": "different versions",
    "NotSupported": "does not offer NVML",
    "LibraryNotFound": "capability utility",
    "Unheard": "check that nvidia-smi lists the GPUs",
}


@pytest.mark.parametrize("kind", REMEDIES)
def test_each_fault_of_nvml_has_its_own_remedy(machine: FakeMachine, install_nvml: InstallNvml, kind: str) -> None:
    machine.add_pci("0000:1b:00.0", 0x10DE, 0x2335)
    machine.add_file("proc/driver/nvidia/version", VERSION_FILE)
    nvml = install_nvml(H200)
    nvml.broken["nvmlInit"] = nvml.error(kind, "these words")
    reason = probe(machine.root).reason
    assert "NVML says: these words; " in reason
    assert [each for each, remedy in REMEDIES.items() if remedy in reason] == [kind]


@pytest.mark.parametrize("call", ["nvmlInit", "nvmlDeviceGetCount", "nvmlDeviceGetMemoryInfo"])
def test_fault_of_the_python_module_is_no_fault_of_nvml(
    machine: FakeMachine, install_nvml: InstallNvml, call: str
) -> None:
    machine.add_pci("0000:1b:00.0", 0x10DE, 0x2335)
    machine.add_file("proc/driver/nvidia/version", VERSION_FILE)
    nvml = install_nvml(H200)
    nvml.__file__ = "/usr/lib/pynvml.py"
    nvml.broken[call] = AttributeError(f"module 'pynvml' has no attribute '{call}'")
    result = probe(machine.root)
    assert "AttributeError in /usr/lib/pynvml.py" in result.reason
    assert "pip install -U nvidia-ml-py, and pip uninstall pynvml" in result.reason
    assert "restart" not in result.reason
    assert result.available == (call == "nvmlDeviceGetMemoryInfo")


@pytest.mark.parametrize(
    "call", ["nvmlSystemGetDriverVersion", "nvmlShutdown", "nvmlDeviceGetMigMode", "nvmlDeviceGetUtilizationRates"]
)
@pytest.mark.parametrize("kind", ["NotSupported", "GpuIsLost"])
def test_call_beside_hides_no_gpu(machine: FakeMachine, install_nvml: InstallNvml, call: str, kind: str) -> None:
    for number in range(2):
        machine.add_pci(f"0000:{0x1B + number:02x}:00.0", 0x10DE, 0x2335)
    machine.add_file("proc/driver/nvidia/version", VERSION_FILE.replace("570.86.15", "580.65.06"))
    nvml = install_nvml(h200(0), h200(1))
    nvml.broken[call] = nvml.error(kind)
    result = probe(machine.root)
    lost = kind == "GpuIsLost" and "Device" in call
    assert [device.uuid for device in result.devices] == ([] if lost else [h200(0).uuid, h200(1).uuid])
    assert result.driver_version == ("580.65.06" if call == "nvmlSystemGetDriverVersion" or lost else "570.86.15")


@pytest.mark.parametrize("call", ["nvmlDeviceGetMemoryInfo", "nvmlDeviceGetTemperature", "nvmlDeviceGetPowerUsage"])
def test_gpu_that_answers_from_a_cache_only_is_named(
    machine: FakeMachine, install_nvml: InstallNvml, call: str
) -> None:
    for number in range(2):
        machine.add_pci(f"0000:{0x1B + number:02x}:00.0", 0x10DE, 0x2335)
    nvml = install_nvml(h200(0), h200(1))
    nvml.broken[call, h200(0).bus] = nvml.error("GpuIsLost", "GPU is lost")
    result = probe(machine.root)
    assert [(device.index, device.uuid) for device in result.devices] == [(0, h200(1).uuid)]
    assert f"GPU 0 (NVIDIA H200 {h200(0).uuid}, which NVML knows from its cache only): GPU is lost" in result.reason


def test_all_gpus_lost_is_the_reason(machine: FakeMachine, install_nvml: InstallNvml) -> None:
    machine.add_pci("0000:1b:00.0", 0x10DE, 0x2335)
    nvml = install_nvml(h200(0), h200(1))
    nvml.broken["nvmlDeviceGetHandleByIndex"] = nvml.error("GpuIsLost", "GPU is lost")
    result = probe(machine.root)
    assert not result.available
    assert "none answers NVML; GPU 0, 1: GPU is lost; the GPU no longer answers on its bus" in result.reason
    assert "libnvidia-ml.so" not in result.reason


def test_slow_start_is_waited_for_and_has_a_hint(
    machine: FakeMachine, install_nvml: InstallNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.add_pci("0000:1b:00.0", 0x10DE, 0x2335)
    install_nvml(h200(0))
    assert "persistenced" not in probe(machine.root).reason
    monkeypatch.setattr("chipperf_nvidia.nvml._SLOW_START_S", 0.0)
    result = probe(machine.root)
    assert result.available
    assert "nvidia-persistenced, or nvidia-smi -pm 1" in result.reason
    assert 30 < START_TIMEOUT_S < PROBE_TIMEOUT_S


def test_gpu_of_wsl2_is_found_by_nvml(machine: FakeMachine, install_nvml: InstallNvml) -> None:
    machine.add_pci("2761:00:00.0", 0x1414, 0x008E)
    machine.add_file("dev/dxg")
    nvml = install_nvml(FakeGpu(name="NVIDIA GeForce RTX 4090", total_bytes=24564 * 2**20))
    assert [device.name for device in probe(machine.root).devices] == ["NVIDIA GeForce RTX 4090"]
    nvml.broken["nvmlInit"] = nvml.error("LibraryNotFound")
    reason = probe(machine.root).reason
    assert "this is WSL2 (/dev/dxg), and NVML says: LibraryNotFound" in reason
    assert "seated" not in reason


@pytest.mark.parametrize("chip", ["nvidia,tegra234", "nvidia,tegra264"])
def test_jetson_is_refused_by_name(machine: FakeMachine, install_nvml: InstallNvml, chip: str) -> None:
    install_nvml(FakeGpu(name="Orin (nvgpu)"))
    machine.add_file("proc/device-tree/compatible", f"nvidia,p3737-0000\0{chip}\0")
    result = probe(machine.root)
    assert not result.available
    assert f"Jetson or Thor ({chip})" in result.reason
    assert "it is not supported" in result.reason


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("NVIDIA A100-10C", "vGPU"),
        ("NVIDIA H100-1-10CME", "vGPU"),
        ("GRID T4-16Q", "vGPU"),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb+me", "MIG 1g.5gb+me"),
        ("NVIDIA A100-SXM4-40GB", None),
        ("NVIDIA H20-3e", None),
    ],
)
def test_part_of_a_gpu_is_a_part(machine: FakeMachine, install_nvml: InstallNvml, name: str, part: str | None) -> None:
    machine.add_pci("0000:1b:00.0", 0x10DE, 0x20B0)
    install_nvml(FakeGpu(name=name))
    assert [device.part for device in probe(machine.root).devices] == [part]


def test_hanging_nvml_is_given_up(
    machine: FakeMachine, install_nvml: InstallNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.add_pci("0000:1b:00.0", 0x10DE, 0x2335)
    release = threading.Event()
    nvml = install_nvml(H200)
    monkeypatch.setattr(nvml, "nvmlInit", release.wait)
    result = probe(machine.root, timeout_s=0.05)
    release.set()
    assert not result.available
    assert "no answer within 0.05 s" in result.reason


@pytest.mark.parametrize("shutdown_hangs", [False, True])
def test_hanging_gpu_is_named_and_the_others_stay(
    machine: FakeMachine, install_nvml: InstallNvml, monkeypatch: pytest.MonkeyPatch, shutdown_hangs: bool
) -> None:
    for number in range(3):
        machine.add_pci(f"0000:{0x1B + number:02x}:00.0", 0x10DE, 0x2335)
    release = threading.Event()
    nvml = install_nvml(h200(0), h200(1), h200(2))
    tell_mode = nvml.nvmlDeviceGetMigMode

    def wait_for_the_second(gpu: FakeGpu) -> list[int]:
        if gpu.bus == h200(1).bus:
            release.wait()
        return tell_mode(gpu)

    monkeypatch.setattr(nvml, "nvmlDeviceGetMigMode", wait_for_the_second)
    if shutdown_hangs:
        monkeypatch.setattr(nvml, "nvmlShutdown", release.wait)
    monkeypatch.setattr("chipperf_nvidia.nvml._GPU_TIMEOUT_S", 0.1)
    monkeypatch.setattr("chipperf_nvidia.nvml._SAMPLE_TIMEOUT_S", 0.1)
    result = probe(machine.root)
    release.set()
    assert [device.uuid for device in result.devices] == [h200(0).uuid, h200(2).uuid]
    assert "; GPU 1: no answer within 0.1 s; a GPU or the driver hangs" in result.reason


def test_driver_files_stand_in_for_a_missing_nvml_module(machine: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.add_pci("0000:1b:00.0", 0x10DE, 0x2335)
    machine.add_pci("0000:1c:00.0", 0x10DE, 0x2335)
    machine.add_file("proc/driver/nvidia/version", VERSION_FILE)
    information = "Model: \t\t NVIDIA H200\nIRQ:   \t\t 100\nGPU UUID: \t {uuid}\nBus Location: \t 0000:1b:00.0\n"
    machine.add_file("proc/driver/nvidia/gpus/0000:1b:00.0/information", information.format(uuid=H200.uuid))
    machine.add_file("proc/driver/nvidia/gpus/0000:1c:00.0/information", information.format(uuid="GPU-????????-????"))
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert not probe(machine.root).available
    machine.add_file("dev/nvidia0")
    result = probe(machine.root)
    assert [(d.name, d.uuid, d.pci_bus_id) for d in result.devices] == [
        ("NVIDIA H200", H200.uuid, "0000:1b:00.0"),
        ("NVIDIA H200", None, "0000:1c:00.0"),
    ]
    assert "install nvidia-ml-py" in result.reason
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert [(d.index, d.pci_bus_id) for d in probe(machine.root).devices] == [(0, "0000:1c:00.0")]


@pytest.mark.parametrize(
    ("value", "expected"),
    [("1", [1]), ("2,0", [2, 0]), ("GPU-00000002", [2]), ("", []), ("-1", []), ("7", []), ("NoDevFiles", [])],
)
def test_visible_devices_variable_is_honored(
    machine: FakeMachine, install_nvml: InstallNvml, monkeypatch: pytest.MonkeyPatch, value: str, expected: list[int]
) -> None:
    gpus = [h200(number) for number in range(3)]
    for number in range(3):
        machine.add_pci(f"0000:{0x1B + number:02x}:00.0", 0x10DE, 0x2335)
    install_nvml(*gpus)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    result = probe(machine.root)
    assert [device.uuid for device in result.devices] == [gpus[number].uuid for number in expected]
    assert [device.index for device in result.devices] == list(range(len(expected)))
    assert "CUDA_VISIBLE_DEVICES=" in result.reason
    assert result.available or "unset it" in result.reason


def test_mig_instance_stands_for_its_gpu(machine: FakeMachine, install_nvml: InstallNvml) -> None:
    machine.add_pci("0000:1b:00.0", 0x10DE, 0x2335)
    install_nvml(h200(0, instances=[mig(1), mig(2)]))
    (device,) = probe(machine.root).devices
    assert (device.uuid, device.name, device.total_bytes) == (mig(1).uuid, "NVIDIA H200 MIG 1g.18gb", 16 * 2**30)
    assert device.part == "MIG 1g.18gb"


def test_what_a_mig_instance_hides_is_said(
    machine: FakeMachine, install_nvml: InstallNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    for bus in ("1b", "1c"):
        machine.add_pci(f"0000:{bus}:00.0", 0x10DE, 0x2335)
    install_nvml(h200(0), h200(1, instances=[mig(0), mig(1)]))
    result = probe(machine.root)
    assert [device.part for device in result.devices] == ["MIG 1g.18gb"]
    assert "CUDA uses one MIG instance and no GPU beside it: set CUDA_VISIBLE_DEVICES" in result.reason
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert "CUDA uses one" not in probe(machine.root).reason


def test_broken_sensor_hides_no_gpu(machine: FakeMachine, install_nvml: InstallNvml) -> None:
    machine.add_pci("0000:1b:00.0", 0x10DE, 0x2335)
    nvml = install_nvml(H200)
    nvml.broken["nvmlDeviceGetPowerUsage"] = nvml.error("Unknown", "Unknown Error")
    assert [device.uuid for device in probe(machine.root).devices] == [H200.uuid]


def test_mig_instance_is_chosen_by_its_old_name(
    machine: FakeMachine, install_nvml: InstallNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.add_pci("0000:1b:00.0", 0x10DE, 0x2335)
    install_nvml(h200(0, instances=[mig(1, ids=(3, 0)), mig(2, ids=(3, 1))]))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", f"MIG-{h200(0).uuid}/3/1")
    assert [device.uuid for device in probe(machine.root).devices] == [mig(2).uuid]


def test_mig_mode_without_instances_is_the_reason(machine: FakeMachine, install_nvml: InstallNvml) -> None:
    machine.add_pci("0000:1b:00.0", 0x10DE, 0x2335)
    install_nvml(h200(0, instances=[]))
    result = probe(machine.root)
    assert not result.available
    assert "GPU 0 is in MIG mode without an instance" in result.reason
    assert "nvidia-smi mig -cgi" in result.reason


def test_mig_mode_without_instances_is_said_beside_a_whole_gpu(machine: FakeMachine, install_nvml: InstallNvml) -> None:
    for number in range(2):
        machine.add_pci(f"0000:{0x1B + number:02x}:00.0", 0x10DE, 0x2335)
    install_nvml(h200(0, instances=[]), h200(1))
    result = probe(machine.root)
    assert [device.uuid for device in result.devices] == [h200(1).uuid]
    assert "GPU 0 is in MIG mode without an instance" in result.reason


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (VERSION_FILE, "570.86.15"),
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.129.06  Thu May 12 22:52:02 UTC 2022\n", "470.129.06"),
        ("NVRM version: NVIDIA UNIX aarch64 Kernel Module  550.54  Thu\n", "550.54"),
        ("GCC version:  gcc version 12.2.0\n", None),
        ("", None),
    ],
)
def test_driver_version_is_read_from_the_kernels_line(machine: FakeMachine, text: str, version: str | None) -> None:
    machine.add_file("proc/driver/nvidia/version", text)
    assert read_driver_version(machine.root) == version


def test_recorded_files_are_those_the_probe_parses_and_the_tool_shows_the_sensors() -> None:
    commands = {command.name: command.argv for command in perf_tool_commands()}
    assert commands["driver-version"][-1] == "/proc/driver/nvidia/version"
    assert {"/proc/driver/nvidia/gpus", "information"} <= set(commands["driver-gpus"])
    assert "power.draw" in commands["nvidia-smi"][1]
