"""Seeds the GPUs' generators and decides between speed and equal bits."""

from __future__ import annotations

import os

from chipperf_nvidia import switches
from chipperf_nvidia.environment import AUTOTUNE_VARIABLE


def seed_devices(seed: int, deterministic: bool) -> None:
    """Seed every visible GPU.

    Args:
        seed: The seed.
        deterministic: Choose kernels that give equal bits in every run; where there is none, torch raises.
    """
    import torch

    torch.cuda.manual_seed_all(seed)
    switches.write(switches.DETERMINISTIC_ALGORITHMS, deterministic)
    switches.write(switches.DETERMINISTIC_CUDNN, deterministic)
    switches.write(switches.BENCHMARK, not deterministic and os.environ.get(AUTOTUNE_VARIABLE) == "1")
