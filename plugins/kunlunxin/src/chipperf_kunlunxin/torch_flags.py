"""torch's process-wide switches that the plugin changes; each is put back at teardown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_previous: dict[str, Any] = {}


def read_flag(name: str) -> Any:
    """Return a switch as torch has it now."""
    read, _ = _accessors()[name]
    return read()


def set_flag(name: str, value: Any) -> None:
    """Set a switch and remember what it was before the first change; nothing happens if it is so already."""
    read, write = _accessors()[name]
    before = read()
    # torch.use_deterministic_algorithms imports torch's compiler, which takes seconds.
    if before != value:
        _previous.setdefault(name, before)
        write(value)


def restore_flags() -> None:
    """Put back every switch that was changed; a second call does nothing."""
    accessors = _accessors() if _previous else {}
    while _previous:
        name, value = _previous.popitem()
        accessors[name][1](value)


def _accessors() -> dict[str, tuple[Callable[[], Any], Callable[[Any], None]]]:
    import torch
    from torch.backends import cudnn

    def attribute(name: str) -> tuple[Callable[[], Any], Callable[[Any], None]]:
        return lambda: getattr(cudnn, name), lambda value: setattr(cudnn, name, value)

    return {
        "cudnn.allow_tf32": attribute("allow_tf32"),
        "cudnn.benchmark": attribute("benchmark"),
        "cudnn.deterministic": attribute("deterministic"),
        "cudnn.enabled": attribute("enabled"),
        "deterministic_algorithms": (
            torch.are_deterministic_algorithms_enabled,
            torch.use_deterministic_algorithms,
        ),
        "float32_matmul_precision": (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    }
