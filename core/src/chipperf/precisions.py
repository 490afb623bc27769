"""Every precision that a run can be asked for: one table, read by core and by plugins.

A precision is what the user asks for with ``--precision``; an arithmetic is what products are then computed in. What a
precision means is the same for every vendor: a plugin only says whether it can run it. Nothing here imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal

from chipperf.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Precision = Literal["fp32", "tf32", "amp", "fp16", "bf16"]
"""Names of the precisions, for annotations; the keys of :data:`PRECISIONS`."""

HalfType = Literal["float16", "bfloat16"]
"""``torch`` names of the 16-bit types of tensors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """How far a training may differ from the CPU reference in fp32, and why it is neither less nor more."""

    value: float
    justification: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Arithmetic:
    """A format in which matrix products and convolutions are computed.

    Attributes:
        fraction_bits: Bits of the significand behind the point.
        largest: Largest finite value.
        loss: Bound of a step's loss, relative.
        gradient: Bound of a step's gradients, as a fraction of their norm.
    """

    fraction_bits: int
    largest: float
    loss: Bound
    gradient: Bound


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecisionDefinition:
    """What a precision means.

    Attributes:
        description: For documents and help texts.
        arithmetic: Key of :data:`ARITHMETICS`: what products are computed in.
        autocast_type: Type for ``torch.autocast``; ``None`` computes without it.
        parameter_type: Type of the parameters, but those of batch normalization, whose statistics would overflow;
            ``None`` leaves them in fp32.
        scales_gradients: Whether gradients are scaled against underflow.
        capability: Value of the ``Capability`` that a vendor declares who runs it; ``None`` for what every vendor runs.
        in_every_legend: Whether every report names it, as FlagPerf's documents do, whatever its rows ran.
    """

    description: str
    arithmetic: str
    autocast_type: HalfType | None = None
    parameter_type: HalfType | None = None
    scales_gradients: bool = False
    capability: str | None = None
    in_every_legend: bool = False


# Widths and ranges are those of IEEE 754 (fp32, fp16), of bfloat16, and of TF32: fp16's width with fp32's range.
ARITHMETICS: Final[Mapping[str, Arithmetic]] = MappingProxyType(
    {
        "fp32": Arithmetic(
            fraction_bits=23,
            largest=(2 - 2.0**-23) * 2.0**127,
            loss=Bound(
                value=1e-4,
                justification="relative; two layouts on one CPU differ by up to 2e-5 in twenty steps, and classifiers "
                "with products in TF32 by 1e-3",
            ),
            gradient=Bound(
                value=3e-3,
                justification="of the gradient's norm, in the median of twenty steps: two layouts on one CPU differ by "
                "3e-5 for the classifiers and by 5e-4 for DETR, whose loss has kinks; with products in TF32 it is "
                "5e-3 to 3e-2",
            ),
        ),
        "tf32": Arithmetic(
            fraction_bits=10,
            largest=(2 - 2.0**-10) * 2.0**127,
            loss=Bound(
                value=2e-2,
                justification="ten bits behind the point; off by up to 3e-3 with products in TF32 and sums in fp32",
            ),
            gradient=Bound(
                value=0.1,
                justification="off by up to 2e-2 with products in TF32 and sums in fp32, bf16 by 0.1 to 0.2",
            ),
        ),
        "fp16": Arithmetic(
            fraction_bits=10,
            largest=65504.0,
            loss=Bound(
                value=2e-2,
                justification="ten bits behind the point as in TF32, but activations are stored so too",
            ),
            gradient=Bound(
                value=0.2,
                justification="ten bits behind the point as in TF32, but activations and gradients are stored so too",
            ),
        ),
        "bf16": Arithmetic(
            fraction_bits=7,
            largest=(2 - 2.0**-7) * 2.0**127,
            loss=Bound(value=0.2, justification="seven bits behind the point; off by up to 3e-2 on the CPU"),
            gradient=Bound(
                value=0.8,
                justification="seven bits behind the point; off by up to 0.45 on the CPU; unrelated gradients are off "
                "by 1.4",
            ),
        ),
    }
)
"""Arithmetics by name, the widest first."""

PRECISIONS: Final[Mapping[Precision, PrecisionDefinition]] = MappingProxyType(
    {
        "fp32": PrecisionDefinition(
            description="IEEE single precision in every product, without TF32", arithmetic="fp32", in_every_legend=True
        ),
        "tf32": PrecisionDefinition(
            description="tensors in fp32, products in TF32", arithmetic="tf32", capability="tf32"
        ),
        "amp": PrecisionDefinition(
            description="fp16 autocast; gradients are scaled",
            arithmetic="fp16",
            autocast_type="float16",
            scales_gradients=True,
            capability="fp16",
            in_every_legend=True,
        ),
        # torch cannot unscale fp16 gradients, so that they are not scaled.
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
)
"""Precisions by name, in the order in which they are listed."""

DEFAULT_PRECISION: Final[Precision] = "fp32"
"""What every vendor runs, because results are compared in it."""


def runnable_precisions(capabilities: Iterable[str]) -> tuple[Precision, ...]:
    """Return the precisions of a vendor that declares ``capabilities``, in the table's order."""
    declared = {str(capability) for capability in capabilities}
    return tuple(name for name, means in PRECISIONS.items() if means.capability is None or means.capability in declared)


def precisions_by_capability() -> dict[str, tuple[Precision, ...]]:
    """Return, for each capability that stands for precisions, those precisions."""
    needed = dict.fromkeys(means.capability for means in PRECISIONS.values() if means.capability)
    return {
        capability: tuple(name for name, means in PRECISIONS.items() if means.capability == capability)
        for capability in sorted(needed)
    }


def precision_of(name: str) -> Precision:
    """Return the precision called ``name``.

    Raises:
        UsageError: There is none; the nearest one is suggested.
    """
    for precision in PRECISIONS:
        if precision == name:
            return precision
    raise UsageError(
        f"unknown precision {name!r}{did_you_mean(name, PRECISIONS)}", hint=f"precisions: {', '.join(PRECISIONS)}"
    )


def either(names: Iterable[str]) -> str:
    """Return names as a choice in a sentence: ``fp32, amp or bf16``."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last
