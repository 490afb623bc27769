"""Precisions, and the layout that goes with them."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from chipperf import Knob, Precision, PrecisionPolicy, UnsupportedPrecision

from chipperf_metax import torch_flags
from chipperf_metax.environment import NCHW_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

# fp16 has parameters in fp16, so it cannot have a gradient scaler: torch refuses to unscale fp16 gradients. Autocast
# then only casts the images.
_POLICIES: Final[Mapping[Precision, PrecisionPolicy]] = {
    "fp32": PrecisionPolicy(requested="fp32", effective="fp32"),
    "tf32": PrecisionPolicy(requested="tf32", effective="tf32"),
    "amp": PrecisionPolicy(requested="amp", effective="fp16", autocast_dtype="float16", grad_scaler=True),
    "fp16": PrecisionPolicy(requested="fp16", effective="fp16", autocast_dtype="float16"),
    "bf16": PrecisionPolicy(requested="bf16", effective="bf16", autocast_dtype="bfloat16"),
}


def apply(requested: Precision, device: torch.device) -> PrecisionPolicy:
    """Allow TF32 if, and only if, it is asked for, and describe what is in force.

    Raises:
        UnsupportedPrecision: A switch does not keep what it is set to.
    """
    allow_tf32 = requested == "tf32"
    for name in (torch_flags.MATMUL_TF32, torch_flags.CONVOLUTION_TF32):
        if torch_flags.change(name, allow_tf32) != allow_tf32:
            raise UnsupportedPrecision(
                f"{requested} cannot be run: torch.backends.{name} stays {not allow_tf32}",
                hint="unset TORCH_ALLOW_TF32_CUBLAS_OVERRIDE and every PYTORCH_*_TF32 variable",
            )
    return replace(_POLICIES[requested], knobs=(*torch_flags.as_knobs(), _layout_knob(device)))


def prepare_model(model: torch.nn.Module, precision: PrecisionPolicy) -> torch.nn.Module:
    """Lay the model out as this build lays out its inputs, and convert it for fp16.

    By default MetaX's torch turns 4-D tensors channels-last when it copies them to the device. Saying so explicitly
    gives every version of it the same layout, which core then records.
    """
    import torch

    if NCHW_VARIABLE not in os.environ:
        model = model.to(memory_format=torch.channels_last)
    if precision.requested == "fp16":
        _halve_parameters(model)
    return model


def _halve_parameters(model: torch.nn.Module) -> None:
    """Convert everything but batch normalisation, whose statistics would overflow, to fp16."""
    from torch.nn.modules.batchnorm import _BatchNorm

    model.half()
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.float()


def _layout_knob(device: torch.device) -> Knob:
    import torch

    moved = torch.zeros(1, 2, 2, 2).to(device)
    return Knob(
        name="layout of 4-D tensors copied to the device",
        value="contiguous" if moved.is_contiguous() else "channels_last",
        reason=f"found by copying one; {NCHW_VARIABLE} makes this build keep contiguous tensors",
    )
