"""Hooks of the MetaX plugin: C500 family under MACA builds of torch, whose devices are called ``cuda``.

Some are below, others in the modules about their subject.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from chipperf import (
    DeviceError,
    DeviceInfo,
    DistributedConfig,
    LoaderOptions,
    Title,
    VendorInfo,
    hookimpl,
    read_case_overrides,
    read_products,
)
from chipperf.torchtools import read_memory, restore_switches, use_device

from chipperf_metax.mx_smi import perf_tool_commands as perf_tool_commands
from chipperf_metax.probe import VISIBLE_VARIABLES, probe
from chipperf_metax.run_settings import CAPABILITIES
from chipperf_metax.run_settings import perf_environment as perf_environment
from chipperf_metax.run_settings import perf_precision as perf_precision
from chipperf_metax.run_settings import perf_prepare_model as perf_prepare_model
from chipperf_metax.run_settings import perf_seed as perf_seed
from chipperf_metax.runtime import perf_load_runtime as perf_load_runtime
from chipperf_metax.telemetry import perf_telemetry as perf_telemetry

if TYPE_CHECKING:
    import torch
    from chipperf import CaseOverrides, MemoryStats, ProbeResult, Rank

_CONFIGS = Path(__file__).with_name("configs.toml")

_INFO = VendorInfo(
    name="metax",
    title=Title(zh="沐曦", en="MetaX"),
    report_title=Title(zh="沐曦集成电路 C500 GPU配置与运行信息参考", en="MetaX C500 GPU configuration and results"),
    device_type="cuda",
    visible_devices_env=VISIBLE_VARIABLES,
    capabilities=CAPABILITIES,
    known_devices=read_products(Path(__file__).with_name("products.toml")).known_devices,
)


@hookimpl
def perf_vendor_info() -> VendorInfo:
    """Name MetaX, its products and what this plugin can do."""
    return _INFO


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

    properties: Any = torch.cuda.get_device_properties(device)
    # Older builds tell neither.
    uuid = getattr(properties, "uuid", None)
    address = None
    if hasattr(properties, "pci_bus_id"):
        address = f"{properties.pci_domain_id:04x}:{properties.pci_bus_id:02x}:{properties.pci_device_id:02x}.0"
    return DeviceInfo(
        index=device.index or 0,
        name=properties.name,
        uuid=f"GPU-{uuid}" if uuid else None,
        pci_bus_id=address,
        total_bytes=properties.total_memory,
    )


@hookimpl
def perf_synchronize(device: torch.device) -> None:
    """Wait for every stream of the device. Events are not used: they were seen to measure nothing."""
    import torch

    torch.cuda.synchronize(device)


@hookimpl
def perf_memory_query(device: torch.device) -> MemoryStats:
    """Read torch's allocator, and use and capacity by the runtime.

    The runtime keeps to the slice of a shared GPU, whereas mx-smi counts the whole board.
    """
    import torch

    return read_memory(torch.cuda, device)


@hookimpl
def perf_memory_reset_peak(device: torch.device) -> None:
    """Set the allocator's peaks back."""
    import torch

    torch.cuda.reset_peak_memory_stats(device)


@hookimpl
def perf_distributed_setup(rank: Rank, device: torch.device) -> DistributedConfig:
    """Use MCCL, whose name in torch is nccl: mccl is the name of another vendor's backend there."""
    return DistributedConfig(backend="nccl")


@hookimpl
def perf_loader_options(device: torch.device) -> LoaderOptions:
    """Copy batches from page-locked memory."""
    return LoaderOptions(pin_memory=True)


@hookimpl
def perf_case_overrides(case: str, rank: Rank) -> CaseOverrides:
    """Return FlagPerf's C500 values for the case and topology."""
    return read_case_overrides(_CONFIGS, case, rank)


@hookimpl
def perf_device_teardown(device: torch.device) -> None:
    """Put torch's switches back and give cached memory back."""
    import torch

    restore_switches()
    torch.cuda.empty_cache()
