"""Devices and processes; the second of three simulated cards is hidden, the others are shown in reverse."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import acme_runtime
import pytest
import torch
from acme_runtime import backend

if TYPE_CHECKING:
    from collections.abc import Callable

acme_runtime.load()


def test_visible_cards_are_numbered_as_the_variable_orders_them() -> None:
    assert backend.device_count() == 2
    assert [backend.get_device_properties(index).uuid for index in range(2)] == ["ACME-0000-0002", "ACME-0000-0000"]
    assert backend.get_device_name("acme:1") == "Acme A1"
    assert [card.index for card in acme_runtime.cards()] == [0, 1]


def test_load_again_does_nothing() -> None:
    acme_runtime.load()
    assert torch.get_device_module("acme") is backend
    assert backend.is_available()


def test_missing_card_is_an_error_that_names_the_number() -> None:
    with pytest.raises(RuntimeError, match="card 2 does not exist, there are 2"):
        torch.zeros(1, device="acme:2")
    with pytest.raises(RuntimeError, match="card 2 does not exist, there are 2"):
        backend.set_device(2)


def test_device_without_index_is_the_current_card() -> None:
    with backend.device(1):
        assert torch.zeros(1, device="acme").device == torch.device("acme", 1)
        assert backend.current_device() == 1
    assert backend.current_device() == 0


def test_card_that_was_used_cannot_be_used_in_a_forked_child() -> None:
    tensor = torch.ones(1, device="acme")
    outcome = in_forked_child(lambda: torch.zeros(1, device="acme"))
    assert outcome == "RuntimeError: a card that was used before a fork cannot be used in the forked process"
    assert in_forked_child(backend._is_in_bad_fork) == "True"
    assert not backend._is_in_bad_fork()
    assert tensor.item() == 1


def in_forked_child(action: Callable[[], object]) -> str:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            text = str(action())
        except RuntimeError as error:
            text = f"RuntimeError: {str(error).splitlines()[0]}"
        os.write(writing, text.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return text
