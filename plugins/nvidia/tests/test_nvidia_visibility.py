"""CUDA's rules of what a process sees."""

from __future__ import annotations

import pytest
from chipperf import ProbedDevice
from chipperf_nvidia.nvml import Gpu
from chipperf_nvidia.probe import visible_devices


def gpu(index: int, instances: tuple[Gpu, ...] | None = None, uuid: str | None = None) -> Gpu:
    device = ProbedDevice(index=index, name="NVIDIA A30", uuid=uuid or f"GPU-aa0{index}-0000", pci_bus_id=f"0{index}")
    return Gpu(device=device, instances=instances)


def instance(gpu_index: int, number: int) -> Gpu:
    device = ProbedDevice(index=number, name="NVIDIA A30 MIG 1g.6gb", uuid=f"MIG-bb{gpu_index}{number}-0000")
    return Gpu(device=device, legacy_uuid=f"MIG-GPU-aa0{gpu_index}-0000/{number}/0")


PLAIN = [gpu(0), gpu(1), gpu(2)]
MIXED = [gpu(0), gpu(1, (instance(1, 0), instance(1, 1))), gpu(2, ())]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, ["GPU-aa00-0000", "GPU-aa01-0000", "GPU-aa02-0000"]),
        ("0", ["GPU-aa00-0000"]),
        (" 2 , 0 ", ["GPU-aa02-0000", "GPU-aa00-0000"]),
        ("GPU-aa01-0000", ["GPU-aa01-0000"]),
        ("GPU-aa02,GPU-aa00", ["GPU-aa02-0000", "GPU-aa00-0000"]),
        ("GPU-aa0", []),
        ("GPU-ff", []),
        ("", []),
        ("-1", []),
        ("1,-1,2", ["GPU-aa01-0000"]),
        ("1,9,2", ["GPU-aa01-0000"]),
        ("1,GPU-ff,2", ["GPU-aa01-0000"]),
        ("1,1", []),
        ("all", []),
        ("\uff11", []),
        ("MIG-bb10", []),
    ],
)
def test_whole_gpus(value: str | None, expected: list[str]) -> None:
    devices = visible_devices(PLAIN, value)
    assert [device.uuid for device in devices] == expected
    assert [device.index for device in devices] == list(range(len(expected)))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, ["MIG-bb10-0000"]),
        ("0", ["GPU-aa00-0000"]),
        ("1", ["MIG-bb10-0000"]),
        ("0,1", ["MIG-bb10-0000"]),
        ("2", []),
        ("0,2", ["GPU-aa00-0000"]),
        ("MIG-bb11-0000", ["MIG-bb11-0000"]),
        ("MIG-bb11", ["MIG-bb11-0000"]),
        ("MIG-bb11-0000,MIG-bb10-0000", ["MIG-bb11-0000"]),
        ("MIG-GPU-aa01-0000/1/0", ["MIG-bb11-0000"]),
        ("MIG-GPU-aa01-0000/7/0", []),
        ("MIG-bb1", []),
    ],
)
def test_mig_instances(value: str | None, expected: list[str]) -> None:
    assert [device.uuid for device in visible_devices(MIXED, value)] == expected


def test_index_counts_all_gpus_also_if_one_did_not_answer() -> None:
    assert [device.uuid for device in visible_devices([gpu(1), gpu(2)], "1")] == ["GPU-aa01-0000"]


def test_gpus_without_uuids_are_told_apart_by_address() -> None:
    gpus = [Gpu(device=ProbedDevice(index=n, name="NVIDIA A30", pci_bus_id=f"0{n}")) for n in range(2)]
    assert len(visible_devices(gpus, "0,1")) == 2
