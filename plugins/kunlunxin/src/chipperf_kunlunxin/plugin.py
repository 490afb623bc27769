"""Hooks of the Kunlunxin plugin.

Kunlunxin has two incompatible software stacks, :mod:`chipperf_kunlunxin.r300` and :mod:`chipperf_kunlunxin.p800`; the
hooks ask the installed one. Device events are never used for timing: on a P800 they report 0 ms, or hang the
collectives.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from chipperf import (
    DistributedConfig,
    LoaderOptions,
    PluginError,
    RuntimeInfo,
    Title,
    VendorInfo,
    hookimpl,
    read_case_overrides,
    read_products,
)
from chipperf.torchtools import (
    convert_parameters,
    precision_policy,
    require_precision,
    restore_switches,
    set_determinism,
)

from chipperf_kunlunxin import machine, software
from chipperf_kunlunxin.probe import choose_stack, probe
from chipperf_kunlunxin.stack import TOOL_TIMEOUT_S
from chipperf_kunlunxin.xpu_smi import perf_telemetry as perf_telemetry
from chipperf_kunlunxin.xpu_smi import perf_tool_commands as perf_tool_commands
from chipperf_kunlunxin.xpu_smi import query_devices

if TYPE_CHECKING:
    import torch
    from chipperf import (
        CaseOverrides,
        DeviceInfo,
        EnvironmentSettings,
        EnvironmentVariable,
        MemoryStats,
        Precision,
        PrecisionPolicy,
        ProbeResult,
        Rank,
    )

_CONFIGS = Path(__file__).with_name("configs.toml")
_PRODUCTS = Path(__file__).with_name("products.toml")

logger = logging.getLogger(__name__)


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
        known_devices=read_products(_PRODUCTS).known_devices,
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
    """Import torch, Kunlunxin's extension and the collectives' module, and warn of variables that do harm."""
    for hazard in software.hazards_in_force():
        logger.warning("%s", hazard)
    import torch

    stack = choose_stack()
    extension = software.torch_xmlir()
    if stack.uses_flagcx():
        software.import_module("flagcx", "install FlagCX, or choose another backend")
    versions = software.read_stack_versions(getattr(extension, "__version__", None))
    driver = machine.read_driver_version(machine.MACHINE_ROOT)
    return RuntimeInfo(
        torch=torch.__version__,
        driver=driver or query_devices(timeout_s=TOOL_TIMEOUT_S).driver_version,
        sdk=versions.sdk,
        collectives=versions.collectives or stack.collectives,
        framework=versions.framework,
        compiler=versions.compiler,
        knobs=(*software.variables_in_force(), *stack.runtime_knobs()),
    )


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
    if software.event_timing_enabled():
        name = software.EVENT_TIMING
        raise PluginError(
            f"{name}={os.environ[name]} is set: {software.HAZARDS[name]}",
            hint=f"unset {name} and start the run again",
        )
    return DistributedConfig(backend=choose_stack().chosen_backend())


@hookimpl
def perf_seed(seed: int, device: torch.device, deterministic: bool) -> None:
    """Seed all devices; that torch's switches make the stack's kernels deterministic is not known."""
    stack = choose_stack()
    stack.device_module().manual_seed_all(seed)
    set_determinism(deterministic, cudnn=stack.device_type == "cuda")


@hookimpl
def perf_precision(requested: Precision, device: torch.device) -> PrecisionPolicy:
    """Set the stack up for a precision, or refuse it, and say in what fp32 products are computed."""
    stack = choose_stack()
    require_precision(requested, stack.capabilities, who=stack.who, reasons=stack.refusals)
    knobs = (*software.product_type_knobs(), *stack.precision_knobs())
    effective = software.effective_fp32() if requested == "fp32" else None
    return precision_policy(requested, knobs=knobs, effective=effective)


@hookimpl
def perf_prepare_model(model: torch.nn.Module, precision: PrecisionPolicy, device: torch.device) -> torch.nn.Module:
    """Convert parameters for fp16; leave the model alone otherwise."""
    return convert_parameters(model, precision.requested)


@hookimpl
def perf_loader_options(device: torch.device) -> LoaderOptions:
    """Ask for page-locked memory where the stack has it."""
    return LoaderOptions(pin_memory=choose_stack().pin_memory)


@hookimpl
def perf_case_overrides(case: str, rank: Rank) -> CaseOverrides:
    """Return FlagPerf's R300 values for the case and topology."""
    return read_case_overrides(_CONFIGS, case, rank)


@hookimpl
def perf_device_teardown(device: torch.device) -> None:
    """Give cached memory back and restore what the plugin changed in torch."""
    empty_cache = getattr(choose_stack().device_module(), "empty_cache", None)
    if empty_cache is not None:
        empty_cache()
    restore_switches()
