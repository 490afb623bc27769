"""What the checks of operators say of an operator that raises."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from chipperf.contract import operators
from chipperf.contract.checks.numerics_checks import _operator_faults
from chipperf.contract.operators import Errors, Operator
from chipperf.plugin.types import PrecisionPolicy

if TYPE_CHECKING:
    from torch import Tensor

FP32 = PrecisionPolicy(requested="fp32", effective="fp32")


def refused_by_torch(values: Tensor) -> Tensor:
    if values.dtype == torch.float64:
        return values * 2
    raise RuntimeError("Expected attn_mask dtype to be bool")


def refused_by_the_device(values: Tensor) -> Tensor:
    if values.device.type == "cpu":
        return values * 2
    raise RuntimeError("Expected attn_mask dtype to be bool")


def refused_otherwise(values: Tensor) -> Tensor:
    if values.dtype == torch.float64:
        return values * 2
    raise RuntimeError(f"error 7 of {values.device.type}")


@pytest.mark.parametrize(
    ("apply", "faults"),
    [
        (refused_by_torch, []),
        (refused_by_the_device, ["attention raises RuntimeError: Expected attn_mask dtype to be bool"]),
        (refused_otherwise, ["attention raises RuntimeError: error 7 of meta"]),
    ],
)
def test_operator_that_torch_itself_refuses_is_no_fault_of_the_plugin(apply, faults):
    operator = Operator("attention", ((4, 4),), apply)

    assert list(_operator_faults([operator], torch.device("meta"), FP32)) == faults


@pytest.mark.parametrize(
    ("on_the_cpu", "faults"),
    [
        (torch.float32, []),
        (torch.bfloat16, ["attention: output of type torch.float32, not torch.bfloat16"]),
    ],
    ids=["as in torch 2.1", "as in later ones"],
)
def test_product_that_torch_itself_leaves_in_fp32_is_no_fault_of_the_plugin(on_the_cpu, faults, monkeypatch):
    types = {"cpu": on_the_cpu, "meta": torch.float32}
    monkeypatch.setattr(operators, "errors_of", lambda _, device, *rest: Errors(0, 0, types[device.type]))
    policy = PrecisionPolicy(requested="bf16", effective="bf16", autocast_dtype="bfloat16")
    operator = Operator("attention", ((4, 4),), torch.clone, role="product")

    assert list(_operator_faults([operator], torch.device("meta"), policy)) == faults
