"""What each precision is on an NVIDIA GPU.

fp32 is IEEE single precision: TF32, which torch leaves on for convolutions, is switched off unless it was asked for.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, Literal

from chipperf import Knob, PrecisionPolicy, UnsupportedPrecision

from chipperf_nvidia import switches

if TYPE_CHECKING:
    import torch
    from chipperf import Precision

_AUTOCAST: Final[dict[Precision, Literal["float16", "bfloat16"]]] = {
    "amp": "float16",
    "fp16": "float16",
    "bf16": "bfloat16",
}
_EFFECTIVE: Final[dict[Precision, str]] = {"amp": "fp16"}

_MINIMUM_CAPABILITY: Final[dict[Precision, tuple[int, int]]] = {"tf32": (8, 0), "bf16": (8, 0)}
"""Compute capability from which tensor cores have the format, where older GPUs lack or only emulate it."""

_REASONS: Final = {
    switches.BENCHMARK: "if on, cuDNN times its algorithms and takes the fastest",
    switches.DETERMINISTIC_CUDNN: "if on, only cuDNN algorithms that give equal bits",
    switches.DETERMINISTIC_ALGORITHMS: "if on, only torch kernels that give equal bits",
    "cuda.matmul.allow_fp16_reduced_precision_reduction": "if on, fp16 products may be summed in fp16; torch decides",
    "cuda.matmul.allow_bf16_reduced_precision_reduction": "if on, bf16 products may be summed in bf16; torch decides",
}


def set_up(requested: Precision, device: torch.device) -> PrecisionPolicy:
    """Set torch's switches for a precision and report all that take part, as they read afterwards.

    Raises:
        UnsupportedPrecision: The GPU lacks the format, or the user's environment forbids it.
    """
    _require_format(requested, device)
    tf32 = switches.tf32_values(requested == "tf32")
    for name, value in tf32.items():
        switches.write(name, value)
    reason = "TF32 was asked for" if requested == "tf32" else "fp32 products are not rounded to TF32"
    reasons = dict.fromkeys(tf32, reason) | _REASONS
    return PrecisionPolicy(
        requested=requested,
        effective=_EFFECTIVE.get(requested, requested),
        autocast_dtype=_AUTOCAST.get(requested),
        # torch's scaler takes fp32 gradients only, so fp16 parameters train without.
        grad_scaler=requested == "amp",
        knobs=tuple(Knob(name=name, value=str(switches.read(name)), reason=text) for name, text in reasons.items()),
    )


def prepare_model(model: torch.nn.Module, requested: Precision) -> torch.nn.Module:
    """Convert parameters for fp16, and lay convolutions out channels-last wherever tensor cores compute them."""
    import torch

    if requested == "fp16":
        _halve_parameters(model)
    # Tensor cores take channels-last; the fp32 kernels outside of them take the order that torch starts with.
    return model if requested == "fp32" else model.to(memory_format=torch.channels_last)


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


def _halve_parameters(model: torch.nn.Module) -> None:
    """Convert all parameters but batch normalisation's, whose statistics would overflow, to fp16.

    Autocast converts the inputs of the layers and computes the loss in fp32.
    """
    from torch.nn.modules.batchnorm import _BatchNorm

    for module in model.modules():
        if not isinstance(module, _BatchNorm):
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.half()
