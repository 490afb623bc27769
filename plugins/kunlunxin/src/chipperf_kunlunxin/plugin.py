"""Hooks of the Kunlunxin plugin.

Kunlunxin has two incompatible software stacks, :mod:`chipperf_kunlunxin.r300` and :mod:`chipperf_kunlunxin.p800`; the
hooks ask the installed one. Device events are never used for timing: on a P800 they report 0 ms, or hang the
collectives.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from chipperf import KnownDevice, Title, ToolCommand, VendorInfo, hookimpl, read_case_overrides

from chipperf_kunlunxin.probe import choose_stack, probe
from chipperf_kunlunxin.xpu_smi import TelemetryReader, find_xpu_smi

if TYPE_CHECKING:
    import torch
    from chipperf import (
        CaseOverrides,
        DeviceInfo,
        DistributedConfig,
        EnvironmentSettings,
        EnvironmentVariable,
        LoaderOptions,
        MemoryStats,
        Precision,
        PrecisionPolicy,
        ProbeResult,
        Rank,
        RuntimeInfo,
        TelemetrySample,
    )

_CONFIGS = Path(__file__).with_name("configs.toml")
_GIB = 2**30
_MIB = 2**20
_SERIAL_NUMBER = r"\b02K[0-9A-Z]{8,}\b"

_telemetry = TelemetryReader()


@hookimpl
def perf_vendor_info() -> VendorInfo:
    """Name Kunlunxin and its products; the device type is that of the installed stack."""
    stack = choose_stack()
    return VendorInfo(
        name="kunlunxin",
        title=Title(zh="昆仑芯", en="Kunlunxin"),
        report_title=Title(zh="昆仑芯XPU配置与运行信息参考", en="Kunlunxin XPU configuration and results"),
        device_type=stack.device_type,
        visible_devices_env=(stack.visible_devices_env,),
        capabilities=stack.capabilities,
        known_devices=(
            KnownDevice(name="R300", short_name="R300", memory_bytes=32 * _GIB),
            KnownDevice(name="R200", short_name="R200", memory_bytes=16 * _GIB),
            # A card carries two of these devices.
            KnownDevice(name="K200", short_name="K200", memory_bytes=8064 * _MIB),
            KnownDevice(name="P800 OAM", short_name="P800", memory_bytes=96 * _GIB),
            KnownDevice(name="P800 PCIe", short_name="P800-PCIe", memory_bytes=96 * _GIB),
        ),
    )


@hookimpl
def perf_probe() -> ProbeResult:
    """Find Kunlunxin's PCI devices and driver, and ask xpu-smi about them."""
    return probe()


@hookimpl
def perf_environment(rank: Rank, settings: EnvironmentSettings) -> tuple[EnvironmentVariable, ...]:
    """Return what the stack and its collectives read when the interpreter starts."""
    return choose_stack().environment(rank, settings)


@hookimpl
def perf_load_runtime() -> RuntimeInfo:
    """Import torch and Kunlunxin's extension; warn of variables that do harm."""
    return choose_stack().load_runtime()


@hookimpl
def perf_device_init(rank: Rank) -> torch.device:
    """Make the rank's device ready and return it."""
    return choose_stack().device_init(rank)


@hookimpl
def perf_device_info(device: torch.device) -> DeviceInfo:
    """Identify the device by UUID (P800) or by its place among the visible devices (R300)."""
    return choose_stack().device_info(device)


@hookimpl
def perf_synchronize(device: torch.device) -> None:
    """Wait for all queued work of the device."""
    choose_stack().synchronize(device)


@hookimpl
def perf_memory_query(device: torch.device) -> MemoryStats:
    """Read the allocator's counters (P800) or the device's use by the management tool (R300)."""
    return choose_stack().memory_query(device)


@hookimpl
def perf_memory_reset_peak(device: torch.device) -> None:
    """Set the allocator's peaks back, where there are any."""
    choose_stack().memory_reset_peak(device)


@hookimpl
def perf_distributed_setup(rank: Rank, device: torch.device) -> DistributedConfig:
    """Use the stack's backend or the one of ``PERF_KUNLUNXIN_BACKEND``."""
    return choose_stack().distributed_setup()


@hookimpl
def perf_seed(seed: int, device: torch.device, deterministic: bool) -> None:
    """Seed the devices' generators."""
    choose_stack().seed(seed, deterministic)


@hookimpl
def perf_precision(requested: Precision, device: torch.device) -> PrecisionPolicy:
    """Set the stack up for a precision, or refuse it."""
    return choose_stack().precision(requested)


@hookimpl
def perf_prepare_model(model: torch.nn.Module, precision: PrecisionPolicy, device: torch.device) -> torch.nn.Module:
    """Turn the model to fp16 where that was requested."""
    return choose_stack().prepare_model(model, precision.requested)


@hookimpl
def perf_loader_options(device: torch.device) -> LoaderOptions:
    """Ask for page-locked memory where the stack has it."""
    return choose_stack().loader_options()


@hookimpl
def perf_case_overrides(case: str, rank: Rank) -> CaseOverrides:
    """Return FlagPerf's R300 values for the case and topology."""
    return read_case_overrides(_CONFIGS, case, rank)


@hookimpl
def perf_telemetry(device: DeviceInfo) -> TelemetrySample:
    """Read the device's values from one call of xpu-smi for all devices."""
    return _telemetry.sample(device)


@hookimpl
def perf_tool_commands() -> tuple[ToolCommand, ...]:
    """List the calls of xpu-smi whose output is parsed; ``-r``, which resets the device, is never called."""
    tool = find_xpu_smi() or "xpu-smi"
    calls = {"xpu-smi-m": ("-m",), "xpu-smi-q": ("-q",), "xpu-smi-L": ("-L",), "xpu-smi-table": ()}
    return tuple(
        ToolCommand(name=name, argv=(tool, *options), private_patterns=(_SERIAL_NUMBER,))
        for name, options in calls.items()
    )


@hookimpl
def perf_device_teardown(device: torch.device) -> None:
    """Give cached memory back and restore what the plugin changed in torch."""
    choose_stack().device_teardown()
