"""SIMULATED: hooks of the Acme A1, a plugin without a known fault.

The contract suite's mutants are this text with one snippet replaced, so every fact has a line of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from chipperf import (
    Capability,
    CaseOverride,
    CaseOverrides,
    DeviceError,
    DeviceInfo,
    DistributedConfig,
    EnvironmentVariable,
    Knob,
    KnownDevice,
    LoaderOptions,
    MemoryStats,
    PeakFlops,
    ProbedDevice,
    ProbeResult,
    RuntimeInfo,
    TelemetrySample,
    Title,
    ToolCommand,
    VendorInfo,
    hookimpl,
)
from chipperf.torchtools import (
    Switch,
    convert_parameters,
    precision_policy,
    require_precision,
    restore_switches,
    set_determinism,
    set_switch,
)

if TYPE_CHECKING:
    import torch
    from chipperf import EnvironmentSettings, Precision, PrecisionPolicy, Rank

_DEVICE_TYPE: Final = "acme"
_COLLECTIVES: Final = "accl"
_PRODUCT: Final = "Acme A1"
_VISIBLE_VARIABLE: Final = "ACME_VISIBLE_CARDS"

_INFO: Final = VendorInfo(
    name="acme",
    title=Title(zh="艾克米（模拟）", en="Acme (simulated)"),
    report_title=Title(zh="Acme A1（模拟）配置与运行信息参考", en="Acme A1 (simulated) configuration and results"),
    device_type=_DEVICE_TYPE,
    visible_devices_env=(_VISIBLE_VARIABLE,),
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
    known_devices=(KnownDevice(name=_PRODUCT, short_name="A1"),),
)

_PEAK_FLOPS_PER_S: Final = 100e9


@hookimpl
def perf_vendor_info() -> VendorInfo:
    """Name the simulated vendor."""
    return _INFO


@hookimpl
def perf_probe() -> ProbeResult:
    """Ask the management library, if it is installed, for the visible cards."""
    try:
        import acme_runtime
    except ImportError as error:
        reason = f"acme_runtime cannot be imported ({error}); install Acme's SDK"
        return ProbeResult(available=False, reason=reason)
    version = acme_runtime.driver_version()
    if version is None:
        reason = "the acme driver is not loaded; the card is simulated: set ACME_DRIVER=1"
        return ProbeResult(available=False, reason=reason)
    devices = tuple(
        ProbedDevice(
            index=card.index, name=card.name, uuid=card.uuid, pci_bus_id=card.pci_bus_id, total_bytes=card.total_bytes
        )
        for card in acme_runtime.cards()
    )
    if not devices:
        reason = f"driver {version} is loaded, but {_VISIBLE_VARIABLE} shows no card; unset it, or list card numbers"
        return ProbeResult(available=False, reason=reason, driver_version=version)
    reason = f"driver {version} lists {len(devices)} simulated card(s)"
    return ProbeResult(available=True, reason=reason, devices=devices, driver_version=version)


@hookimpl
def perf_environment(rank: Rank, settings: EnvironmentSettings) -> tuple[EnvironmentVariable, ...]:
    """Keep every card on one core of the host, which computes for it."""
    reason = "the host computes for the simulated card, one core for each"
    threads = EnvironmentVariable(name="OMP_NUM_THREADS", value="1", reason=reason)
    if not settings.deterministic:
        return (threads,)
    return (threads, EnvironmentVariable(name="ACME_ORDERED_SUMS", value="1", reason="equal sums in every run"))


@hookimpl
def perf_load_runtime() -> RuntimeInfo:
    """Load the torch backend and the collective library."""
    import acme_runtime

    acme_runtime.load()

    import torch

    return RuntimeInfo(
        torch=torch.__version__,
        driver=acme_runtime.driver_version(),
        sdk=f"Acme SDK {acme_runtime.SDK_VERSION}",
        collectives=f"accl {acme_runtime.collectives.VERSION}",
        framework=f"pytorch-{torch.__version__} with the simulated acme backend",
    )


@hookimpl
def perf_device_init(rank: Rank) -> torch.device:
    """Make the card whose index is the local rank current."""
    import torch

    available = _torch_acme().device_count()
    if rank.local_rank >= available:
        raise DeviceError(
            f"local rank {rank.local_rank} needs card {rank.local_rank}, but {available} card(s) are visible",
            hint=f"use fewer processes, or show more cards with {_VISIBLE_VARIABLE}",
        )
    device = torch.device(_DEVICE_TYPE, rank.local_rank)
    _torch_acme().set_device(device)
    return device


@hookimpl
def perf_device_info(device: torch.device) -> DeviceInfo:
    """Identify the card."""
    properties = _torch_acme().get_device_properties(device)
    return DeviceInfo(
        index=properties.index,
        name=properties.name,
        uuid=properties.uuid,
        pci_bus_id=properties.pci_bus_id,
        total_bytes=properties.total_bytes,
    )


@hookimpl
def perf_synchronize(device: torch.device) -> None:
    """Wait for the card's queue."""
    _torch_acme().synchronize(device)


@hookimpl
def perf_memory_query(device: torch.device) -> MemoryStats:
    """Read the allocator's counters, and what all processes use of the card."""
    free_bytes, total_bytes = _torch_acme().mem_get_info(device)
    return MemoryStats(
        source="torch.acme allocator, simulated",
        allocated_bytes=_torch_acme().memory_allocated(device),
        peak_allocated_bytes=_torch_acme().max_memory_allocated(device),
        reserved_bytes=_torch_acme().memory_reserved(device),
        peak_reserved_bytes=_torch_acme().max_memory_reserved(device),
        used_bytes=total_bytes - free_bytes,
        total_bytes=total_bytes,
    )


@hookimpl
def perf_memory_reset_peak(device: torch.device) -> None:
    """Reset the allocator's peaks."""
    _torch_acme().reset_peak_memory_stats(device)


@hookimpl
def perf_distributed_setup(rank: Rank, device: torch.device) -> DistributedConfig:
    """Use accl on cards, and gloo for what stays on the host."""
    return DistributedConfig(backend=f"cpu:gloo,{_DEVICE_TYPE}:{_COLLECTIVES}", timeout_s=600.0)


@hookimpl
def perf_seed(seed: int, device: torch.device, deterministic: bool) -> None:
    """Seed every card and choose deterministic kernels if asked to."""
    _torch_acme().manual_seed_all(seed)
    set_determinism(deterministic)


@hookimpl
def perf_precision(requested: Precision, device: torch.device) -> PrecisionPolicy:
    """Run every precision; fp32 without TF32."""
    require_precision(requested, _INFO.capabilities, who="the Acme A1")
    tf32 = Switch(_torch_acme().get_allow_tf32, _torch_acme().set_allow_tf32)
    set_switch("acme.allow_tf32", requested == "tf32", switch=tf32)
    reason = "fp32 products are rounded to TF32 only if that was asked for"
    knob = Knob(name="acme.allow_tf32", value=str(_torch_acme().get_allow_tf32()), reason=reason)
    return precision_policy(requested, knobs=(knob,))


@hookimpl
def perf_prepare_model(model: torch.nn.Module, precision: PrecisionPolicy, device: torch.device) -> torch.nn.Module:
    """Lay convolution weights out channels-last, and convert parameters for fp16."""
    import torch

    convert_parameters(model, precision.requested)
    return model.to(memory_format=torch.channels_last)


@hookimpl
def perf_loader_options(device: torch.device) -> LoaderOptions:
    """Ask for nothing: the cards copy from ordinary memory."""
    return LoaderOptions()


@hookimpl
def perf_case_overrides(case: str, rank: Rank, device_name: str) -> CaseOverrides:
    """Evaluate with batches that fit into a simulated card."""
    reason = "the memory of a simulated card is small"
    return CaseOverrides(overrides=(CaseOverride(key="eval_batch_size", value=4, reason=reason),))


@hookimpl
def perf_telemetry(device: DeviceInfo) -> TelemetrySample:
    """Read the simulated sensors of the card with this UUID."""
    import acme_runtime

    if device.uuid is None:
        raise DeviceError(f"{device.name} has no UUID to find it by")
    try:
        readings = acme_runtime.telemetry(device.uuid)
    except acme_runtime.CardNotFound as error:
        raise DeviceError(f"the management library does not know {device.uuid}") from error
    return TelemetrySample(
        source="acme_runtime, simulated",
        power_w=readings.power_w,
        temperature_c=readings.temperature_c,
        utilization_percent=readings.utilization_percent,
        memory_used_bytes=readings.memory_used_bytes,
        clock_mhz=readings.clock_mhz,
    )


@hookimpl
def perf_tool_commands() -> tuple[ToolCommand, ...]:
    """List none: the management library answers in numbers."""
    return ()


@hookimpl
def perf_peak_flops(device_name: str, precision: str) -> PeakFlops | None:
    """Return the rate of the simulation's convolutions, which is the same for every precision."""
    if device_name != _PRODUCT:
        return None
    return PeakFlops(flops_per_s=_PEAK_FLOPS_PER_S, source="kConvolutionFlopsPerS of the simulation")


@hookimpl
def perf_step_end(device: torch.device) -> None:
    """Do nothing: every operator is queued when it is called."""


@hookimpl
def perf_device_teardown(device: torch.device) -> None:
    """Put the switches back and free cached memory."""
    restore_switches()
    _torch_acme().empty_cache()


def _torch_acme() -> Any:
    """Return ``torch.acme``, which exists once the runtime is loaded."""
    import torch

    return getattr(torch, _DEVICE_TYPE)
