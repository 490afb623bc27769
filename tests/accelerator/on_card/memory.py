"""The simulated cards' memory; they are opened with 64 MiB each."""

from __future__ import annotations

import acme_runtime
import pytest
import torch
from acme_runtime import backend

acme_runtime.load()

MIB = 2**20
CAPACITY_BYTES = 64 * MIB


@pytest.fixture(autouse=True)
def _clean() -> None:
    backend.empty_cache()
    backend.reset_peak_memory_stats(0)


def block(size_bytes: int, device: str = "acme:0") -> torch.Tensor:
    return torch.empty(size_bytes, dtype=torch.uint8, device=device)


def counters(index: int) -> tuple[int, int, int, int]:
    return (
        backend.memory_allocated(index),
        backend.max_memory_allocated(index),
        backend.memory_reserved(index),
        backend.max_memory_reserved(index),
    )


def test_counters_before_the_first_allocation_are_zero() -> None:
    assert counters(1) == (0, 0, 0, 0)
    assert backend.mem_get_info(1) == (CAPACITY_BYTES, CAPACITY_BYTES)


def test_counters_follow_a_tensor() -> None:
    tensor = block(16 * MIB)
    assert counters(0) == (16 * MIB, 16 * MIB, 16 * MIB, 16 * MIB)
    del tensor
    assert counters(0) == (0, 16 * MIB, 16 * MIB, 16 * MIB)
    assert backend.mem_get_info(0) == (48 * MIB, CAPACITY_BYTES)
    backend.empty_cache()
    assert counters(0) == (0, 16 * MIB, 0, 16 * MIB)
    backend.reset_peak_memory_stats(0)
    assert counters(0) == (0, 0, 0, 0)


def test_a_larger_cached_block_is_used_again_but_not_counted_as_allocated() -> None:
    tensor = block(16 * MIB)
    del tensor
    tensor = block(9 * MIB)
    assert (backend.memory_allocated(0), backend.memory_reserved(0)) == (9 * MIB, 16 * MIB)
    assert tensor.numel() == 9 * MIB


def test_cards_count_for_themselves() -> None:
    first, second = block(MIB, "acme:0"), block(2 * MIB, "acme:1")
    assert (backend.memory_allocated(0), backend.memory_allocated(1)) == (MIB, 2 * MIB)
    assert first.numel() < second.numel()


def test_management_library_sees_what_the_process_holds() -> None:
    first, second = (card.uuid for card in acme_runtime.cards())
    tensor = block(16 * MIB)
    found = acme_runtime.telemetry(first).memory_used_bytes
    assert found == backend.memory_reserved(0) >= tensor.numel()
    assert acme_runtime.telemetry(second).memory_used_bytes == backend.memory_reserved(1)


def test_results_of_operators_are_counted_on_their_card() -> None:
    ones = torch.ones(MIB, device="acme:0")
    with backend.device(1):
        total = ones + ones
        kept = (ones > 0).nonzero()
    assert backend.memory_allocated(0) == 4 * MIB + 4 * MIB + 8 * MIB
    assert (total.device, kept.device) == (ones.device, ones.device)


def test_cached_memory_makes_room_before_an_allocation_fails() -> None:
    tensor = block(48 * MIB)
    del tensor
    tensor = block(20 * MIB)
    assert backend.memory_reserved(0) == tensor.numel()


def test_exhausted_memory_is_an_out_of_memory_error_and_the_card_stays_usable() -> None:
    tensor = block(60 * MIB)
    with pytest.raises(torch.OutOfMemoryError, match=rf"card 0 is out of memory: of {CAPACITY_BYTES} bytes"):
        block(5 * MIB)
    assert backend.memory_allocated(0) == 60 * MIB
    assert tensor.fill_(3)[0].item() == 3
    assert block(3 * MIB).numel() == 3 * MIB


@pytest.mark.skipif(not hasattr(torch, "accelerator") or not hasattr(torch.accelerator, "memory_stats"), reason="old")
def test_counters_of_torch_accelerator_are_the_cards() -> None:
    tensor = block(16 * MIB)
    stats = torch.accelerator.memory_stats(0)
    assert stats["allocated_bytes.all.current"] == backend.memory_allocated(0) >= tensor.numel()
    assert torch.accelerator.max_memory_reserved(0) == backend.max_memory_reserved(0)
    del tensor
    torch.accelerator.empty_cache()
    torch.accelerator.reset_peak_memory_stats(0)
    assert counters(0) == (0, 0, 0, 0)
