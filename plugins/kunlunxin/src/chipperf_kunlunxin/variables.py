"""Environment variables of Kunlunxin's stack that change results, speed or the machine.

The plugin sets few of them itself (see the profiles and :mod:`chipperf_kunlunxin.configs`). Of the others, it reports
those it finds set; it never sets ``XPU_RUN_MODE``, ``XTORCHRUN_CLEAN`` or ``XPU_EVENT_KL3_ENABLE``.
"""

from __future__ import annotations

import os
from typing import Final

from chipperf import Knob

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


def hazards_in_force() -> tuple[str, ...]:
    """Return a warning for each variable that is set and must not be."""
    return tuple(
        f"{name}={os.environ[name]} is set: {consequence}"
        for name, consequence in HAZARDS.items()
        if _is_on(os.environ.get(name))
    )


def variables_in_force() -> tuple[Knob, ...]:
    """Return the variables that are set, whoever set them."""
    meanings = HAZARDS | _MEANINGS
    return tuple(
        Knob(name=name, value=os.environ[name], reason=meaning)
        for name, meaning in sorted(meanings.items())
        if name in os.environ
    )


def event_timing_enabled() -> bool:
    """Return True if device events are switched to real timing, which hangs collectives."""
    return _is_on(os.environ.get(EVENT_TIMING))


def _is_on(value: str | None) -> bool:
    return value not in (None, "", "0")
