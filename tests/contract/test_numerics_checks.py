"""What the checks of operators say of an operator that raises."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from chipperf.contract.checks.numerics_checks import _operator_faults
from chipperf.contract.operators import Operator
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
