"""How much a text says, and whom it mentions."""

from __future__ import annotations

import pytest
from chipperf.contract.texts import count_words, mentions


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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 0),
        (" - ", 0),
        ("no device", 2),
        ("no /dev/acme0: load the kernel module", 6),
        ("没有找到设备，请加载驱动", 5),
        ("没有 /dev/acme0", 2),
    ],
)
def test_count_words(text: str, expected: int) -> None:
    assert count_words(text) == expected
