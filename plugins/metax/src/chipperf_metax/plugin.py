"""Hooks of the MetaX plugin: C500 family under MACA builds of torch, whose devices are called ``cuda``.

Some are below, others in the modules about their subject and in core. Events are not used for timing: they were seen to
measure nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from chipperf import (
    DeviceError,
    DeviceInfo,
    DistributedConfig,
    hookimpl,
    read_case_overrides,
)
from chipperf.torchtools import perf_device_teardown as perf_device_teardown
from chipperf.torchtools import perf_loader_options as perf_loader_options

# The runtime keeps to the slice of a shared GPU, whereas mx-smi counts the whole board.
from chipperf.torchtools import perf_memory_query as perf_memory_query
from chipperf.torchtools import perf_memory_reset_peak as perf_memory_reset_peak
from chipperf.torchtools import perf_synchronize as perf_synchronize
from chipperf.torchtools import read_device_info, use_device

from chipperf_metax.mx_smi import perf_tool_commands as perf_tool_commands
from chipperf_metax.probe import VISIBLE_VARIABLES, probe
from chipperf_metax.runtime import VENDOR
from chipperf_metax.runtime import perf_environment as perf_environment
from chipperf_metax.runtime import perf_load_runtime as perf_load_runtime
from chipperf_metax.runtime import perf_precision as perf_precision
from chipperf_metax.runtime import perf_prepare_model as perf_prepare_model
from chipperf_metax.runtime import perf_seed as perf_seed
from chipperf_metax.telemetry import perf_telemetry as perf_telemetry

if TYPE_CHECKING:
    import torch
    from chipperf import CaseOverrides, ProbeResult, Rank, VendorInfo

_CONFIGS = Path(__file__).with_name("configs.toml")


@hookimpl
def perf_vendor_info() -> VendorInfo:
    """Name MetaX, its products and what this plugin can do."""
    return VENDOR


@hookimpl
def perf_probe() -> ProbeResult:
    """Find MetaX's PCI devices and driver, and ask mx-smi about them."""
    return probe()


@hookimpl
def perf_device_init(rank: Rank) -> torch.device:
    """Make the GPU, or slice, of the local rank current."""
    import torch

    try:
        return use_device(torch.cuda, "cuda", rank, called="MetaX device", visible_devices_env=VISIBLE_VARIABLES)
    except OSError as error:
        # Counting goes through MetaX's management library.
        raise DeviceError(
            f"MetaX's torch cannot count its devices: {error}", hint="add /opt/mxdriver/lib to LD_LIBRARY_PATH"
        ) from error


@hookimpl
def perf_device_info(device: torch.device) -> DeviceInfo:
    """Identify the GPU, or slice, by torch's properties; UUID and address are those that ``mx-smi -L`` lists."""
    import torch

    return read_device_info(torch.cuda, device)


@hookimpl
def perf_distributed_setup(rank: Rank, device: torch.device) -> DistributedConfig:
    """Use MCCL, whose name in torch is nccl: mccl is the name of another vendor's backend there."""
    return DistributedConfig(backend="nccl")


@hookimpl
def perf_case_overrides(case: str, rank: Rank) -> CaseOverrides:
    """Return FlagPerf's C500 values for the case and topology."""
    return read_case_overrides(_CONFIGS, case, rank)
