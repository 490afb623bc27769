"""Hooks of the NVIDIA plugin.

The hooks that train (runtime, device, memory, collectives, precision, telemetry) are not implemented in this version;
binding the plugin to a run fails with the list of what is missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chipperf import CaseOverrides, KnownDevice, Title, VendorInfo, hookimpl

from chipperf_nvidia.configs import CONFIGS
from chipperf_nvidia.probe import probe

if TYPE_CHECKING:
    from chipperf import ProbeResult, Rank

_GIB = 2**30

_INFO = VendorInfo(
    name="nvidia",
    title=Title(zh="英伟达", en="NVIDIA"),
    report_title=Title(zh="NVIDIA GPU配置与运行信息参考", en="NVIDIA GPU configuration and results"),
    device_type="cuda",
    visible_devices_env=("CUDA_VISIBLE_DEVICES",),
    known_devices=(
        KnownDevice(name="NVIDIA A100-SXM4-40GB", short_name="A100", memory_bytes=40 * _GIB),
        KnownDevice(name="NVIDIA A100-PCIE-40GB", short_name="A100", memory_bytes=40 * _GIB),
        KnownDevice(name="NVIDIA A100-SXM4-80GB", short_name="A100-80G", memory_bytes=80 * _GIB),
        KnownDevice(name="NVIDIA A100 80GB PCIe", short_name="A100-80G", memory_bytes=80 * _GIB),
        KnownDevice(name="NVIDIA H100 80GB HBM3", short_name="H100", memory_bytes=80 * _GIB),
        KnownDevice(name="NVIDIA H100 PCIe", short_name="H100-PCIe", memory_bytes=80 * _GIB),
        KnownDevice(name="NVIDIA H200", short_name="H200", memory_bytes=141 * _GIB),
    ),
)


@hookimpl
def perf_vendor_info() -> VendorInfo:
    """Name NVIDIA and its products."""
    return _INFO


@hookimpl
def perf_probe() -> ProbeResult:
    """Find NVIDIA's PCI devices and ask NVML about them."""
    return probe()


@hookimpl
def perf_case_overrides(case: str, rank: Rank) -> CaseOverrides:
    """Return FlagPerf's A100 values for the case and topology."""
    topology = f"{rank.node_count}x{rank.local_world_size}"
    no_row = f"FlagPerf has no NVIDIA configuration of {case} on {topology}: the case's base values apply"
    return CONFIGS.get((case, topology), CaseOverrides(notes=(no_row,)))
