"""Hooks of the Kunlunxin plugin.

Kunlunxin has two incompatible software stacks, see :mod:`chipperf_kunlunxin.stacks`; the hooks ask the installed one.
Device events are never used for timing: on a P800 they report 0 ms, or hang the collectives.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from chipperf import (
    DeviceError,
    DeviceInfo,
    DistributedConfig,
    Knob,
    LoaderOptions,
    MemoryStats,
    PluginError,
    RuntimeInfo,
    hookimpl,
    read_case_overrides,
    read_vendor_info,
    torchtools,
)
from chipperf.hardware import DeviceReading, find_pci_devices, find_reading

from chipperf_kunlunxin import probe, stacks
from chipperf_kunlunxin.stacks import HAZARDS, P800, R300, VARIABLES, choose_stack, hazards_in_force, torch_xmlir
from chipperf_kunlunxin.xpu_smi import DeviceReader, layout_reader, normalize_uuid, query_devices
from chipperf_kunlunxin.xpu_smi import perf_telemetry as perf_telemetry
from chipperf_kunlunxin.xpu_smi import perf_tool_commands as perf_tool_commands

if TYPE_CHECKING:
    import torch
    from chipperf import (
        CaseOverrides,
        EnvironmentSettings,
        EnvironmentVariable,
        Precision,
        PrecisionPolicy,
        ProbeResult,
        Rank,
        VendorInfo,
    )
    from chipperf.hardware import DeviceReport

_CONFIGS: Final = Path(__file__).with_name("configs.toml")
_PRODUCTS: Final = Path(__file__).with_name("products.toml")

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
    return probe.probe()


@hookimpl
def perf_environment(rank: Rank, settings: EnvironmentSettings) -> tuple[EnvironmentVariable, ...]:
    """Return what the stack and its collectives read when the interpreter starts, by the tables of the stack."""
    stack = choose_stack()
    tables = {
        stack.name: True,
        f"{stack.name}-{settings.case}": True,
        f"{stack.name}-devices": rank.world_size > 1,
        f"{stack.name}-flagcx": rank.world_size > 1 and stack.uses_flagcx(),
        f"{stack.name}-machines": rank.node_count > 1,
    }
    applied = [table for table, applies in tables.items() if applies]
    return tuple(variable for table in applied for variable in VARIABLES.settings.get(table, ()))


@hookimpl
def perf_load_runtime() -> RuntimeInfo:
    """Import torch, Kunlunxin's extension and the collectives' module, and warn of variables that do harm."""
    for hazard in hazards_in_force().values():
        logger.warning("%s", hazard)
    import torch

    stack = choose_stack()
    extension = torch_xmlir()
    if stack.uses_flagcx():
        stacks.import_module("flagcx", "install FlagCX, or choose another backend")
    versions = stacks.read_stack_versions(getattr(extension, "__version__", None))
    stray = VARIABLES.meanings["p800-stray"] if stack is P800 else {}
    known = dict(sorted({**HAZARDS, **VARIABLES.meanings["reported"], **stray}.items()))
    knobs = torchtools.user_variables(known)
    if stack is P800:
        narrowed = Knob(name="float64", value="computed as float32", reason="the stack narrows float64 without a word")
        switches = torchtools.switch_knobs(VARIABLES.meanings["p800-runtime-switches"])
        knobs += (narrowed, *switches)
    else:
        versions["collectives"] = "XCCL"
    driver = probe.read_driver_version(probe.MACHINE_ROOT) or query_devices().driver_version
    return RuntimeInfo(torch=torch.__version__, driver=driver, knobs=knobs, **versions)


@hookimpl
def perf_device_init(rank: Rank) -> torch.device:
    """Make the rank's device ready and return it; the R300's stack has no current device to set."""
    stack = choose_stack()
    variable = stack.visible_devices_env
    if stack is P800:
        return torchtools.use_device(_torch_module(), "cuda", rank, called="XPU", visible_devices_env=(variable,))
    nodes = probe.find_device_nodes(probe.MACHINE_ROOT)
    count = len(stack.visible([DeviceReading(device_id=node) for node in nodes]))
    if rank.local_rank >= count:
        raise DeviceError(
            f"local rank {rank.local_rank} has no device: {count} XPU(s) are visible",
            hint=f"start at most {count} processes, or check {variable}",
        )
    device: torch.device = torch_xmlir().device(f"xpu:{rank.local_rank}")
    return device


@hookimpl
def perf_device_info(device: torch.device) -> DeviceInfo:
    """Identify the device by UUID (P800) or by its place among the visible devices (R300)."""
    reading = _reading_of(device, DeviceReader().read())
    cards = filter(probe.is_kunlunxin, find_pci_devices(probe.MACHINE_ROOT / "sys/bus/pci/devices"))
    return DeviceInfo(**reading.identity(device.index or 0, probe.product_name(cards)))


@hookimpl
def perf_synchronize(device: torch.device) -> None:
    """Wait for all queued work of the device; on the R300 it is that of the process."""
    import torch

    if choose_stack() is P800:
        torch.cuda.synchronize(device)
    else:
        torch_xmlir().xpu.xpu_synchronize()


@hookimpl
def perf_memory_query(device: torch.device) -> MemoryStats:
    """Read the allocator's counters (P800), or what the tool says (R300), so that peaks are those of telemetry."""
    if choose_stack() is P800:
        return torchtools.read_memory(_torch_module(), device)
    report = layout_reader().read(timeout_s=2.0)
    reading = _reading_of(device, report)
    return MemoryStats(
        source=f"{report.source}, sampled device memory" if report.source else f"unknown: {report.problem}",
        used_bytes=reading.memory_used_bytes,
        total_bytes=reading.memory_total_bytes,
    )


@hookimpl
def perf_memory_reset_peak(device: torch.device) -> None:
    """Set the allocator's peaks back; the R300's stack has none, and XPyTorch may have taken the function out."""
    torchtools.call_if_there(_torch_module(), "reset_peak_memory_stats", device)


@hookimpl
def perf_distributed_setup(rank: Rank, device: torch.device) -> DistributedConfig:
    """Use the stack's backend or the one of ``PERF_KUNLUNXIN_BACKEND``."""
    hazard = hazards_in_force().get("XPU_EVENT_KL3_ENABLE")
    if hazard:
        raise PluginError(hazard, hint="unset XPU_EVENT_KL3_ENABLE and start the run again")
    return DistributedConfig(backend=choose_stack().chosen_backend())


@hookimpl
def perf_seed(seed: int, device: torch.device, deterministic: bool) -> None:
    """Seed all devices; that torch's switches make the stack's kernels deterministic is not known."""
    _torch_module().manual_seed_all(seed)
    torchtools.set_determinism(deterministic, cudnn=choose_stack() is P800)


@hookimpl
def perf_precision(requested: Precision, device: torch.device) -> PrecisionPolicy:
    """Set the stack up for a precision, or refuse it, and say in what fp32 products are computed."""
    stack = choose_stack()
    who, reasons = f"chipperf on the {stack.name.upper()}", VARIABLES.meanings[f"{stack.name}-refusals"]
    torchtools.require_precision(requested, stack.capabilities, who=who, reasons=reasons)
    knobs, fp32 = stacks.fp32_products()
    if stack is P800:
        torchtools.set_switch(torchtools.MATMUL_PRECISION, "highest")
        torchtools.set_switch(torchtools.CUDNN_TF32, False)
        knobs += torchtools.switch_knobs(VARIABLES.meanings["p800-precision-switches"])
    return torchtools.precision_policy(requested, knobs=knobs, effective=fp32 if requested == "fp32" else None)


@hookimpl
def perf_loader_options(device: torch.device) -> LoaderOptions:
    """Ask for page-locked memory on the P800, where copies from it were seen to be right; the R300 may have none."""
    return LoaderOptions(pin_memory=choose_stack() is P800)


@hookimpl
def perf_case_overrides(case: str, rank: Rank) -> CaseOverrides:
    """Return FlagPerf's R300 values for the case and topology."""
    return read_case_overrides(_CONFIGS, case, rank)


@hookimpl
def perf_device_teardown(device: torch.device) -> None:
    """Give cached memory back and restore what the plugin changed in torch."""
    torchtools.call_if_there(_torch_module(), "empty_cache")
    torchtools.restore_switches()


def _torch_module() -> Any:
    """Return ``torch.cuda``, which XPyTorch replaces, or the module of the R300's extension."""
    import torch

    return torch.cuda if choose_stack() is P800 else torch_xmlir().xpu


def _reading_of(device: torch.device, report: DeviceReport) -> DeviceReading:
    stack = choose_stack()
    if stack is R300:
        # xpu:N is the N-th visible one, which nothing lets us check.
        return dict(enumerate(stack.visible(report.readings))).get(device.index or 0, DeviceReading())
    # torch calls every device GPU and gives it the PCI address 0, but its UUID.
    properties = _torch_module().get_device_properties(device)
    uuid = normalize_uuid(str(getattr(properties, "uuid", None) or ""))
    found = find_reading(report.readings, uuid=uuid, pci_bus_id=None) or DeviceReading()
    return replace(found, uuid=uuid, memory_total_bytes=int(properties.total_memory))
