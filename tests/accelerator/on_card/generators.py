"""The simulated cards' generators."""

from __future__ import annotations

from typing import TYPE_CHECKING

import acme_runtime
import pytest
import torch
from acme_runtime import backend

if TYPE_CHECKING:
    from collections.abc import Callable

acme_runtime.load()

DRAWS: dict[str, Callable[[str], torch.Tensor]] = {
    "rand": lambda device: torch.rand(4, device=device),
    "randn": lambda device: torch.randn(4, device=device),
    "randint": lambda device: torch.randint(2**31, (4,), device=device),
    "randperm": lambda device: torch.randperm(9, device=device),
    "bernoulli": lambda device: torch.full((32,), 0.5, device=device).bernoulli(),
    "dropout": lambda device: torch.nn.functional.dropout(torch.ones(32, device=device), 0.5),
    "trunc_normal": lambda device: torch.nn.init.trunc_normal_(torch.empty(4, device=device)),
}


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("device", ["acme:0", "acme:1"])
def test_draws_follow_the_cards_seed_and_leave_the_hosts_generator_alone(name: str, device: str) -> None:
    host_state = torch.get_rng_state()
    draws = []
    for seed in (1, 1, 2):
        backend.manual_seed_all(seed)
        draws.append(DRAWS[name](device))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert torch.equal(torch.get_rng_state(), host_state)


def test_torchs_own_seed_reaches_the_cards() -> None:
    torch.manual_seed(5)
    first = torch.rand(3, device="acme")
    torch.manual_seed(5)
    assert torch.equal(torch.rand(3, device="acme"), first)


def test_manual_seed_seeds_the_current_card_only() -> None:
    backend.manual_seed_all(1)
    expected = torch.rand(3, device="acme:0")
    backend.manual_seed_all(1)
    with backend.device(1):
        backend.manual_seed(2)
    assert torch.equal(torch.rand(3, device="acme:0"), expected)


def test_state_can_be_put_back() -> None:
    state = backend.get_rng_state("acme:1")
    first = torch.rand(3, device="acme:1")
    backend.set_rng_state(state, "acme:1")
    assert torch.equal(torch.rand(3, device="acme:1"), first)


def test_generator_object_draws_for_its_card() -> None:
    generator = torch.Generator(device="acme:1")
    draws = [torch.randn(3, device="acme:1", generator=generator.manual_seed(seed)) for seed in (3, 3, 4)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_dropout_keeps_the_expected_value_and_its_mask_in_backward() -> None:
    ones = torch.ones(10_000, device="acme", requires_grad=True)
    dropped = torch.nn.functional.dropout(ones, 0.2)
    assert set(dropped.unique().tolist()) == {0.0, 1.25}
    dropped.sum().backward()
    assert ones.grad is not None
    assert torch.equal(ones.grad, dropped)
