"""Kunlunxin's software: environment variables that change results, speed or the machine, modules and their versions.

``variables.toml`` has those that are known. The plugin sets few itself; of the others, it reports those it finds set.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from chipperf import Knob, PluginError, read_variables
from chipperf.hardware import distribution_version
from chipperf.torchtools import user_variables

EVENT_TIMING: Final = "XPU_EVENT_KL3_ENABLE"

VARIABLES: Final = read_variables(Path(__file__).with_name("variables.toml"))

HAZARDS: Final = VARIABLES.meanings["hazards"]
"""Variables that must not be set, and what happens if they are."""

# A release may have variables of its own that are not listed here; they are recorded too.
_PREFIXES: Final = ("BKCL_", "FLAGCX_", "XACC", "XBLAS_", "XDNN_", "XMLIR_")

_FP32_TYPES: Final = (None, "", "float32")


def hazards_in_force() -> tuple[str, ...]:
    """Return a warning for each variable that is set and must not be."""
    return tuple(
        f"{name}={os.environ[name]} is set: {consequence}"
        for name, consequence in HAZARDS.items()
        if _is_on(os.environ.get(name))
    )


def variables_in_force() -> tuple[Knob, ...]:
    """Return the variables that are set, whoever set them."""
    return user_variables(dict(sorted({**HAZARDS, **VARIABLES.meanings["reported"]}.items())), prefixes=_PREFIXES)


def event_timing_enabled() -> bool:
    """Return True if device events are switched to real timing, which hangs collectives."""
    return _is_on(os.environ.get(EVENT_TIMING))


def product_type_knobs() -> tuple[Knob, ...]:
    """Return the type in which products of fp32 tensors are computed, as the variables have it."""
    return tuple(
        Knob(
            name=name,
            value=os.environ.get(name) or "not set",
            reason=f"type in which {products} of fp32 tensors are computed; not set leaves the library's choice",
        )
        for name, products in VARIABLES.meanings["product_types"].items()
    )


def effective_fp32() -> str:
    """Return what fp32 products are computed in: ``fp32``, unless a variable orders something narrower."""
    ordered = [
        f"{products} in {os.environ[name]}"
        for name, products in VARIABLES.meanings["product_types"].items()
        if os.environ.get(name) not in _FP32_TYPES
    ]
    if "amp" in os.environ.get("XACC_ARGS", "").split():
        ordered.append("mixed by the xacc compiler")
    return f"fp32, but {' and '.join(ordered)}" if ordered else "fp32"


def read_stack_versions(stated: object) -> dict[str, str | None]:
    """Read ``torch_xmlir.__version__`` into parts of ``RuntimeInfo``.

    Args:
        stated: In XPyTorch a mapping from parts to versions, in the R300's stack a string; ``None`` if missing.
    """
    if isinstance(stated, Mapping):
        parts = {"framework": ("XPyTorch", "XPYTORCH"), "compiler": ("XTDK", "XTDK"), "sdk": ("XRE", "XRE")}
        parts["collectives"] = ("XCCL", "XCCL")
        return {part: _named(name, stated.get(key)) for part, (name, key) in parts.items()}
    return {
        "framework": _named("xmlir", stated or distribution_version("xmlir")),
        "compiler": _named("xacc", distribution_version("xacc")),
    }


def torch_xmlir() -> Any:
    """Return Kunlunxin's torch extension, imported; it has no types.

    Raises:
        PluginError: It cannot be imported.
    """
    return import_module(
        "torch_xmlir", "install Kunlunxin's own build of torch: upstream torch has no Kunlunxin devices"
    )


def import_module(name: str, remedy: str) -> Any:
    """Return a module of the vendor, imported.

    Raises:
        PluginError: It cannot be imported.
    """
    try:
        return importlib.import_module(name)
    # Whatever the vendor's module raises while it is imported, the run cannot go on.
    except Exception as error:
        raise PluginError(f"{name} cannot be imported: {type(error).__name__}: {error}", hint=remedy) from error


def _is_on(value: str | None) -> bool:
    return value not in (None, "", "0")


def _named(name: str, version: object) -> str | None:
    return f"{name} {version}" if version else None
