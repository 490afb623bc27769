"""Device memory as MetaX's torch counts it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chipperf import MemoryStats

if TYPE_CHECKING:
    import torch


def read_memory(device: torch.device) -> MemoryStats:
    """Return the allocator's counters, and use and capacity by the runtime.

    The runtime keeps to the slice of a shared GPU, whereas mx-smi counts the whole board.
    """
    import torch

    free_bytes, total_bytes = torch.cuda.mem_get_info(device)
    return MemoryStats(
        source="torch.cuda allocator; used and total from mem_get_info",
        allocated_bytes=torch.cuda.memory_allocated(device),
        peak_allocated_bytes=torch.cuda.max_memory_allocated(device),
        reserved_bytes=torch.cuda.memory_reserved(device),
        peak_reserved_bytes=torch.cuda.max_memory_reserved(device),
        used_bytes=total_bytes - free_bytes,
        total_bytes=total_bytes,
    )
