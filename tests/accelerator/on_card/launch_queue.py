"""The simulated cards' queues: launches return while the card is busy.

Times are asserted from below only, against what the model adds up to: a slow machine cannot break that.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import acme_runtime
import pytest
import torch
from acme_runtime import backend

if TYPE_CHECKING:
    from collections.abc import Callable

acme_runtime.load()

FACTOR = torch.ones(512, 512, device="acme:0")
PRODUCT_S = 2 * 512**3 / 20e9


@pytest.fixture(autouse=True)
def _idle() -> None:
    backend.synchronize(0)
    backend.synchronize(1)


def multiply(times: int) -> None:
    for _ in range(times):
        FACTOR @ FACTOR


def is_busy(index: int) -> bool:
    with backend.device(index):
        event = torch.Event("acme")
        event.record()
        return not event.query()


def test_launches_return_before_the_card_is_done_and_synchronize_waits() -> None:
    start_s = time.monotonic()
    multiply(4)
    assert is_busy(0)
    backend.synchronize(0)
    assert not is_busy(0)
    assert time.monotonic() - start_s >= 4 * PRODUCT_S


@pytest.mark.parametrize(
    "read", [torch.Tensor.cpu, torch.Tensor.tolist, lambda x: x.sum().item(), lambda x: x.equal(x)]
)
def test_reading_a_result_waits_for_it(read: Callable[[torch.Tensor], object]) -> None:
    multiply(4)
    read(FACTOR)
    assert not is_busy(0)


def test_copy_that_does_not_block_does_not_wait() -> None:
    multiply(4)
    FACTOR.to("cpu", non_blocking=True)
    assert is_busy(0)


def test_synchronize_waits_for_its_card_only() -> None:
    multiply(4)
    backend.synchronize(1)
    assert is_busy(0)
    assert not is_busy(1)


def test_work_adds_up_between_events() -> None:
    with backend.device(0):
        events = [torch.Event("acme", enable_timing=True) for _ in range(3)]
        events[0].record()
        multiply(2)
        events[1].record()
        multiply(4)
        events[2].record()
    events[2].synchronize()
    assert events[2].query()
    assert events[0].elapsed_time(events[1]) >= 2 * PRODUCT_S * 1000
    assert events[1].elapsed_time(events[2]) >= 4 * PRODUCT_S * 1000


def test_streams_are_busy_apart_and_synchronize_waits_for_all_of_them() -> None:
    stream = torch.Stream(device="acme:0")
    with stream:
        multiply(4)
    assert not stream.query()
    assert not is_busy(0)
    backend.synchronize(0)
    assert stream.query()
