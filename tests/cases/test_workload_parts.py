"""Parts that workloads share, with versions of torch that lack something."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from chipperf.cases.workload_parts import fused_if_possible
from chipperf.torchtools import gradient_scaler


class NoFusedArgument(torch.optim.SGD):
    """SGD of torch before 2.3."""

    def __init__(self, parameters: Any, lr: float) -> None:
        super().__init__(parameters, lr=lr)


class NoFusedKernel(torch.optim.SGD):
    """SGD of torch 2.3 on a CPU: the argument is accepted, and the first step fails."""

    def step(self, closure: Any = None) -> None:
        if self.defaults["fused"]:
            raise NotImplementedError("Could not run 'aten::_fused_sgd_' with arguments from the 'CPU' backend")
        super().step(closure)


@pytest.mark.parametrize("optimizer", [NoFusedArgument, NoFusedKernel])
def test_optimizer_without_fused_kernel_is_the_plain_one(optimizer: type[torch.optim.SGD]) -> None:
    model = torch.nn.Linear(2, 1)
    built = fused_if_possible(optimizer, model.parameters(), lr=0.5)
    assert built.param_groups[0]["params"] == list(model.parameters())
    assert not built.defaults.get("fused")


def test_optimizer_is_fused_where_a_kernel_is() -> None:
    model = torch.nn.Linear(2, 1)
    before = [parameter.clone() for parameter in model.parameters()]
    built = fused_if_possible(torch.optim.SGD, model.parameters(), lr=0.5)
    assert built.defaults["fused"]
    assert built.param_groups[0]["params"] == list(model.parameters())
    assert all(torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True))


def test_every_group_of_a_fused_optimizer_is_fused() -> None:
    model = torch.nn.Linear(2, 1)
    groups = [{"params": [model.weight], "weight_decay": 0.1}, {"params": [model.bias], "lr": 0.25}]
    built = fused_if_possible(torch.optim.AdamW, groups, lr=0.5)
    assert [(group["fused"], group["lr"], group["weight_decay"]) for group in built.param_groups] == [
        (True, 0.5, 0.1),
        (True, 0.25, 0.01),
    ]
    assert groups[0].keys() == {"params", "weight_decay"}


def test_skipped_first_step_leaves_the_next_ones_right() -> None:
    trained = []
    for build in (fused_if_possible, lambda optimizer, *args, **options: optimizer(*args, **options)):
        weight = torch.nn.Parameter(torch.ones(64, 64))
        optimizer = build(torch.optim.SGD, [weight], lr=0.5, momentum=0.9)
        scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
        # Memory that is used again holds what was there.
        del [torch.full((64, 64), 1e30) for _ in range(64)][:]
        for factor in (float("inf"), 1.0, 2.0):
            optimizer.zero_grad()
            scaler.scale((weight * factor).sum()).backward()
            scaler.step(optimizer)
            scaler.update()
        trained.append(weight.detach())
    assert torch.equal(*trained)


def test_scaler_of_torch_before_2_3_does_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.amp, "GradScaler")
    older = torch.cuda.amp.GradScaler.__mro__[1]
    monkeypatch.setattr(
        torch.cuda.amp, "GradScaler", lambda init_scale, enabled: older("cuda", init_scale=init_scale, enabled=enabled)
    )
    scaler = gradient_scaler("cuda", init_scale=8.0, enabled=False)
    assert (scaler.is_enabled(), scaler.scale(torch.ones(1)).item()) == (False, 1.0)
