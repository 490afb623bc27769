"""Detection of the arithmetic of matrix products and convolutions from their results.

A product with the identity matrix returns its input as the compute unit rounded it. An input of ``1 + 2**-k`` comes
back unchanged only if the unit keeps ``k`` bits after the binary point. A value beyond fp16's range and a value far
below the largest distinguish floating from fixed point. The formats are in :data:`chipperf.precisions.ARITHMETICS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from chipperf.precisions import ARITHMETICS

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

_SIZE = 128
_BITS = range(1, 24)
_BEYOND_FP16 = 2.0**17
_FAR_BELOW_LARGEST = 2.0**-10

# Winograd and blocked kernels lose a few fp32 bits to rounding, but always fewer than a narrower format.
_FP32_AT_LEAST = 17


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectivePrecision:
    """Arithmetic of each kind of product, for example ``fp32`` or ``tf32``."""

    matmul: str
    convolution: str


def measure_effective_precision(
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[object]],
    dtype: torch.dtype = torch.float32,
) -> EffectivePrecision:
    """Return the arithmetic of a device in the context in which training computes, for weights of a type."""
    identity = torch.eye(_SIZE)
    kernel = torch.zeros(_SIZE, _SIZE, 3, 3)
    kernel[:, :, 1, 1] = identity
    identity, kernel = identity.to(device, dtype), kernel.to(device, dtype)

    def through_matmul(values: list[float]) -> list[float]:
        matrix = torch.zeros(_SIZE, _SIZE)
        matrix[0, : len(values)] = torch.tensor(values)
        return _read(torch.mm(matrix.to(device, dtype), identity)[0], len(values))

    def through_convolution(values: list[float]) -> list[float]:
        images = torch.zeros(1, _SIZE, 8, 8)
        images[0, : len(values), 4, 4] = torch.tensor(values)
        seen = torch.nn.functional.conv2d(images.to(device, dtype), kernel, padding=1)
        return _read(seen[0, :, 4, 4], len(values))

    with torch.no_grad(), autocast():
        return EffectivePrecision(matmul=classify(through_matmul), convolution=classify(through_convolution))


def _read(seen: torch.Tensor, count: int) -> list[float]:
    return [float(value) for value in seen[:count].float().cpu().tolist()]


def classify(product: Callable[[list[float]], list[float]]) -> str:
    """Return the name of the arithmetic of a product, which takes values and returns them as the unit rounded them."""
    kept_bits = 0
    for bits, seen in zip(_BITS, product([1 + 2.0**-bits for bits in _BITS]), strict=True):
        if abs(seen - 1 - 2.0**-bits) > 2.0**-bits / 4:
            break
        kept_bits = bits
    largest, smallest = product([_BEYOND_FP16, _FAR_BELOW_LARGEST])
    if smallest == 0 and largest == _BEYOND_FP16:
        return "fixed point"
    if kept_bits >= _FP32_AT_LEAST:
        return "fp32"
    has_range = largest == _BEYOND_FP16
    for name, arithmetic in ARITHMETICS.items():
        if arithmetic.fraction_bits == kept_bits and (arithmetic.largest >= _BEYOND_FP16) == has_range:
            return name
    return f"reduced ({kept_bits} bits)" if has_range else f"reduced ({kept_bits} bits, fp16 range)"
