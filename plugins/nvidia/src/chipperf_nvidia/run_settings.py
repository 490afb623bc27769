"""What a run is set to: the variables of its workers, kernels, and what each precision is on an NVIDIA GPU.

fp32 is IEEE single precision: TF32, which torch leaves on for convolutions, is switched off unless it was asked for.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from chipperf import UnsupportedPrecision, hookimpl, read_variables, read_vendor_info
from chipperf.torchtools import (
    KERNEL_SWITCHES,
    convert_parameters,
    precision_policy,
    require_precision,
    set_determinism,
    set_tf32,
    switch_knobs,
)

if TYPE_CHECKING:
    import torch
    from chipperf import EnvironmentSettings, EnvironmentVariable, Precision, PrecisionPolicy, Rank

VENDOR: Final = read_vendor_info(Path(__file__).with_name("products.toml"))

AUTOTUNE_VARIABLE: Final = "CHIPPERF_NVIDIA_CUDNN_BENCHMARK"
"""``1`` lets cuDNN time its convolution algorithms."""

VARIABLES: Final = read_variables(Path(__file__).with_name("variables.toml"))

_FIXED_SIZE_CASES: Final = frozenset({"mobilenetv2", "resnet50"})

_MINIMUM_CAPABILITY: Final[dict[Precision, tuple[int, int]]] = {"tf32": (8, 0), "bf16": (8, 0)}
"""Compute capability from which tensor cores have the format, where older GPUs lack or only emulate it."""


@hookimpl
def perf_environment(rank: Rank, settings: EnvironmentSettings) -> tuple[EnvironmentVariable, ...]:
    """Order GPUs as NVML does, and prepare NCCL, cuDNN and cuBLAS for the ranks, the case and determinism."""
    size = "fixed-size" if settings.case in _FIXED_SIZE_CASES else "varying-size"
    tables = ["always", "deterministic" if settings.deterministic else size]
    if 1 < rank.world_size == rank.local_world_size:
        tables.append("one-machine")
    return tuple(variable for table in tables for variable in VARIABLES.settings[table])


@hookimpl
def perf_seed(seed: int, deterministic: bool) -> None:
    """Seed every visible GPU, and choose between autotuned and deterministic kernels."""
    import torch

    torch.cuda.manual_seed_all(seed)
    set_determinism(deterministic, cudnn=True, autotune=os.environ.get(AUTOTUNE_VARIABLE) == "1")


@hookimpl
def perf_precision(requested: Precision, device: torch.device) -> PrecisionPolicy:
    """Set torch's switches for a precision and report all that take part, as they read afterwards.

    Raises:
        UnsupportedPrecision: The plugin does not run it, the GPU lacks the format, or the user's environment forbids
            it.
    """
    require_precision(requested, VENDOR.capabilities, who="the NVIDIA plugin")
    _require_format(requested, device)
    reason = "TF32 was asked for" if requested == "tf32" else "fp32 products are not rounded to TF32"
    reasons = dict.fromkeys(set_tf32(requested == "tf32"), reason)
    emulates = requested == "fp32" and os.environ.get("CUBLAS_EMULATE_SINGLE_PRECISION") == "1"
    effective = "fp32, but cuBLAS may compute products in bf16 parts" if emulates else None
    return precision_policy(requested, knobs=switch_knobs({**reasons, **KERNEL_SWITCHES}), effective=effective)


@hookimpl
def perf_prepare_model(model: torch.nn.Module, precision: PrecisionPolicy) -> torch.nn.Module:
    """Convert parameters for fp16, and lay convolutions out channels-last wherever tensor cores compute them."""
    import torch

    convert_parameters(model, precision.requested)
    # Tensor cores take channels-last; the fp32 kernels outside of them take the order that torch starts with.
    return model if precision.requested == "fp32" else model.to(memory_format=torch.channels_last)


def _require_format(requested: Precision, device: torch.device) -> None:
    import torch

    capability = torch.cuda.get_device_capability(device)
    minimum = _MINIMUM_CAPABILITY.get(requested, (0, 0))
    if capability < minimum:
        raise UnsupportedPrecision(
            f"{torch.cuda.get_device_name(device)} has compute capability {capability[0]}.{capability[1]}; "
            f"{requested} needs {minimum[0]}.{minimum[1]}",
            hint="use --precision fp32 or amp",
        )
    if requested == "tf32" and os.environ.get("NVIDIA_TF32_OVERRIDE") == "0":
        raise UnsupportedPrecision("NVIDIA_TF32_OVERRIDE=0 forbids TF32", hint="unset it, or use --precision fp32")
