"""torch's global switches of numerics, by the names that plugins use to declare them as knobs."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final

_SWITCHES: Final = (
    "allow_tf32",
    "allow_fp16_reduced_precision_reduction",
    "allow_bf16_reduced_precision_reduction",
    "benchmark",
    "deterministic",
    "enabled",
    "fp32_precision",
)
"""Names of global switches in the modules of torch.backends."""

_OWNERS: Final = ("cudnn", "cudnn.conv", "cudnn.rnn", "cuda.matmul", "mkldnn", "mkldnn.matmul", "mkldnn.conv")


def read_switches(device_type: str) -> dict[str, object]:
    """Return the current value of every switch that can be read.

    Args:
        device_type: Device type. If torch.backends has a module of this name, its switches are read too.

    Returns:
        Values by name. The name of a switch in ``torch.backends`` is its path there, for example ``cudnn.allow_tf32``.
    """
    import torch

    found: dict[str, object] = {"use_deterministic_algorithms": torch.are_deterministic_algorithms_enabled()}
    # torch refuses to read a switch if both its older and its newer name were set.
    with suppress(RuntimeError):
        found["float32_matmul_precision"] = torch.get_float32_matmul_precision()
    for path in dict.fromkeys((*_OWNERS, device_type)):
        owner: Any = torch.backends
        for part in path.split("."):
            owner = getattr(owner, part, None)
        for name in _SWITCHES:
            with suppress(RuntimeError, AttributeError):
                value = getattr(owner, name)
                # If it is not set, the product is computed in fp32.
                found[f"{path}.{name}"] = "ieee" if value == "none" else value
    return found
