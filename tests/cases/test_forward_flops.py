"""What cases say of the arithmetic of their models, against torch's own count."""

from __future__ import annotations

import pytest
import torch
import torchvision
from chipperf.cases.classification.case import MOBILENETV2, RESNET50
from torch.utils.flop_counter import FlopCounterMode


@pytest.mark.parametrize("case", [RESNET50, MOBILENETV2], ids=lambda case: case.name)
def test_forward_pass_takes_as_much_arithmetic_as_the_case_says(case):
    size = case.base.image_size
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        getattr(torchvision.models, case.base.model)()(torch.empty(1, 3, size, size))

    assert case.forward_flops == pytest.approx(counter.get_total_flops(), rel=0.01)
