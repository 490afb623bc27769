"""How much a text says."""

from __future__ import annotations

import pytest
from chipperf.contract.texts import count_words


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
