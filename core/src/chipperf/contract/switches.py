"""torch's global switches of numerics, read by the names under which plugins declare them as knobs."""

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
"""What the modules of torch.backends call their global switches."""

_OWNERS: Final = ("cudnn", "cudnn.conv", "cudnn.rnn", "cuda.matmul", "mkldnn", "mkldnn.matmul", "mkldnn.conv")


def read_switches(device_type: str) -> dict[str, object]:
    """Return every switch that can be read, as it is in force.

    Args:
        device_type: Of the devices whose own module under torch.backends, if there is one, is read too.

    Returns:
        Values by name: those under ``torch.backends`` by their path there, for example ``cudnn.allow_tf32``.
    """
    import torch

    found: dict[str, object] = {"use_deterministic_algorithms": torch.are_deterministic_algorithms_enabled()}
    # torch refuses to read switches of which both the older and the newer name were set.
    with suppress(RuntimeError):
        found["float32_matmul_precision"] = torch.get_float32_matmul_precision()
    for path in dict.fromkeys((*_OWNERS, device_type)):
        owner: Any = torch.backends
        for part in path.split("."):
            owner = getattr(owner, part, None)
        for name in _SWITCHES:
            with suppress(RuntimeError, AttributeError):
                value = getattr(owner, name)
                # Not set, fp32 is what it says.
                found[f"{path}.{name}"] = "ieee" if value == "none" else value
    return found
