"""Whether a text mentions a name."""

from __future__ import annotations

import pytest
from chipperf.contract.other_vendors import mentions


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("on an A100.", "A100", True),
        ("on an a100", "A100", True),
        ("在A100上运行", "A100", True),
        ("沐曦集成电路", "沐曦", True),
        ("A1000", "A100", False),
        ("A100-SXM4", "A100", False),
        ("MA100", "A100", False),
        ("A1_00", "A1", False),
        ("", "A1", False),
    ],
)
def test_mentions(text: str, name: str, expected: bool) -> None:
    assert mentions(text, name) is expected
