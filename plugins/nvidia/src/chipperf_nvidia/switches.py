"""torch's process-wide switches of numerics: read, set, and put back.

TF32 has two sets of switches. torch 2.9 brought ``fp32_precision``, and fails when it is mixed with the older
``allow_tf32``; so only the set that the running torch prefers is ever touched.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

BENCHMARK = "cudnn.benchmark"
DETERMINISTIC_CUDNN = "cudnn.deterministic"
DETERMINISTIC_ALGORITHMS = "use_deterministic_algorithms"

_original_values: dict[str, Any] = {}


class _Switch(NamedTuple):
    get: Callable[[], Any]
    set: Callable[[Any], object]


def tf32_values(enabled: bool) -> dict[str, Any]:
    """Return, for the switches of the running torch, the values that turn TF32 on or off everywhere."""
    import torch

    if hasattr(torch.backends.cuda.matmul, "fp32_precision"):
        value = "tf32" if enabled else "ieee"
        return {f"{product}.fp32_precision": value for product in ("cuda.matmul", "cudnn.conv", "cudnn.rnn")}
    return {"cuda.matmul.allow_tf32": enabled, "cudnn.allow_tf32": enabled}


def read(name: str) -> Any:
    """Return the value in force of the switch, named as under ``torch.backends``."""
    return _find(name).get()


def write(name: str, value: Any) -> None:
    """Set a switch; :func:`restore` puts back what it was before the first write."""
    switch = _find(name)
    _original_values.setdefault(name, switch.get())
    switch.set(value)


def restore() -> None:
    """Put back every switch that was written."""
    while _original_values:
        name, value = _original_values.popitem()
        _find(name).set(value)


def _find(name: str) -> _Switch:
    import torch

    if name == DETERMINISTIC_ALGORITHMS:
        return _Switch(torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms)
    *path, attribute = name.split(".")
    owner = functools.reduce(getattr, path, torch.backends)
    return _Switch(lambda: getattr(owner, attribute), lambda value: setattr(owner, attribute, value))
