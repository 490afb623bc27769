"""Kunlunxin's software: environment variables that change results, speed or the machine, modules and their versions.

The plugin sets few variables itself (see :mod:`chipperf_kunlunxin.r300` and :mod:`chipperf_kunlunxin.p800`). Of the
others, it reports those it finds set; it never sets ``XPU_RUN_MODE``, ``XTORCHRUN_CLEAN`` or ``XPU_EVENT_KL3_ENABLE``.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from chipperf import Knob, PluginError
from chipperf.hardware import distribution_version
from chipperf.torchtools import user_variables

EVENT_TIMING: Final = "XPU_EVENT_KL3_ENABLE"

HAZARDS: Final = {
    EVENT_TIMING: "with real event timing, collectives on a P800 hang in most runs; chipperf needs no device events",
    "XPU_RUN_MODE": "importing torch_xmlir then writes hardware registers, for every process on this machine",
    "XTORCHRUN_CLEAN": "Kunlunxin's launcher then kills processes of other users",
    "DISABLE_XPYTORCH": "XPyTorch then leaves torch alone, which finds no device",
    "XMLIR_DISABLE_CUDA_ALLOCATOR": "the allocator's counters are then gone, and with them the peak memory",
}
"""Variables that must not be set, and what happens if they are."""

_MEANINGS: Final = {
    "BKCL_CCIX_BUFFER_GM": "collective buffers in device memory instead of L3",
    "BKCL_CCIX_RING": "ring over CCIX links",
    "BKCL_ENABLE_XDR": "device-direct RDMA",
    "BKCL_FORCE_L3_RDMA": "RDMA from L3",
    "BKCL_FORCE_SYNC": "collectives wait for the device",
    "BKCL_PCIE_RING": "ring over PCIe",
    "BKCL_RDMA_FORCE_TREE": "tree algorithm over RDMA",
    "BKCL_RDMA_NICS": "network ports of the collectives",
    "BKCL_RING_BUFFER_SIZE": "buffer size of the ring algorithm",
    "BKCL_SOCKET_FORCE_TREE": "tree algorithm over sockets",
    "BKCL_SOCKET_IFNAME": "network interface of the collectives",
    "BKCL_TIMEOUT": "time-out of a collective in seconds",
    "BKCL_TRANS_UNSUPPORTED_DATATYPE": "collectives convert types they do not support",
    "BKCL_TREE_THRESHOLD": "message size up to which the tree algorithm is used",
    "CUDART_DUMMY_REGISTER": "start-up of XPyTorch's CUDA runtime",
    "FLAGCX_ADAPTOR": "device adaptor of FlagCX",
    "XACC": "compiles the model with xacc",
    "XACC_ARGS": "options of the xacc compiler",
    "XACC_ENABLE": "compiles the model with xacc",
    "XBLAS_FC_HBM_VERSION": "implementation of linear layers",
    "XMLIR_CUDNN_ENABLED": "implementation of convolutions",
    "XMLIR_D_FORCE_FALLBACK_STR": "operators that run on the host",
    "XMLIR_D_XPU_L3_SIZE": "bytes of on-chip L3 reserved as scratch memory",
    "XMLIR_ENABLE_FALLBACK_TO_CPU_BOOL": "whether operators may run on the host",
    "XMLIR_ENABLE_FAST_FC": "implementation of linear layers",
    "XMLIR_ENABLE_LINEAR_FC_FUSION": "fusion of linear layers",
    "XMLIR_ENABLE_MOCK_TORCH_COMPILE": "whether torch.compile does nothing",
    "XMLIR_ENABLE_NEW_PG": "which process group stands behind nccl",
    "XPU_DUMMY_EVENT": "device events that do nothing",
    "XPU_FORCE_USERMODE_LAUNCH": "how kernels are launched",
}

# A release may have variables of its own that are not listed here; they are recorded too.
_PREFIXES: Final = ("BKCL_", "FLAGCX_", "XACC", "XBLAS_", "XDNN_", "XMLIR_")

_FP32_TYPES: Final = (None, "", "float32")
_GEMM_VARIABLES: Final = {
    "XDNN_CONV_GEMM_DTYPE": "convolutions",
    "XDNN_FC_GEMM_DTYPE": "linear layers",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StackVersions:
    """Versions of the parts of the stack; ``None`` is unknown."""

    framework: str | None = None
    compiler: str | None = None
    sdk: str | None = None
    collectives: str | None = None


def hazards_in_force() -> tuple[str, ...]:
    """Return a warning for each variable that is set and must not be."""
    return tuple(
        f"{name}={os.environ[name]} is set: {consequence}"
        for name, consequence in HAZARDS.items()
        if _is_on(os.environ.get(name))
    )


def variables_in_force() -> tuple[Knob, ...]:
    """Return the variables that are set, whoever set them."""
    return user_variables(dict(sorted((HAZARDS | _MEANINGS).items())), prefixes=_PREFIXES)


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


def read_stack_versions(stated: object) -> StackVersions:
    """Read ``torch_xmlir.__version__``.

    Args:
        stated: In XPyTorch a mapping from parts to versions, in the R300's stack a string; ``None`` if missing.
    """
    if isinstance(stated, Mapping):
        parts = {str(part): str(version) for part, version in stated.items() if version}
        return StackVersions(
            framework=_named("XPyTorch", parts.get("XPYTORCH")),
            compiler=_named("XTDK", parts.get("XTDK")),
            sdk=_named("XRE", parts.get("XRE")),
            collectives=_named("XCCL", parts.get("XCCL")),
        )
    return StackVersions(
        framework=_named("xmlir", str(stated) if stated else distribution_version("xmlir")),
        compiler=_named("xacc", distribution_version("xacc")),
    )


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


def _named(name: str, version: str | None) -> str | None:
    return f"{name} {version}" if version else None
