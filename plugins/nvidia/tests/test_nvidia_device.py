"""Choosing, identifying and measuring a device, with torch.cuda's answers made up."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import torch
from chipperf import DeviceError, Rank
from chipperf_nvidia.plugin import (
    perf_device_info,
    perf_device_init,
    perf_distributed_setup,
    perf_loader_options,
    perf_memory_query,
)
from chipperf_nvidia.probe import probe
from fake_nvml import h200, mig

if TYPE_CHECKING:
    from conftest import InstallNvml
    from fake_machine import FakeMachine

CUDA_0 = torch.device("cuda", 0)
TORCH_BYTES = 150_000_000_000


@pytest.fixture
def properties(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What torch says of every device."""
    found = SimpleNamespace(name="NVIDIA H200", uuid=h200(0).uuid.removeprefix("GPU-"), total_memory=TORCH_BYTES)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: found)
    return found


@pytest.fixture
def allocator(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = {
        "allocated_bytes.all.current": 1,
        "allocated_bytes.all.peak": 2,
        "reserved_bytes.all.current": 3,
        "reserved_bytes.all.peak": 4,
    }
    monkeypatch.setattr(torch.cuda, "memory_stats", lambda device: numbers)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (60, 100))


def test_rank_gets_the_gpu_of_its_number_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    current: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    rank = Rank(rank=11, local_rank=3, world_size=16, local_world_size=8, node_rank=1)
    assert perf_device_init(rank) == perf_device_init(rank) == torch.device("cuda", 3)
    assert current == [torch.device("cuda", 3)] * 2


@pytest.mark.parametrize(
    ("count", "variable", "message", "hint"),
    [
        (2, None, "torch sees 2 GPU(s); CUDA_VISIBLE_DEVICES is not set", "--nproc 2"),
        (1, "5", "torch sees 1 GPU(s); CUDA_VISIBLE_DEVICES=5", "--nproc 1"),
        (0, "", "torch sees 0 GPU(s); CUDA_VISIBLE_DEVICES=", "perf doctor"),
    ],
)
def test_missing_gpu_is_an_error_that_counts(
    monkeypatch: pytest.MonkeyPatch, count: int, variable: str | None, message: str, hint: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    if variable is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    with pytest.raises(DeviceError) as raised:
        perf_device_init(Rank(rank=2, local_rank=2, world_size=3, local_world_size=3))
    assert message in raised.value.message
    assert hint in (raised.value.hint or "")


def test_identity_agrees_with_the_probe(
    machine: FakeMachine, install_nvml: InstallNvml, properties: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    for bus in ("1b", "1c"):
        machine.add_pci(f"0000:{bus}:00.0", 0x10DE, 0x2335)
    install_nvml(h200(0), h200(1))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    for index, gpu in enumerate((h200(1), h200(0))):
        properties.uuid = gpu.uuid.removeprefix("GPU-")
        found, probed = perf_device_info(torch.device("cuda", index)), probe(machine.root).devices[index]
        assert {name: getattr(found, name) for name in found.__slots__} == {
            name: getattr(probed, name) for name in probed.__slots__
        }
        assert found.uuid == gpu.uuid


@pytest.mark.parametrize("missing", ["module", "library", "device"])
def test_without_nvml_torch_identifies_the_gpu(
    install_nvml: InstallNvml, properties: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    nvml = install_nvml(h200(5))
    if missing == "module":
        monkeypatch.setitem(sys.modules, "pynvml", None)
    if missing == "library":
        nvml.init_error = nvml.NVMLError("NVML Shared Library Not Found")
    found = perf_device_info(CUDA_0)
    assert (found.name, found.uuid, found.total_bytes) == ("NVIDIA H200", h200(0).uuid, TORCH_BYTES)
    assert (found.pci_bus_id, found.part) == (None, None)
    properties.name = "NVIDIA H200 MIG 1g.18gb"
    assert perf_device_info(CUDA_0).part == "MIG 1g.18gb"


def test_torch_that_tells_no_uuid_leaves_it_unknown(install_nvml: InstallNvml, properties: SimpleNamespace) -> None:
    install_nvml(h200(0))
    del properties.uuid
    assert perf_device_info(CUDA_0).uuid is None


def test_unified_memory_has_no_total_of_its_own(install_nvml: InstallNvml, properties: SimpleNamespace) -> None:
    install_nvml(h200(0, total_bytes=None))
    assert perf_device_info(CUDA_0).total_bytes is None


@pytest.mark.parametrize("torch_uuid", ["instance", "gpu"])
def test_mig_instance_is_found_under_either_uuid(
    install_nvml: InstallNvml, properties: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, torch_uuid: str
) -> None:
    instance = mig(2)
    install_nvml(h200(0), h200(1, instances=[mig(1), instance]))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", instance.uuid)
    uuid = instance.uuid if torch_uuid == "instance" else h200(1).uuid
    properties.uuid = uuid.partition("-")[2]
    found = perf_device_info(CUDA_0)
    assert (found.uuid, found.name, found.total_bytes) == (instance.uuid, instance.name, instance.total_bytes)


@pytest.mark.usefixtures("properties", "allocator")
def test_memory_is_the_allocators_and_nvmls(install_nvml: InstallNvml) -> None:
    nvml = install_nvml(h200(0))
    stats = perf_memory_query(CUDA_0)
    assert (stats.allocated_bytes, stats.peak_allocated_bytes) == (1, 2)
    assert (stats.reserved_bytes, stats.peak_reserved_bytes) == (3, 4)
    assert (stats.used_bytes, stats.total_bytes) == (2 * 2**30, 150_754_820_096)
    assert stats.source == "torch.cuda allocator; used and total: NVML 12.570.86.15"
    assert nvml.users == 0
    assert perf_memory_query(CUDA_0) == stats


@pytest.mark.usefixtures("properties", "allocator")
def test_memory_comes_from_the_runtime_without_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    stats = perf_memory_query(CUDA_0)
    assert (stats.used_bytes, stats.total_bytes) == (40, 100)
    assert stats.source.endswith("cudaMemGetInfo")


def test_collectives_are_nccl_and_never_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: True)
    assert perf_distributed_setup().backend == "nccl"
    monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: False)
    with pytest.raises(DeviceError, match="no NCCL"):
        perf_distributed_setup()


def test_batches_come_from_pinned_memory() -> None:
    assert perf_loader_options().pin_memory
