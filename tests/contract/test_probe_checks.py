"""Which devices a check of the visible-devices variable asks a probe for."""

from __future__ import annotations

import pytest
from chipperf.contract.checks.probe_checks import names_of_devices


@pytest.mark.parametrize(
    ("variables", "count", "names"),
    [
        ({}, 1, ["0"]),
        ({}, 2, ["0", "1"]),
        ({"VISIBLE": ""}, 1, ["0"]),
        ({"VISIBLE": "3"}, 1, ["3"]),
        ({"VISIBLE": "GPU-b,GPU-a"}, 2, ["GPU-b", "GPU-a"]),
        ({"VISIBLE": "4,5,9"}, 2, ["0", "1"]),
        ({"OLDER": "7"}, 1, ["7"]),
    ],
)
def test_devices_have_the_schedulers_names_or_numbers(variables: dict[str, str], count: int, names: list[str]) -> None:
    assert names_of_devices(("VISIBLE", "OLDER"), count, variables) == names
