"""Variables that choose devices: MACA_VISIBLE_DEVICES hides CUDA_VISIBLE_DEVICES."""

from __future__ import annotations

import pytest
from chipperf import DeviceError, EnvironmentSettings, ProbedDevice
from chipperf_metax.plugin import perf_environment
from chipperf_metax.probe import VISIBLE_VARIABLES, active_choice, find_conflict, select

DEVICES = tuple(
    ProbedDevice(index=index, name="MetaX C500", uuid=f"GPU-{letter}0000000") for index, letter in enumerate("abcd")
)


SETTINGS = EnvironmentSettings(case="resnet50", precision="fp32")


def use(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VISIBLE_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("choice", "letters"),
    [
        ("0,1,2,3", "abcd"),
        ("2", "c"),
        ("3, 1", "db"),
        ("GPU-c,GPU-a0000000", "ca"),
        ("", ""),
        ("-1", ""),
        ("1,-1,2", "b"),
        ("1,9,2", "b"),
        ("1,1", ""),
        ("GPU-", ""),
        ("GPU-x", ""),
        ("none", ""),
        ("\uff11", ""),
    ],
)
def test_choice_leaves_devices_in_its_order(choice: str, letters: str) -> None:
    chosen = select(DEVICES, choice)
    assert [device.uuid for device in chosen] == [f"GPU-{letter}0000000" for letter in letters]
    assert [device.index for device in chosen] == list(range(len(letters)))


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"CUDA_VISIBLE_DEVICES": "1"}, ("CUDA_VISIBLE_DEVICES", "1")),
        ({"MACA_VISIBLE_DEVICES": "2", "CUDA_VISIBLE_DEVICES": "2"}, ("MACA_VISIBLE_DEVICES", "2")),
        ({"MACA_VISIBLE_DEVICES": ""}, ("MACA_VISIBLE_DEVICES", "")),
    ],
)
def test_variable_of_maca_wins(environment: dict[str, str], expected: tuple[str, str] | None) -> None:
    assert active_choice(environment) == expected


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"MACA_VISIBLE_DEVICES": "0,1"},
        {"CUDA_VISIBLE_DEVICES": "0,1"},
        {"MACA_VISIBLE_DEVICES": "0, 1", "CUDA_VISIBLE_DEVICES": "0,1"},
    ],
)
def test_choices_that_agree_are_no_conflict(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_conflict(environment) is None
    use(environment, monkeypatch)
    assert perf_environment(SETTINGS) is not None


@pytest.mark.parametrize("stale", ["0", "1,0", ""])
def test_stale_variable_of_maca_stops_a_worker(stale: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use({"MACA_VISIBLE_DEVICES": stale, "CUDA_VISIBLE_DEVICES": "0,1"}, monkeypatch)
    with pytest.raises(DeviceError, match="contradicts CUDA_VISIBLE_DEVICES='0,1'") as caught:
        perf_environment(SETTINGS)
    assert caught.value.hint is not None
    assert "unset MACA_VISIBLE_DEVICES" in caught.value.hint
