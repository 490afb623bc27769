"""Operators are compared with float64, forward and backward."""

from __future__ import annotations

import pytest
import torch
from chipperf.contract.operators import ARITHMETIC, FORMS, Operator, largest_error
from chipperf.contract.tolerances import FP32_OPERATOR

CPU = torch.device("cpu")


class WrongBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values):
        return values.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient if gradient.dtype == torch.float64 else gradient * 1.001


def error_of(apply):
    return largest_error(Operator(name="wrong", shapes=((16, 16),), apply=apply), CPU, seed=1)


@pytest.mark.parametrize("operator", [*ARITHMETIC, *FORMS], ids=lambda operator: operator.name)
def test_operator_is_right_on_the_cpu(operator):
    assert largest_error(operator, CPU, seed=1) < FP32_OPERATOR / 10


def test_rounded_forward_pass_is_seen():
    def apply(values):
        return (values.bfloat16() if values.dtype == torch.float32 else values).to(values.dtype) * 2

    assert 1e-4 < error_of(apply) < 1e-2


def test_wrong_backward_pass_is_seen():
    assert error_of(WrongBackward.apply) == pytest.approx(1e-3, rel=1e-2)


def test_missing_gradient_is_seen():
    assert error_of(lambda values: values * (values.detach() if values.dtype == torch.float32 else values)) > 0.1


@pytest.mark.parametrize(
    "apply",
    [
        pytest.param(lambda values: values * (float("nan") if values.dtype == torch.float32 else 1), id="not a number"),
        pytest.param(lambda values: values if values.dtype == torch.float64 else values[:8], id="another shape"),
    ],
)
def test_useless_result_is_infinitely_wrong(apply):
    assert error_of(apply) == float("inf")
