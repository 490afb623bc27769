"""Hooks of the NVIDIA plugin: those below, and those that the modules about their subject have."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from chipperf import DeviceError, DistributedConfig, hookimpl, read_case_overrides, read_products
from chipperf.torchtools import perf_device_teardown as perf_device_teardown
from chipperf.torchtools import perf_loader_options as perf_loader_options
from chipperf.torchtools import perf_memory_reset_peak as perf_memory_reset_peak
from chipperf.torchtools import perf_synchronize as perf_synchronize

from chipperf_nvidia.device import perf_device_info as perf_device_info
from chipperf_nvidia.device import perf_device_init as perf_device_init
from chipperf_nvidia.device import perf_memory_query as perf_memory_query
from chipperf_nvidia.nvml import perf_telemetry as perf_telemetry
from chipperf_nvidia.probe import perf_tool_commands as perf_tool_commands
from chipperf_nvidia.probe import probe
from chipperf_nvidia.run_settings import VENDOR
from chipperf_nvidia.run_settings import perf_environment as perf_environment
from chipperf_nvidia.run_settings import perf_precision as perf_precision
from chipperf_nvidia.run_settings import perf_prepare_model as perf_prepare_model
from chipperf_nvidia.run_settings import perf_seed as perf_seed
from chipperf_nvidia.runtime import perf_load_runtime as perf_load_runtime

if TYPE_CHECKING:
    from chipperf import CaseOverrides, PeakFlops, ProbeResult, Rank, VendorInfo

_CONFIGS = Path(__file__).with_name("configs.toml")
_PRODUCTS = read_products(Path(__file__).with_name("products.toml"))


@hookimpl
def perf_vendor_info() -> VendorInfo:
    """Name NVIDIA and its products."""
    return VENDOR


@hookimpl
def perf_probe() -> ProbeResult:
    """Find NVIDIA's PCI devices and ask NVML about them."""
    return probe()


@hookimpl
def perf_distributed_setup() -> DistributedConfig:
    """Use NCCL for everything: core's collectives are all on the device."""
    import torch.distributed

    if not torch.distributed.is_nccl_available():
        raise DeviceError("this build of torch has no NCCL", hint="install a Linux build of torch with NCCL")
    return DistributedConfig(backend="nccl")


@hookimpl
def perf_case_overrides(case: str, rank: Rank) -> CaseOverrides:
    """Return FlagPerf's A100 values for the case and topology."""
    return read_case_overrides(_CONFIGS, case, rank)


@hookimpl
def perf_peak_flops(device_name: str, precision: str) -> PeakFlops | None:
    """Look the whole GPU's data sheet up; a MIG instance has a name of its own, and no peak."""
    return _PRODUCTS.peak_flops(device_name, precision)
