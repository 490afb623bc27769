"""What both stacks share about precision: the variables that decide in which type fp32 products are computed."""

from __future__ import annotations

import os
from typing import Final

from chipperf import Knob

_FP32_TYPES: Final = (None, "", "float32")
_GEMM_VARIABLES: Final = {
    "XDNN_CONV_GEMM_DTYPE": "convolutions",
    "XDNN_FC_GEMM_DTYPE": "linear layers",
}


def product_type_knobs() -> tuple[Knob, ...]:
    """Return the type in which products of fp32 tensors are computed, as the variables have it."""
    return tuple(
        Knob(
            name=name,
            value=os.environ.get(name) or "not set",
            reason=f"type in which {products} of fp32 tensors are computed; not set leaves the library's choice",
        )
        for name, products in _GEMM_VARIABLES.items()
    )


def effective_fp32() -> str:
    """Return what fp32 products are computed in: ``fp32``, unless a variable orders something narrower."""
    ordered = [
        f"{products} in {os.environ[name]}"
        for name, products in _GEMM_VARIABLES.items()
        if os.environ.get(name) not in _FP32_TYPES
    ]
    if "amp" in os.environ.get("XACC_ARGS", "").split():
        ordered.append("mixed by the xacc compiler")
    return f"fp32, but {' and '.join(ordered)}" if ordered else "fp32"
