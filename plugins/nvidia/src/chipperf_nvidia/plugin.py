"""Hooks of the NVIDIA plugin; what they do is in the modules they call."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from chipperf import (
    Capability,
    DeviceError,
    DistributedConfig,
    LoaderOptions,
    Title,
    VendorInfo,
    hookimpl,
    read_case_overrides,
)
from chipperf.torchtools import restore_switches, use_device

from chipperf_nvidia import device as devices
from chipperf_nvidia import numerics, nvml, products, runtime
from chipperf_nvidia.probe import VARIABLE, driver_file_commands, probe

if TYPE_CHECKING:
    import torch
    from chipperf import (
        CaseOverrides,
        DeviceInfo,
        EnvironmentSettings,
        EnvironmentVariable,
        MemoryStats,
        PeakFlops,
        Precision,
        PrecisionPolicy,
        ProbeResult,
        Rank,
        RuntimeInfo,
        TelemetrySample,
        ToolCommand,
    )

_COLLECTIVE_TIMEOUT_S = 1800.0
_CONFIGS = Path(__file__).with_name("configs.toml")

_INFO = VendorInfo(
    name="nvidia",
    title=Title(zh="英伟达", en="NVIDIA"),
    report_title=Title(zh="NVIDIA GPU配置与运行信息参考", en="NVIDIA GPU configuration and results"),
    device_type="cuda",
    visible_devices_env=(VARIABLE,),
    capabilities=frozenset(
        {
            Capability.BF16,
            Capability.CHANNELS_LAST,
            Capability.DETERMINISTIC,
            Capability.DISTRIBUTED,
            Capability.FP16,
            Capability.MEMORY_RESERVED,
            Capability.MULTI_DEVICE,
            Capability.TELEMETRY,
            Capability.TF32,
            Capability.UUID,
        }
    ),
    known_devices=products.known_devices(),
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
def perf_environment(settings: EnvironmentSettings) -> tuple[EnvironmentVariable, ...]:
    """Order GPUs as NVML does, and prepare cuDNN and cuBLAS for the case and for determinism."""
    return numerics.variables(settings)


@hookimpl
def perf_load_runtime() -> RuntimeInfo:
    """Import torch, unless it is another vendor's build."""
    return runtime.load()


@hookimpl
def perf_device_init(rank: Rank) -> torch.device:
    """Make the rank's GPU current."""
    import torch

    return use_device(torch.cuda, "cuda", rank, called="GPU", visible_devices_env=(VARIABLE,))


@hookimpl
def perf_device_info(device: torch.device) -> DeviceInfo:
    """Identify the GPU by its UUID."""
    return devices.identify(device)


@hookimpl
def perf_synchronize(device: torch.device) -> None:
    """Wait for all streams of the GPU."""
    import torch

    torch.cuda.synchronize(device)


@hookimpl
def perf_memory_query(device: torch.device) -> MemoryStats:
    """Read torch's allocator and the GPU's memory."""
    return devices.query_memory(device)


@hookimpl
def perf_memory_reset_peak(device: torch.device) -> None:
    """Reset the peaks of torch's allocator."""
    import torch

    torch.cuda.reset_peak_memory_stats(device)


@hookimpl
def perf_distributed_setup() -> DistributedConfig:
    """Use NCCL for everything: core's collectives are all on the device."""
    import torch.distributed

    if not torch.distributed.is_nccl_available():
        raise DeviceError("this build of torch has no NCCL", hint="install a Linux build of torch with NCCL")
    return DistributedConfig(backend="nccl", timeout_s=_COLLECTIVE_TIMEOUT_S)


@hookimpl
def perf_seed(seed: int, deterministic: bool) -> None:
    """Seed the GPUs, and choose between autotuned and deterministic kernels."""
    numerics.seed(seed, deterministic)


@hookimpl
def perf_precision(requested: Precision, device: torch.device) -> PrecisionPolicy:
    """Run fp32, tf32, amp, fp16 or bf16, as far as the GPU has the format."""
    return numerics.set_up(requested, device, _INFO.capabilities)


@hookimpl
def perf_prepare_model(model: torch.nn.Module, precision: PrecisionPolicy) -> torch.nn.Module:
    """Choose layout and parameter format."""
    return numerics.prepare_model(model, precision.requested)


@hookimpl
def perf_loader_options() -> LoaderOptions:
    """Copy from page-locked memory, so that copies overlap with computation."""
    return LoaderOptions(pin_memory=True)


@hookimpl
def perf_case_overrides(case: str, rank: Rank) -> CaseOverrides:
    """Return FlagPerf's A100 values for the case and topology."""
    return read_case_overrides(_CONFIGS, case, rank)


@hookimpl
def perf_telemetry(device: DeviceInfo) -> TelemetrySample:
    """Read NVML."""
    return nvml.read_sample(device)


@hookimpl
def perf_tool_commands() -> tuple[ToolCommand, ...]:
    """List the driver's files; NVML answers in numbers, not in text."""
    return driver_file_commands()


@hookimpl
def perf_peak_flops(device_name: str, precision: str) -> PeakFlops | None:
    """Look the GPU's data sheet up."""
    return products.peak_flops(device_name, precision)


@hookimpl
def perf_device_teardown() -> None:
    """Put torch's switches back and free cached memory."""
    import torch

    restore_switches()
    torch.cuda.empty_cache()
