"""Hooks of the MetaX plugin: C500 family under MACA builds of torch, whose devices are called ``cuda``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from chipperf import (
    Capability,
    DeviceError,
    DeviceInfo,
    DistributedConfig,
    KnownDevice,
    LoaderOptions,
    Title,
    ToolCommand,
    VendorInfo,
    hookimpl,
    read_case_overrides,
)
from chipperf.torchtools import read_memory, restore_switches, use_device

from chipperf_metax import numerics
from chipperf_metax.mx_smi import Query, find_mx_smi
from chipperf_metax.probe import VISIBLE_VARIABLES, probe
from chipperf_metax.runtime import load_runtime
from chipperf_metax.telemetry import Sampler

if TYPE_CHECKING:
    import torch
    from chipperf import (
        CaseOverrides,
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
_CONFIGS = Path(__file__).with_name("configs.toml")

_INFO = VendorInfo(
    name="metax",
    title=Title(zh="沐曦", en="MetaX"),
    report_title=Title(zh="沐曦集成电路 C500 GPU配置与运行信息参考", en="MetaX C500 GPU configuration and results"),
    device_type="cuda",
    visible_devices_env=VISIBLE_VARIABLES,
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
    return numerics.worker_environment(settings)


@hookimpl
def perf_load_runtime() -> RuntimeInfo:
    """Import torch, which must be a MACA build, and read the versions of the stack."""
    return load_runtime()


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
def perf_seed(seed: int, device: torch.device, deterministic: bool) -> None:
    """Seed the device's generators, and decide between autotuned and reproducible kernels."""
    numerics.seed(seed, deterministic)


@hookimpl
def perf_precision(requested: Precision, device: torch.device) -> PrecisionPolicy:
    """Run fp32 as fp32: TF32 only if it is asked for."""
    return numerics.set_up(requested, device, _INFO.capabilities)


@hookimpl
def perf_prepare_model(model: torch.nn.Module, precision: PrecisionPolicy, device: torch.device) -> torch.nn.Module:
    """Lay convolution weights out as this build lays out images, and convert parameters for fp16."""
    return numerics.prepare_model(model, precision.requested)


@hookimpl
def perf_loader_options(device: torch.device) -> LoaderOptions:
    """Copy batches from page-locked memory."""
    return LoaderOptions(pin_memory=True)


@hookimpl
def perf_case_overrides(case: str, rank: Rank) -> CaseOverrides:
    """Return FlagPerf's C500 values for the case and topology."""
    return read_case_overrides(_CONFIGS, case, rank)


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

    restore_switches()
    torch.cuda.empty_cache()
