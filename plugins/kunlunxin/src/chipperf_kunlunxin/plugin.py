"""Hooks of the Kunlunxin plugin.

Kunlunxin has two incompatible software stacks, see :mod:`chipperf_kunlunxin.stacks`; the hooks ask the installed one.
Device events are never used for timing: on a P800 they report 0 ms, or hang the collectives.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from chipperf import (
    DistributedConfig,
    LoaderOptions,
    PluginError,
    RuntimeInfo,
    hookimpl,
    read_case_overrides,
    read_vendor_info,
)
from chipperf.torchtools import (
    convert_parameters,
    precision_policy,
    require_precision,
    restore_switches,
    set_determinism,
)

from chipperf_kunlunxin import machine
from chipperf_kunlunxin.probe import choose_stack, probe
from chipperf_kunlunxin.stacks import TOOL_TIMEOUT_S
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
        VendorInfo,
    )

_CONFIGS = Path(__file__).with_name("configs.toml")
_PRODUCTS = Path(__file__).with_name("products.toml")

logger = logging.getLogger(__name__)


@hookimpl
def perf_vendor_info() -> VendorInfo:
    """Name Kunlunxin and its products; the device type is that of the installed stack."""
    stack = choose_stack()
    return read_vendor_info(
        _PRODUCTS,
        device_type=stack.device_type,
        visible_devices_env=(stack.visible_devices_env,),
        capabilities=stack.capabilities,
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
    for hazard in machine.hazards_in_force().values():
        logger.warning("%s", hazard)
    import torch

    stack = choose_stack()
    extension = machine.torch_xmlir()
    if stack.uses_flagcx():
        machine.import_module("flagcx", "install FlagCX, or choose another backend")
    versions = machine.read_stack_versions(getattr(extension, "__version__", None))
    versions["collectives"] = versions.get("collectives") or stack.collectives
    driver = machine.read_driver_version(machine.MACHINE_ROOT)
    return RuntimeInfo(
        torch=torch.__version__,
        driver=driver or query_devices(timeout_s=TOOL_TIMEOUT_S).driver_version,
        knobs=(*machine.variables_in_force(), *stack.runtime_knobs()),
        **versions,
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
    """Set the allocator's peaks back; the R300's stack has none, and XPyTorch may have taken the function out."""
    _call_if_there("reset_peak_memory_stats", device)


@hookimpl
def perf_distributed_setup(rank: Rank, device: torch.device) -> DistributedConfig:
    """Use the stack's backend or the one of ``PERF_KUNLUNXIN_BACKEND``."""
    hazard = machine.hazards_in_force().get(machine.EVENT_TIMING)
    if hazard:
        raise PluginError(hazard, hint=f"unset {machine.EVENT_TIMING} and start the run again")
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
    who, reasons = f"chipperf on the {stack.name.upper()}", machine.VARIABLES.meanings[f"{stack.name}-refusals"]
    require_precision(requested, stack.capabilities, who=who, reasons=reasons)
    knobs = (*machine.product_type_knobs(), *stack.precision_knobs())
    effective = machine.effective_fp32() if requested == "fp32" else None
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
    _call_if_there("empty_cache")
    restore_switches()


def _call_if_there(function: str, *arguments: object) -> None:
    call = getattr(choose_stack().device_module(), function, None)
    if call is not None:
        call(*arguments)
