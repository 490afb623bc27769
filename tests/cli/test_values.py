"""Values and units as a terminal shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from chipperf.cli.values import shown_unit

if TYPE_CHECKING:
    from chipperf.records.columns import Unit


@pytest.mark.parametrize(
    ("unit", "case", "text"),
    [
        ("samples/s", "resnet50", "images/s"),
        ("samples/s", "gpt2", "tokens/s"),
        ("samples/s", "detr", "samples/s"),
        ("samples/s", "of-no-plugin", "samples/s"),
        ("s", "resnet50", "s"),
        ("fraction", "resnet50", ""),
    ],
)
def test_a_throughput_is_in_what_the_case_counts(unit: Unit, case: str, text: str) -> None:
    assert shown_unit(unit, case) == text
