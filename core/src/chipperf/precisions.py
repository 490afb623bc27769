"""Table of the precisions that a run can use, for core and plugins.

A precision is a value of ``--precision``; an arithmetic is the number format in which products are computed. A
precision means the same for every vendor; a plugin only declares which ones it can run. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from chipperf.errors import UsageError, did_you_mean

Precision = Literal["fp32", "tf32", "amp", "fp16", "bf16"]
"""Names of the precisions: the keys of :data:`PRECISIONS`."""

HalfType = Literal["float16", "bfloat16"]
"""``torch`` names of the 16-bit types of tensors."""


@dataclass(frozen=True, slots=True)
class Bound:
    """Largest allowed difference between a training and the fp32 CPU reference, and the reason for its size."""

    value: float
    justification: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Arithmetic:
    """A number format in which matrix products and convolutions are computed, with its largest finite value.

    Attributes:
        fraction_bits: Bits of the significand after the binary point.
        loss: Bound of a step's loss, as a relative difference.
        gradient: Bound of a step's gradients, as a fraction of their norm.
    """

    fraction_bits: int
    largest: float
    loss: Bound
    gradient: Bound


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecisionDefinition:
    """Definition of a precision.

    Attributes:
        arithmetic: Key of :data:`ARITHMETICS`: the format of products.
        autocast_type: Type for ``torch.autocast``; ``None`` if autocast is off.
        parameter_type: Type of the parameters but those of batch normalization, whose statistics would overflow;
            ``None`` for fp32.
        scales_gradients: Whether gradients are scaled to avoid underflow.
        capability: Value of the ``Capability`` that a vendor must declare; ``None`` if every vendor runs it.
        in_every_legend: Whether the legend of every report names it, as in FlagPerf's documents.
    """

    description: str
    arithmetic: str
    autocast_type: HalfType | None = None
    parameter_type: HalfType | None = None
    scales_gradients: bool = False
    capability: str | None = None
    in_every_legend: bool = False


# Widths and ranges: IEEE 754 for fp32 and fp16; bfloat16; TF32 has the width of fp16 and the range of fp32.
ARITHMETICS: Final[Mapping[str, Arithmetic]] = {
    "fp32": Arithmetic(
        fraction_bits=23,
        largest=(2 - 2.0**-23) * 2.0**127,
        loss=Bound(
            1e-4,
            "relative; two layouts on one CPU differ by up to 2e-5 in twenty steps, and classifiers "
            "with products in TF32 by 1e-3",
        ),
        gradient=Bound(
            3e-3,
            "of the gradient's norm, in the median of twenty steps: two layouts on one CPU differ by "
            "3e-5 for the classifiers and by 5e-4 for DETR, whose loss has kinks; with products in TF32 it is "
            "5e-3 to 3e-2",
        ),
    ),
    "tf32": Arithmetic(
        fraction_bits=10,
        largest=(2 - 2.0**-10) * 2.0**127,
        loss=Bound(2e-2, "ten bits behind the point; off by up to 3e-3 with products in TF32 and sums in fp32"),
        gradient=Bound(0.1, "off by up to 2e-2 with products in TF32 and sums in fp32, bf16 by 0.1 to 0.2"),
    ),
    "fp16": Arithmetic(
        fraction_bits=10,
        largest=65504.0,
        loss=Bound(2e-2, "ten bits behind the point as in TF32, but activations are stored so too"),
        gradient=Bound(0.2, "ten bits behind the point as in TF32, but activations and gradients are stored so too"),
    ),
    "bf16": Arithmetic(
        fraction_bits=7,
        largest=(2 - 2.0**-7) * 2.0**127,
        loss=Bound(0.2, "seven bits behind the point; off by up to 3e-2 on the CPU"),
        gradient=Bound(
            0.8, "seven bits behind the point; off by up to 0.45 on the CPU; unrelated gradients are off by 1.4"
        ),
    ),
}
"""Arithmetics by name, widest first."""

PRECISIONS: Final[Mapping[Precision, PrecisionDefinition]] = {
    "fp32": PrecisionDefinition(
        description="IEEE single precision in every product, without TF32", arithmetic="fp32", in_every_legend=True
    ),
    "tf32": PrecisionDefinition(description="tensors in fp32, products in TF32", arithmetic="tf32", capability="tf32"),
    "amp": PrecisionDefinition(
        description="fp16 autocast; gradients are scaled",
        arithmetic="fp16",
        autocast_type="float16",
        scales_gradients=True,
        capability="fp16",
        in_every_legend=True,
    ),
    # torch cannot unscale fp16 gradients, so they are not scaled.
    "fp16": PrecisionDefinition(
        description="fp16 autocast, and parameters in fp16 but those of batch normalization; gradients are not "
        "scaled, so that small ones are lost: a speed figure, not a recipe",
        arithmetic="fp16",
        autocast_type="float16",
        parameter_type="float16",
        capability="fp16",
        in_every_legend=True,
    ),
    "bf16": PrecisionDefinition(
        description="bf16 autocast; gradients are not scaled",
        arithmetic="bf16",
        autocast_type="bfloat16",
        capability="bf16",
    ),
}
"""Precisions by name, in display order."""

DEFAULT_PRECISION: Final[Precision] = "fp32"
"""Every vendor runs this precision, because results are compared in it."""


def runnable_precisions(capabilities: Iterable[str]) -> tuple[Precision, ...]:
    """Return the precisions that a vendor with ``capabilities`` can run, in table order."""
    declared = {str(capability) for capability in capabilities}
    return tuple(name for name, means in PRECISIONS.items() if means.capability is None or means.capability in declared)


def precisions_by_capability() -> dict[str, tuple[Precision, ...]]:
    """Return the precisions that each capability enables."""
    return {
        capability: tuple(name for name, means in PRECISIONS.items() if means.capability == capability)
        for capability in sorted({means.capability for means in PRECISIONS.values() if means.capability})
    }


def precision_of(name: str) -> Precision:
    """Return the precision called ``name``; a :class:`UsageError` suggests the nearest one if there is none."""
    for precision in PRECISIONS:
        if precision == name:
            return precision
    raise UsageError(
        f"unknown precision {name!r}{did_you_mean(name, PRECISIONS)}", hint=f"precisions: {', '.join(PRECISIONS)}"
    )
