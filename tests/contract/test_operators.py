"""Operators are compared with float64, forward and backward."""

from __future__ import annotations

import pytest
import torch
from chipperf.contract.operators import ARITHMETIC, FORMS, OPTIONS, Operator, dropout_faults, errors_of
from chipperf.contract.tolerances import fp32_operator
from torch.nn import functional

CPU = torch.device("cpu")


class WrongBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values):
        return values.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient if gradient.dtype == torch.float64 else gradient * 1.001


def error_of(apply):
    found = errors_of(Operator(name="wrong", shapes=((16, 16),), apply=apply), CPU, seed=1)
    return max(found.output, found.gradients)


@pytest.mark.parametrize("operator", [*ARITHMETIC, *FORMS, *OPTIONS], ids=lambda operator: operator.name)
def test_operator_is_right_on_the_cpu(operator):
    found = errors_of(operator, CPU, seed=1)
    assert max(found.output, found.gradients) < fp32_operator(operator.terms) / 2
    assert found.output_type == torch.float32


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


def test_weights_of_the_first_call_in_the_second_are_seen():
    kept = {}

    def apply(values):
        return values * kept.setdefault(values.dtype, values.detach().clone())

    assert error_of(lambda values: values * values.detach()) < 1e-6
    assert error_of(lambda values: apply(values) if values.dtype == torch.float32 else values * values.detach()) > 0.1


def test_sums_of_a_million_terms_in_16_bits_are_seen():
    (operator,) = (operator for operator in ARITHMETIC if operator.name == "long sum")
    lowered = Operator(
        name="lowered",
        shapes=operator.shapes,
        apply=lambda values: operator.apply(values.half() if values.dtype == torch.float32 else values).to(
            values.dtype
        ),
    )
    assert errors_of(lowered, CPU, seed=1).output > 10 * fp32_operator(operator.terms)


def test_dropout_on_the_cpu_has_no_fault():
    assert dropout_faults(CPU, seed=1) == []


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda drop, x, p, training: drop(x, p / 2, training), "drops a share of"),
        (lambda drop, x, p, training: (torch.manual_seed(1), drop(x, p, training))[1], "repeats masks"),
        (lambda drop, x, p, training: x * drop(torch.ones_like(x[:1]), p, training), "along dimension 0"),
        (lambda drop, x, p, training: x * drop(torch.ones_like(x[..., :1]), p, training), "along dimension 2"),
        (lambda drop, x, p, training: drop(x, p, training) * (1 - p), "does not divide"),
        (lambda drop, x, p, training: drop(x, p, training).detach() + x - x.detach(), "another mask in its gradient"),
        (lambda drop, x, p, training: drop(x, p, True), "changes values in evaluation"),
    ],
)
def test_faulty_dropout_is_seen(wrong, words, monkeypatch):
    drop = functional.dropout
    monkeypatch.setattr(functional, "dropout", lambda x, p, training: wrong(drop, x, p, training))
    assert any(fault.startswith("dropout") and words in fault for fault in dropout_faults(CPU, seed=1))
