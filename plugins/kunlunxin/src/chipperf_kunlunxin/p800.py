"""The P800's stack: XPyTorch, which presents its devices as ``cuda`` and its collectives as ``nccl``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from chipperf import (
    Capability,
    DeviceError,
    DeviceInfo,
    DistributedConfig,
    EnvironmentVariable,
    Knob,
    LoaderOptions,
    MemoryStats,
    PrecisionPolicy,
    RuntimeInfo,
    UnsupportedPrecision,
)

from chipperf_kunlunxin import machine, runtime
from chipperf_kunlunxin.collectives import collective_config, collective_variables
from chipperf_kunlunxin.precision import effective_fp32, product_type_knobs
from chipperf_kunlunxin.torch_flags import read_flag, restore_flags, set_flag
from chipperf_kunlunxin.xpu_reading import XpuReading, normalise_uuid
from chipperf_kunlunxin.xpu_smi import find_reading, identify_devices

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from chipperf import EnvironmentSettings, Precision, Rank

DEVICE_TYPE: Final = "cuda"
VISIBLE_DEVICES_ENV: Final = "CUDA_VISIBLE_DEVICES"
# CUDA_VISIBLE_DEVICES=6,2 was seen to give device 2 the lower number.
KEEPS_VISIBLE_ORDER: Final = False
CAPABILITIES: Final = frozenset(
    {
        Capability.BF16,
        Capability.DISTRIBUTED,
        Capability.FP16,
        Capability.MEMORY_RESERVED,
        Capability.MULTI_DEVICE,
        Capability.TELEMETRY,
        Capability.UUID,
    }
)

# Kunlunxin's older variable is reported to break the import of XPyTorch.
_STRAY_VARIABLE: Final = "XPU_VISIBLE_DEVICES"
_BACKEND: Final = "nccl"
_TOOL_TIMEOUT_S: Final = 2.0

_FLOAT64: Final = Knob(name="float64", value="computed as float32", reason="the stack narrows float64 without a word")
_RUNTIME_FLAGS: Final = {
    "cudnn.enabled": "whether torch asks cuDNN for convolutions; XPyTorch is said to force False",
    "cudnn.benchmark": "choice of convolution algorithms; without cuDNN it has no known effect",
}


def environment(rank: Rank, settings: EnvironmentSettings) -> tuple[EnvironmentVariable, ...]:
    """Return what XPyTorch and its collectives read when the interpreter starts."""
    variables = [
        EnvironmentVariable(
            name="CUDART_DUMMY_REGISTER", value="1", reason="XPyTorch's installation needs it before torch is imported"
        )
    ]
    if rank.world_size > 1:
        variables += collective_variables(_BACKEND)
    if rank.node_count > 1:
        variables.append(
            EnvironmentVariable(name="BKCL_ENABLE_XDR", value="1", reason="device-direct RDMA between machines")
        )
    return tuple(variables)


def load_runtime() -> RuntimeInfo:
    """Import torch, whose CUDA side XPyTorch replaces on import, and ``torch_xmlir``, which states the versions."""
    return runtime.load_runtime(default_backend=_BACKEND, knobs=_runtime_knobs)


def device_init(rank: Rank) -> torch.device:
    """Make the rank's device current.

    Raises:
        DeviceError: There are fewer devices. It is counted first, because a call with a wrong number makes all later
            calls of this process fail.
    """
    import torch

    count = torch.cuda.device_count()
    if rank.local_rank >= count:
        raise DeviceError(
            f"local rank {rank.local_rank} has no device: torch sees {count} XPU(s)",
            hint=f"start at most {count} processes, or check {VISIBLE_DEVICES_ENV} and that XPyTorch is active",
        )
    device = torch.device("cuda", rank.local_rank)
    torch.cuda.set_device(device)
    # The allocator's counters do not exist before this.
    torch.cuda.init()
    return device


def device_info(device: torch.device) -> DeviceInfo:
    """Identify the device by its UUID: torch calls every device ``GPU`` and gives it the PCI address 0."""
    import torch

    properties = torch.cuda.get_device_properties(device)
    uuid = normalise_uuid(str(getattr(properties, "uuid", None) or ""))
    survey, _ = identify_devices(timeout_s=_TOOL_TIMEOUT_S)
    reading = find_reading(survey.readings, uuid=uuid, pci_bus_id=None) or XpuReading()
    return DeviceInfo(
        index=device.index or 0,
        name=reading.name or machine.installed_product_name(),
        uuid=uuid,
        pci_bus_id=reading.pci_bus_id,
        total_bytes=int(properties.total_memory),
    )


def synchronize(device: torch.device) -> None:
    """Wait for all of the device's streams."""
    import torch

    torch.cuda.synchronize(device)


def memory_query(device: torch.device) -> MemoryStats:
    """Read the allocator's counters, which are unknown where the stack has none, and the device's use."""
    import torch

    counters: dict[str, int] = _unless_missing(lambda: torch.cuda.memory_stats(device)) or {}
    free_bytes, total_bytes = _unless_missing(lambda: torch.cuda.mem_get_info(device)) or (None, None)
    return MemoryStats(
        source="torch.cuda allocator, torch.cuda.mem_get_info" if counters else "torch.cuda.mem_get_info",
        allocated_bytes=counters.get("allocated_bytes.all.current"),
        peak_allocated_bytes=counters.get("allocated_bytes.all.peak"),
        reserved_bytes=counters.get("reserved_bytes.all.current"),
        peak_reserved_bytes=counters.get("reserved_bytes.all.peak"),
        used_bytes=None if free_bytes is None or total_bytes is None else total_bytes - free_bytes,
        total_bytes=total_bytes,
    )


def memory_reset_peak(device: torch.device) -> None:
    """Set the allocator's peaks back."""
    import torch

    _unless_missing(lambda: torch.cuda.reset_peak_memory_stats(device))


def distributed_setup(rank: Rank, device: torch.device) -> DistributedConfig:
    """Use ``nccl``, behind which XPyTorch puts its own library, or the backend of the plugin's variable."""
    return collective_config(_BACKEND)


def seed(seed: int, device: torch.device, deterministic: bool) -> None:
    """Seed the generators of all devices; that torch's switches make XPyTorch's kernels deterministic is unknown."""
    import torch

    torch.cuda.manual_seed_all(seed)
    set_flag("deterministic_algorithms", deterministic)
    set_flag("cudnn.deterministic", deterministic)


def precision(requested: Precision, device: torch.device) -> PrecisionPolicy:
    """Set torch up for a precision.

    Raises:
        UnsupportedPrecision: tf32 was requested.
    """
    if requested == "tf32":
        raise UnsupportedPrecision("the P800's torch has no TF32 mode", hint="use --precision fp32, amp, fp16 or bf16")
    set_flag("float32_matmul_precision", "highest")
    set_flag("cudnn.allow_tf32", False)
    knobs = (
        *product_type_knobs(),
        *_flag_knobs(
            {
                "float32_matmul_precision": "fp32 products are not to be rounded; XPyTorch is not known to read it",
                "cudnn.allow_tf32": "fp32 convolutions are not to be rounded; XPyTorch is not known to read it",
                "cudnn.deterministic": "as the run asks; without cuDNN it has no known effect",
                "deterministic_algorithms": "as the run asks; operators without such an algorithm stop the run",
            }
        ),
    )
    if requested == "fp32":
        return PrecisionPolicy(requested="fp32", effective=effective_fp32(), knobs=knobs)
    if requested == "bf16":
        return PrecisionPolicy(requested="bf16", effective="bf16", autocast_dtype="bfloat16", knobs=knobs)
    if requested == "amp":
        return PrecisionPolicy(
            requested="amp", effective="fp16", autocast_dtype="float16", grad_scaler=True, knobs=knobs
        )
    return PrecisionPolicy(requested="fp16", effective="fp16", knobs=knobs)


def prepare_model(model: torch.nn.Module, precision: PrecisionPolicy, device: torch.device) -> torch.nn.Module:
    """Turn parameters, buffers and inputs to fp16 if that was requested; leave the model alone otherwise."""
    if precision.requested != "fp16":
        return model
    model.register_forward_pre_hook(lambda _, inputs: tuple(map(_to_fp16, inputs)))
    return model.half()


def loader_options(device: torch.device) -> LoaderOptions:
    """Ask for page-locked memory, whose copies have been seen to be right."""
    return LoaderOptions(pin_memory=True)


def device_teardown(device: torch.device) -> None:
    """Give cached memory back and restore torch's switches."""
    import torch

    _unless_missing(torch.cuda.empty_cache)
    restore_flags()


def _runtime_knobs() -> tuple[Knob, ...]:
    stray = os.environ.get(_STRAY_VARIABLE)
    return (
        _FLOAT64,
        *_flag_knobs(_RUNTIME_FLAGS),
        *(
            ()
            if stray is None
            else (Knob(name=_STRAY_VARIABLE, value=stray, reason=f"not this stack's: use {VISIBLE_DEVICES_ENV}"),)
        ),
    )


def _flag_knobs(reasons: dict[str, str]) -> tuple[Knob, ...]:
    return tuple(Knob(name=name, value=str(read_flag(name)), reason=reason) for name, reason in reasons.items())


def _to_fp16(value: Any) -> Any:
    import torch

    return value.half() if isinstance(value, torch.Tensor) and value.is_floating_point() else value


def _unless_missing(call: Callable[[], Any]) -> Any:
    """Return the call's result, or ``None`` if XPyTorch has taken the function out of ``torch.cuda``."""
    try:
        return call()
    except AttributeError:
        return None
