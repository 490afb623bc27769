"""The R300's stack: torch with ``torch_xmlir``, device type ``xpu``, collectives ``xccl``.

Upstream torch gives the names ``xpu`` and ``xccl`` to Intel's devices; nothing here uses ``torch.xpu``.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from chipperf import (
    Capability,
    DeviceError,
    DeviceInfo,
    DistributedConfig,
    EnvironmentVariable,
    LoaderOptions,
    MemoryStats,
    PrecisionPolicy,
    RuntimeInfo,
    UnsupportedPrecision,
)

from chipperf_kunlunxin import machine, runtime
from chipperf_kunlunxin.collectives import collective_config
from chipperf_kunlunxin.configs import R300_CASE_ENVIRONMENT
from chipperf_kunlunxin.precision import effective_fp32, product_type_knobs
from chipperf_kunlunxin.torch_flags import restore_flags, set_flag
from chipperf_kunlunxin.visibility import visible_devices
from chipperf_kunlunxin.xpu_reading import XpuReading
from chipperf_kunlunxin.xpu_smi import Survey, identify_devices, survey_devices

if TYPE_CHECKING:
    import torch
    from chipperf import EnvironmentSettings, Precision, Rank

DEVICE_TYPE: Final = "xpu"
VISIBLE_DEVICES_ENV: Final = "XPU_VISIBLE_DEVICES"
KEEPS_VISIBLE_ORDER: Final = True
CAPABILITIES: Final = frozenset({Capability.DISTRIBUTED, Capability.MULTI_DEVICE, Capability.TELEMETRY})

_BACKEND: Final = "xccl"
_TOOL_TIMEOUT_S: Final = 2.0
# All of the chip's L3, which FlagPerf's R300 cases give to the operators.
_L3_BYTES: Final = 63 * 2**20

_REFUSALS: Final = {
    "tf32": "the R300 has no TF32",
    "bf16": "the R300's autocast knows fp16 only",
    "amp": "its gradient scaler is Kunlunxin's own, with which no training has been published",
    "fp16": "training with fp16 parameters has not been shown to work: FlagPerf runs fp32 when it is asked for",
}


def environment(rank: Rank, settings: EnvironmentSettings) -> tuple[EnvironmentVariable, ...]:
    """Return FlagPerf's settings for the case, and those of the collectives if there are several devices."""
    variables = [
        EnvironmentVariable(
            name="XMLIR_D_XPU_L3_SIZE", value=str(_L3_BYTES), reason="operators use the chip's 63 MiB of L3 as scratch"
        ),
        *R300_CASE_ENVIRONMENT.get(settings.case, ()),
    ]
    if rank.world_size > 1:
        variables += [
            EnvironmentVariable(
                name="BKCL_PCIE_RING", value="1", reason="ring over PCIe, as in FlagPerf's R300 configurations"
            ),
            EnvironmentVariable(
                name="BKCL_TIMEOUT", value="1800", reason="a collective that takes 30 minutes has failed"
            ),
        ]
    return tuple(variables)


def load_runtime() -> RuntimeInfo:
    """Import torch and ``torch_xmlir``, which registers the device type."""
    return runtime.load_runtime(default_backend=_BACKEND, collectives="XCCL")


def device_init(rank: Rank) -> torch.device:
    """Return the rank's device; the stack has no current device to set.

    Raises:
        DeviceError: There are fewer visible devices.
    """
    nodes = tuple(
        XpuReading(device_id=int(node.removeprefix("xpu"))) for node in machine.find_device_nodes(machine.MACHINE_ROOT)
    )
    count = len(_visible(nodes))
    if rank.local_rank >= count:
        raise DeviceError(
            f"local rank {rank.local_rank} has no device: {count} XPU(s) are visible",
            hint=f"start at most {count} processes, or check {VISIBLE_DEVICES_ENV}",
        )
    device: torch.device = runtime.torch_xmlir().device(f"xpu:{rank.local_rank}")
    return device


def device_info(device: torch.device) -> DeviceInfo:
    """Identify the device by the tool: ``xpu:N`` is the N-th visible one, which this stack gives no means to check."""
    survey, _ = identify_devices(timeout_s=_TOOL_TIMEOUT_S)
    reading = _reading_of(device, survey)
    return DeviceInfo(
        index=device.index or 0,
        name=reading.name or machine.installed_product_name(),
        uuid=reading.uuid,
        pci_bus_id=reading.pci_bus_id,
        total_bytes=reading.memory_total_bytes,
    )


def synchronize(device: torch.device) -> None:
    """Wait for the device of this process."""
    runtime.torch_xmlir().xpu.xpu_synchronize()


def memory_query(device: torch.device) -> MemoryStats:
    """Read what the tool says: the stack has no allocator counters, so peaks are those of sampled telemetry."""
    survey = survey_devices(timeout_s=_TOOL_TIMEOUT_S)
    reading = _reading_of(device, survey)
    return MemoryStats(
        source=f"{survey.source}, sampled device memory" if survey.source else f"unknown: {survey.problem}",
        used_bytes=reading.memory_used_bytes,
        total_bytes=reading.memory_total_bytes,
    )


def memory_reset_peak(device: torch.device) -> None:
    """Do nothing: there is no peak counter."""


def distributed_setup(rank: Rank, device: torch.device) -> DistributedConfig:
    """Use Kunlunxin's XCCL, which ``torch_xmlir`` registers under a name that upstream torch gives to Intel's."""
    return collective_config(_BACKEND)


def seed(seed: int, device: torch.device, deterministic: bool) -> None:
    """Seed the generators of all devices; that torch's switch makes this stack's kernels deterministic is unknown."""
    runtime.torch_xmlir().xpu.manual_seed_all(seed)
    set_flag("deterministic_algorithms", deterministic)


def precision(requested: Precision, device: torch.device) -> PrecisionPolicy:
    """Run fp32, and say in what its products are computed.

    Raises:
        UnsupportedPrecision: Anything else was requested.
    """
    if requested != "fp32":
        raise UnsupportedPrecision(
            f"chipperf does not run {requested} on the R300: {_REFUSALS[requested]}", hint="use --precision fp32"
        )
    return PrecisionPolicy(requested="fp32", effective=effective_fp32(), knobs=product_type_knobs())


def prepare_model(model: torch.nn.Module, precision: PrecisionPolicy, device: torch.device) -> torch.nn.Module:
    """Train the model as it is."""
    return model


def loader_options(device: torch.device) -> LoaderOptions:
    """Do without page-locked memory, which this stack is not known to have."""
    return LoaderOptions()


def device_teardown(device: torch.device) -> None:
    """Give cached memory back and restore torch's switches."""
    runtime.torch_xmlir().xpu.empty_cache()
    restore_flags()


def _visible(readings: tuple[XpuReading, ...]) -> tuple[XpuReading, ...]:
    return visible_devices(readings, os.environ.get(VISIBLE_DEVICES_ENV), keeps_order=KEEPS_VISIBLE_ORDER)


def _reading_of(device: torch.device, survey: Survey) -> XpuReading:
    visible = _visible(survey.readings)
    index = device.index or 0
    return visible[index] if index < len(visible) else XpuReading()
