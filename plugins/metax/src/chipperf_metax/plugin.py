"""Hooks of the MetaX plugin: C500 family under MACA builds of torch, whose devices are called ``cuda``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from chipperf import (
    Capability,
    CaseOverrides,
    DistributedConfig,
    KnownDevice,
    LoaderOptions,
    Title,
    ToolCommand,
    VendorInfo,
    hookimpl,
)

from chipperf_metax import device as devices
from chipperf_metax import precision as precisions
from chipperf_metax import torch_flags
from chipperf_metax.configs import CONFIGS
from chipperf_metax.environment import AUTOTUNE_VARIABLE, worker_environment
from chipperf_metax.memory import read_memory
from chipperf_metax.mx_smi import Query, find_mx_smi
from chipperf_metax.probe import probe
from chipperf_metax.runtime import load_runtime
from chipperf_metax.telemetry import Sampler
from chipperf_metax.visible_devices import VARIABLES

if TYPE_CHECKING:
    import torch
    from chipperf import (
        DeviceInfo,
        EnvironmentSettings,
        EnvironmentVariable,
        MemoryStats,
        Precision,
        PrecisionPolicy,
        ProbeResult,
        Rank,
        RuntimeInfo,
        TelemetrySample,
    )

_GIB = 2**30

_INFO = VendorInfo(
    name="metax",
    title=Title(zh="沐曦", en="MetaX"),
    report_title=Title(zh="沐曦集成电路 C500 GPU配置与运行信息参考", en="MetaX C500 GPU configuration and results"),
    device_type="cuda",
    visible_devices_env=VARIABLES,
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
    known_devices=(
        # torch names the board "MetaX C500"; mx-smi, older software and published reports name its chip, MXC500.
        KnownDevice(name="MXC500", short_name="MXC500", memory_bytes=64 * _GIB),
        KnownDevice(name="MetaX C500", short_name="MXC500", memory_bytes=64 * _GIB),
        KnownDevice(name="MetaX C550", short_name="C550", memory_bytes=64 * _GIB),
        # White label of the same family, whose tool is ht-smi.
        KnownDevice(name="Mars X201", short_name="X201", memory_bytes=64 * _GIB),
    ),
)

# Serial numbers of chip (like "AB1C23_45_6_7") and board (like "ABCD0123456789").
_SERIAL_NUMBERS = (r"\b[A-Z0-9]+(?:_\d+){3}\b", r"\b[A-Z]{4}\d{10}\b")

_sampler = Sampler()


@hookimpl
def perf_vendor_info() -> VendorInfo:
    """Name MetaX, its products and what this plugin can do."""
    return _INFO


@hookimpl
def perf_probe() -> ProbeResult:
    """Find MetaX's PCI devices and driver, and ask mx-smi about them."""
    return probe()


@hookimpl
def perf_environment(rank: Rank, settings: EnvironmentSettings) -> tuple[EnvironmentVariable, ...]:
    """Name the SDK, ask for reproducible kernels if wanted, and refuse contradicting choices of devices."""
    return worker_environment(settings)


@hookimpl
def perf_load_runtime() -> RuntimeInfo:
    """Import torch, which must be a MACA build, and read the versions of the stack."""
    return load_runtime()


@hookimpl
def perf_device_init(rank: Rank) -> torch.device:
    """Make the GPU, or slice, of the local rank current."""
    return devices.init_device(rank)


@hookimpl
def perf_device_info(device: torch.device) -> DeviceInfo:
    """Identify the GPU, or slice, by torch's properties."""
    return devices.device_info(device)


@hookimpl
def perf_synchronize(device: torch.device) -> None:
    """Wait for every stream of the device. Events are not used: they were seen to measure nothing."""
    import torch

    torch.cuda.synchronize(device)


@hookimpl
def perf_memory_query(device: torch.device) -> MemoryStats:
    """Read torch's allocator and the runtime's memory of the device."""
    return read_memory(device)


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
def perf_seed(seed: int, device: torch.device, deterministic: bool) -> None:
    """Seed the device's generators, and decide between autotuned and reproducible kernels."""
    import torch

    torch.cuda.manual_seed_all(seed)
    torch_flags.change(torch_flags.DETERMINISTIC_ALGORITHMS, deterministic)
    torch_flags.change(torch_flags.DETERMINISTIC_CONVOLUTION, deterministic)
    torch_flags.change(torch_flags.AUTOTUNE, not deterministic and os.environ.get(AUTOTUNE_VARIABLE) == "1")


@hookimpl
def perf_precision(requested: Precision, device: torch.device) -> PrecisionPolicy:
    """Run fp32 as fp32: TF32 only if it is asked for."""
    return precisions.apply(requested, device)


@hookimpl
def perf_prepare_model(model: torch.nn.Module, precision: PrecisionPolicy, device: torch.device) -> torch.nn.Module:
    """Lay convolution weights out as this build lays out images, and convert parameters for fp16."""
    return precisions.prepare_model(model, precision)


@hookimpl
def perf_loader_options(device: torch.device) -> LoaderOptions:
    """Copy batches from page-locked memory."""
    return LoaderOptions(pin_memory=True)


@hookimpl
def perf_case_overrides(case: str, rank: Rank) -> CaseOverrides:
    """Return FlagPerf's C500 values for the case and topology."""
    topology = rank.topology
    no_row = f"FlagPerf has no MetaX configuration of {case} on {topology}: the case's base values apply"
    return CONFIGS.get((case, topology), CaseOverrides(notes=(no_row,)))


@hookimpl
def perf_telemetry(device: DeviceInfo) -> TelemetrySample:
    """Read the board's power, temperature, utilisation and memory from pymxsml or mx-smi."""
    return _sampler.sample(device)


@hookimpl
def perf_tool_commands() -> tuple[ToolCommand, ...]:
    """List every call of mx-smi that this plugin makes."""
    tool = find_mx_smi() or "mx-smi"
    return tuple(
        ToolCommand(name=f"mx-smi-{query.name.lower()}", argv=(tool, *query.value), private_patterns=_SERIAL_NUMBERS)
        for query in Query
    )


@hookimpl
def perf_device_teardown(device: torch.device) -> None:
    """Put torch's switches back and give cached memory back."""
    import torch

    torch_flags.restore()
    torch.cuda.empty_cache()
