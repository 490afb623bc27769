"""What counts as a name or path that gives somebody away."""

from __future__ import annotations

import pytest
from chipperf.contract.checks.record_checks import _ABSOLUTE_PATH, _texts


@pytest.mark.parametrize(
    "text",
    ["/home/jo/data", "torch from /opt/acme/lib/torch.so", "path:/srv/x/y", "(/usr/lib/a)", "file:///etc/hosts"],
)
def test_absolute_path_is_found(text):
    assert _ABSOLUTE_PATH.search(text)


@pytest.mark.parametrize(
    "text",
    [
        "images/s",
        "p_whole/p_train/p_core",
        "https://example.org/a/b",
        "1/2",
        "</td></tr>",
        "./logs/rank0.log",
        "psutil, /sys/class/powercap",
        "/proc/self/status",
        "/",
    ],
)
def test_other_text_is_left_alone(text):
    assert not _ABSOLUTE_PATH.search(text)


def test_every_text_is_found_with_its_place():
    value = {"a": ["x", {"b": "y"}], "c": 1, "d": None}
    assert dict(_texts("record", value)) == {"record.a[0]": "x", "record.a[1].b": "y"}
