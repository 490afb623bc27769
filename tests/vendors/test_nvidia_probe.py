"""The NVIDIA probe against made-up machines and a made-up NVML."""

from __future__ import annotations

import sys
import threading
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from chipperf_nvidia.probe import probe, read_driver_version

if TYPE_CHECKING:
    from fake_machine import FakeMachine

H200 = SimpleNamespace(name="NVIDIA H200", uuid="GPU-00000000-0000-0000-0000-000000000001", bus="00000000:1B:00.0")
H200_BYTES = 150_754_820_096
VERSION_FILE = (
    "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build  (builder)\n"
    "GCC version:  gcc version 12.2.0\n"
)


class FakeNvml(ModuleType):
    """Enough of ``pynvml`` for the probe, with the handle being the index."""

    class NVMLError(Exception):
        """What every failing NVML call raises."""

    def __init__(self, *gpus: SimpleNamespace, encode: bool = False) -> None:
        super().__init__("pynvml")
        self.gpus = gpus
        self.encode = encode
        self.users = 0
        self.init_error: Exception | None = None
        self.total_bytes = H200_BYTES
        self.lost: set[int] = set()

    def text(self, value: str) -> str | bytes:
        return value.encode() if self.encode else value

    def nvmlInit(self) -> None:
        if self.init_error:
            raise self.init_error
        self.users += 1

    def nvmlShutdown(self) -> None:
        self.users -= 1

    def nvmlSystemGetDriverVersion(self) -> str | bytes:
        return self.text("570.86.15")

    def nvmlDeviceGetCount(self) -> int:
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        if index in self.lost:
            raise self.NVMLError("GPU is lost")
        return index

    def nvmlDeviceGetName(self, index: int) -> str | bytes:
        return self.text(self.gpus[index].name)

    def nvmlDeviceGetUUID(self, index: int) -> str | bytes:
        return self.text(self.gpus[index].uuid)

    def nvmlDeviceGetPciInfo(self, index: int) -> SimpleNamespace:
        return SimpleNamespace(busId=self.text(self.gpus[index].bus))

    def nvmlDeviceGetMemoryInfo(self, index: int) -> SimpleNamespace:
        if self.total_bytes < 0:
            raise self.NVMLError("Not Supported")
        return SimpleNamespace(total=self.total_bytes)


def install(monkeypatch: pytest.MonkeyPatch, nvml: FakeNvml | None) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml)


@pytest.mark.parametrize("encode", [False, True], ids=["str", "bytes"])
def test_gpu_is_found_and_nvml_shut_down(machine: FakeMachine, monkeypatch: pytest.MonkeyPatch, encode: bool) -> None:
    machine.add_pci("0000:1b:00.0", 0x10DE, 0x2335)
    nvml = FakeNvml(H200, encode=encode)
    install(monkeypatch, nvml)
    result = probe(machine.root)
    (device,) = result.devices
    assert (device.index, device.name, device.uuid) == (0, "NVIDIA H200", H200.uuid)
    assert (device.pci_bus_id, device.total_bytes) == ("0000:1b:00.0", H200_BYTES)
    assert result.driver_version == "570.86.15"
    assert nvml.users == 0


@pytest.mark.parametrize("total_bytes", [0, -1], ids=["zero", "unsupported"])
def test_unified_memory_is_unknown_not_zero(
    machine: FakeMachine, monkeypatch: pytest.MonkeyPatch, total_bytes: int
) -> None:
    machine.add_pci("0000:1b:00.0", 0x10DE, 0x2E12)
    nvml = FakeNvml(H200)
    nvml.total_bytes = total_bytes
    install(monkeypatch, nvml)
    assert probe(machine.root).devices[0].total_bytes is None


def test_lost_gpu_is_named_and_the_others_stay(machine: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.add_pci("0000:1b:00.0", 0x10DE, 0x2335)
    nvml = FakeNvml(H200, H200)
    nvml.lost = {0}
    install(monkeypatch, nvml)
    result = probe(machine.root)
    assert [device.index for device in result.devices] == [1]
    assert "GPU 0: GPU is lost" in result.reason
    assert nvml.users == 0


@pytest.mark.parametrize(
    ("vendor_id", "device_id"), [(0x1D22, 0x3688), (0x9999, 0x4001), (0x1E3E, 0x0001), (0x1D94, 0x54B7)]
)
def test_other_vendors_card_is_not_claimed_even_if_nvml_answers(
    machine: FakeMachine, monkeypatch: pytest.MonkeyPatch, vendor_id: int, device_id: int
) -> None:
    machine.add_pci("0000:1b:00.0", vendor_id, device_id)
    install(monkeypatch, FakeNvml(SimpleNamespace(name="GPU", uuid="GPU-1", bus="00000000:1B:00.0")))
    result = probe(machine.root)
    assert not result.available
    assert "vendor 0x10de" in result.reason


def test_nvml_of_another_vendor_beside_an_nvidia_card_is_refused(
    machine: FakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.add_pci("0000:1b:00.0", 0x1D22, 0x3688)
    machine.add_pci("0000:65:00.0", 0x10DE, 0x1EB8)
    install(monkeypatch, FakeNvml(SimpleNamespace(name="P800 OAM", uuid="GPU-1", bus="00000000:1B:00.0")))
    result = probe(machine.root)
    assert not result.available
    assert "NVML lists P800 OAM at 0000:1b:00.0" in result.reason


def test_network_card_of_nvidia_is_no_gpu(machine: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.add_pci("0000:1b:00.0", 0x10DE, 0x1234, 0x020700)
    install(monkeypatch, FakeNvml(H200))
    assert not probe(machine.root).available


def test_missing_driver_is_the_reason(machine: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.add_pci("0000:1b:00.0", 0x10DE, 0x2335)
    nvml = FakeNvml()
    nvml.init_error = nvml.NVMLError("NVML Shared Library Not Found")
    install(monkeypatch, nvml)
    result = probe(machine.root)
    assert not result.available
    assert "PCI lists NVIDIA GPUs at 0000:1b:00.0, but the kernel driver is not loaded" in result.reason
    assert "NVML Shared Library Not Found" in result.reason


def test_mismatched_driver_is_the_reason(machine: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.add_pci("0000:1b:00.0", 0x10DE, 0x2335)
    machine.add_file("proc/driver/nvidia/version", VERSION_FILE)
    nvml = FakeNvml()
    nvml.init_error = nvml.NVMLError("RM has detected an NVML/RM version mismatch.")
    install(monkeypatch, nvml)
    result = probe(machine.root)
    assert (result.available, result.driver_version) == (False, "570.86.15")
    assert "version mismatch" in result.reason


def test_hanging_nvml_is_given_up(machine: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.add_pci("0000:1b:00.0", 0x10DE, 0x2335)
    release = threading.Event()
    nvml = FakeNvml(H200)
    monkeypatch.setattr(nvml, "nvmlInit", release.wait)
    install(monkeypatch, nvml)
    result = probe(machine.root, timeout_s=0.05)
    release.set()
    assert not result.available
    assert "no answer within 0.05 s" in result.reason


def test_driver_files_stand_in_for_a_missing_nvml_module(machine: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.add_pci("0000:1b:00.0", 0x10DE, 0x2335)
    machine.add_pci("0000:1c:00.0", 0x10DE, 0x2335)
    machine.add_file("proc/driver/nvidia/version", VERSION_FILE)
    information = "Model: \t\t NVIDIA H200\nIRQ:   \t\t 100\nGPU UUID: \t {uuid}\nBus Location: \t 0000:1b:00.0\n"
    machine.add_file("proc/driver/nvidia/gpus/0000:1b:00.0/information", information.format(uuid=H200.uuid))
    machine.add_file("proc/driver/nvidia/gpus/0000:1c:00.0/information", information.format(uuid="GPU-????????-????"))
    install(monkeypatch, None)
    assert not probe(machine.root).available
    machine.add_file("dev/nvidia0")
    result = probe(machine.root)
    assert [(d.name, d.uuid, d.pci_bus_id) for d in result.devices] == [
        ("NVIDIA H200", H200.uuid, "0000:1b:00.0"),
        ("NVIDIA H200", None, "0000:1c:00.0"),
    ]
    assert "install nvidia-ml-py" in result.reason


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
