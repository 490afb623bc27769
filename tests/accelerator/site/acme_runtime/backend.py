"""SIMULATED torch backend: this module is ``torch.acme`` once :func:`register` was called."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, TypeAlias

import torch

from acme_runtime import management

DEVICE_TYPE = "acme"
_LIBRARY_VARIABLE = "ACME_LIBRARY"
_ORDER_VARIABLE = "ACME_ORDERED_SUMS"

Device: TypeAlias = "torch.device | str | int | None"
"""A card: its index, a device of it, or ``None`` for the current one."""

_cards: tuple[management.Card, ...] = ()


def register() -> None:
    """Load the compiled backend, name its device type and open the visible cards.

    Raises:
        RuntimeError: ``ACME_LIBRARY`` names no file.
    """
    global _cards
    library = os.environ.get(_LIBRARY_VARIABLE, "")
    if not Path(library).is_file():
        raise RuntimeError(f"{_LIBRARY_VARIABLE}={library!r} names no file; set it to the compiled backend")
    torch.ops.load_library(library)
    torch.utils.rename_privateuse1_backend(DEVICE_TYPE)
    torch._register_device_module(DEVICE_TYPE, sys.modules[__name__])
    torch.utils.generate_methods_for_privateuse1_backend(for_storage=True)
    _cards = management.cards()
    capacity_bytes = _cards[0].total_bytes if _cards else 0
    _driver().open_cards(capacity_bytes, [management.usage_file(card.uuid) for card in _cards])
    _driver().let_sums_be_ordered(os.environ.get(_ORDER_VARIABLE) == "1")


def is_available() -> bool:
    """Return True if a card is visible."""
    return device_count() > 0


def device_count() -> int:
    """Return the number of visible cards."""
    return int(_driver().device_count())


def current_device() -> int:
    """Return the index of this thread's current card."""
    return int(_driver().current_device())


def set_device(device: Device) -> None:
    """Make a card current in this thread."""
    _driver().set_device(_index(device))


class device:
    """Makes a card current within a ``with`` block; torch looks for it under this name."""

    def __init__(self, device: Device) -> None:
        self._index = _index(device)
        self._previous = self._index

    def __enter__(self) -> None:
        self._previous = current_device()
        set_device(self._index)

    def __exit__(self, *_: object) -> None:
        set_device(self._previous)


def synchronize(device: Device = None) -> None:
    """Wait until all work queued on a card is done."""
    _driver().synchronize(_index(device))


def get_device_properties(device: Device = None) -> management.Card:
    """Return name, UUID, PCI address and memory of a card."""
    return _cards[_index(device)]


def get_device_name(device: Device = None) -> str:
    """Return the product name of a card."""
    return get_device_properties(device).name


def memory_allocated(device: Device = None) -> int:
    """Return the bytes in use by tensors of this process."""
    return _memory(device)[0]


def max_memory_allocated(device: Device = None) -> int:
    """Return the highest :func:`memory_allocated` since the last reset."""
    return _memory(device)[1]


def memory_reserved(device: Device = None) -> int:
    """Return the bytes this process holds, in use or cached."""
    return _memory(device)[2]


def max_memory_reserved(device: Device = None) -> int:
    """Return the highest :func:`memory_reserved` since the last reset."""
    return _memory(device)[3]


def mem_get_info(device: Device = None) -> tuple[int, int]:
    """Return the free and the total bytes of a card. What other processes hold is not free, but can be allocated."""
    card = get_device_properties(device)
    return card.total_bytes - management.used_bytes(card.uuid), card.total_bytes


def reset_peak_memory_stats(device: Device = None) -> None:
    """Set both peaks to the current values."""
    _driver().reset_peaks(_index(device))


def empty_cache() -> None:
    """Give the cached memory of all cards back."""
    for index in range(device_count()):
        _driver().empty_cache(index)


def manual_seed(seed: int) -> None:
    """Seed the current card's generator."""
    _driver().manual_seed(current_device(), seed)


def manual_seed_all(seed: int) -> None:
    """Seed every card's generator."""
    for index in range(device_count()):
        _driver().manual_seed(index, seed)


def get_rng_state(device: Device = None) -> torch.Tensor:
    """Return the state of a card's generator as bytes on the host."""
    state: torch.Tensor = _driver().get_rng_state(_index(device))
    return state


def set_rng_state(new_state: torch.Tensor, device: Device = None) -> None:
    """Put a state of :func:`get_rng_state` back."""
    _driver().set_rng_state(_index(device), new_state)


def get_amp_supported_dtype() -> list[torch.dtype]:
    """Return the formats autocast may use."""
    return [torch.float16, torch.bfloat16]


def get_allow_tf32() -> bool:
    """Return True if fp32 products are computed in TF32."""
    return bool(_driver().get_allow_tf32())


def set_allow_tf32(allowed: bool) -> None:
    """Let fp32 products be computed in TF32, or in fp32."""
    _driver().set_allow_tf32(allowed)


def host_view(tensor: torch.Tensor) -> torch.Tensor:
    """Return a CPU tensor on the memory of a card's tensor, for staging; the caller synchronizes first."""
    view: torch.Tensor = _driver().host_view(tensor)
    return view


def _is_in_bad_fork() -> bool:
    return bool(_driver().in_forked_child())


def _driver() -> Any:
    return torch.ops.acme_driver


def _memory(device: Device) -> list[int]:
    return [int(value) for value in _driver().memory(_index(device))]


def _index(device: Device) -> int:
    if isinstance(device, int):
        return device
    index = None if device is None else torch.device(device).index
    return current_device() if index is None else index
