"""torch's process-wide switches that change numerics: set, read back, and put back as they were.

The older names (``allow_tf32``) are used on purpose: every build of MetaX's has them, setting them sets the newer ones
of torch 2.9 too, and a process that mixes both can no longer read either.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from chipperf import Knob

if TYPE_CHECKING:
    from collections.abc import Mapping

MATMUL_TF32: Final = "cuda.matmul.allow_tf32"
CONVOLUTION_TF32: Final = "cudnn.allow_tf32"
AUTOTUNE: Final = "cudnn.benchmark"
DETERMINISTIC_CONVOLUTION: Final = "cudnn.deterministic"
DETERMINISTIC_ALGORITHMS: Final = "deterministic_algorithms"

_MEANINGS: Final[Mapping[str, str]] = {
    MATMUL_TF32: "fp32 matrix products may be computed in TF32",
    CONVOLUTION_TF32: "fp32 convolutions may be computed in TF32",
    AUTOTUNE: "convolution algorithms are chosen by trying them",
    DETERMINISTIC_CONVOLUTION: "only convolution algorithms with reproducible results are used",
    DETERMINISTIC_ALGORITHMS: "operators whose results differ from run to run are refused",
    "cuda.matmul.allow_fp16_reduced_precision_reduction": "partial sums of fp16 products may be kept in fp16",
    "cuda.matmul.allow_bf16_reduced_precision_reduction": "partial sums of bf16 products may be kept in bf16",
}

_before: dict[str, bool] = {}


def change(name: str, value: bool) -> bool:
    """Set a switch and return what it reads now, which a variable of the environment may have kept from changing.

    Args:
        name: One of this module's constants, most of them names below ``torch.backends``.
        value: What to set.
    """
    _before.setdefault(name, read(name))
    _write(name, value)
    return read(name)


def read(name: str) -> bool:
    """Return a switch as it is in force."""
    import torch

    if name == DETERMINISTIC_ALGORITHMS:
        return torch.are_deterministic_algorithms_enabled()
    owner, attribute = _locate(name)
    return bool(getattr(owner, attribute))


def restore() -> None:
    """Put everything back that was changed since the last call."""
    while _before:
        _write(*_before.popitem())


def as_knobs() -> tuple[Knob, ...]:
    """Return every switch as it is in force."""
    return tuple(Knob(name=name, value=str(read(name)), reason=meaning) for name, meaning in _MEANINGS.items())


def default_knobs() -> tuple[Knob, ...]:
    """Return the build's own choice of TF32, which differs between MetaX's versions; read it before anything is set."""
    return tuple(
        Knob(name=f"{name} (default)", value=str(read(name)), reason="this build's default, before the run sets it")
        for name in (MATMUL_TF32, CONVOLUTION_TF32)
    )


def _write(name: str, value: bool) -> None:
    import torch

    if name == DETERMINISTIC_ALGORITHMS:
        # The call imports torch's compiler, which takes seconds.
        if value != read(name):
            torch.use_deterministic_algorithms(value)
        return
    owner, attribute = _locate(name)
    setattr(owner, attribute, value)


def _locate(name: str) -> tuple[Any, str]:
    import torch

    owner: Any = torch.backends
    *path, attribute = name.split(".")
    for part in path:
        owner = getattr(owner, part)
    return owner, attribute
