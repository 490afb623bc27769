"""The management library, whose binding is faked: it only comes with MetaX's SDK."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import pytest
from chipperf.hardware import DeviceReading
from chipperf_metax.telemetry import open_library, read_library
from fake_pymxsml import UUIDS, FakePymxsml

if TYPE_CHECKING:
    from pathlib import Path


def test_units_are_converted() -> None:
    report = read_library(FakePymxsml())
    reading = report.readings[0]
    assert (reading.pci_bus_id, reading.uuid, reading.name) == ("0000:37:00.0", UUIDS[0], "MXC500")
    assert reading.power_w == pytest.approx(62.015)
    assert (reading.temperature_c, reading.utilization_percent) == (38.5, 71)
    assert (reading.memory_used_bytes, reading.memory_total_bytes) == (15518872 * 1024, 64 * 2**30)
    assert (report.driver_version, report.sdk_version) == ("3.8.30", "3.5.3.20")


def test_board_without_compute_of_its_own_is_left_out() -> None:
    readings = read_library(FakePymxsml()).readings
    assert [reading.uuid for reading in readings] == list(UUIDS)
    assert readings[1].utilization_percent is None


@pytest.mark.parametrize(
    ("call", "unknown"),
    [
        ("mxSmlGetMemoryInfo", {"memory_used_bytes", "memory_total_bytes"}),
        ("mxSmlGetTemperatureInfo", {"temperature_c"}),
        ("mxSmlGetDeviceIpUsage", {"utilization_percent"}),
        ("mxSmlGetBoardPowerInfo", {"power_w"}),
    ],
)
def test_what_the_library_refuses_is_unknown(call: str, unknown: set[str]) -> None:
    reading = read_library(FakePymxsml(refused={call})).readings[0]
    assert {name for name in DeviceReading.__slots__ if getattr(reading, name) is None} == {
        *unknown,
        *("clock_mhz", "device_id", "node", "serial"),
    }


@pytest.mark.parametrize("call", ["mxSmlGetDeviceCount", "mxSmlGetDeviceInfo"])
def test_library_that_knows_no_device_has_no_reading(call: str) -> None:
    assert read_library(FakePymxsml(refused={call})).readings == ()


def test_library_is_opened_once(monkeypatch: pytest.MonkeyPatch) -> None:
    binding = FakePymxsml()
    monkeypatch.setitem(sys.modules, "pymxsml", binding)
    assert open_library() is open_library() is not None
    assert binding.initialized == 1


def test_library_that_fails_to_start_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymxsml", FakePymxsml(refused={"mxSmlInit"}))
    assert open_library() is None


def test_library_that_is_not_installed_or_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_library() is None
    open_library.cache_clear()
    (tmp_path / "pymxsml.py").write_text("raise OSError('libmxsml.so: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    assert open_library() is None


def test_library_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    binding = FakePymxsml()
    monkeypatch.setattr(binding, "mxSmlInit", lambda: time.sleep(5), raising=False)
    monkeypatch.setitem(sys.modules, "pymxsml", binding)
    assert open_library(timeout_s=0.1) is None
