"""The Kunlunxin probe against made-up machines, the rows of xpu-smi, and the choice of the stack."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
from chipperf import PluginError
from chipperf_kunlunxin.plugin import perf_vendor_info
from chipperf_kunlunxin.probe import describe_runtime, find_device_nodes, probe, read_driver_version
from chipperf_kunlunxin.xpu_smi import parse_machine_rows
from fake_machine import ACCELERATOR

if TYPE_CHECKING:
    from pathlib import Path

    from fake_machine import FakeMachine

ROWS = (
    "00000000:16:00.0 1 1 SERIAL0000000001 37 0 0 0 94 1450 1450 1450 1450 1450 1450 0 96 0 98304 0 1.0:2.43:1.86.5.3 "
    '"P800 OAM" 0 0 0 0 0 0 0 0 0 0\n'
    "00000000:03:00.0 0 0 SERIAL0000000002 36 0 0 0 86 1450 1450 1450 1450 1450 1450 2 96 90440 98304 0 "
    '1.0:2.6:1.39.1.7 "P800 OAM" 0 0 0 0 0 0 0 0 0 0\n'
)
P800_BYTES = 103_079_215_104


def add_p800(machine: FakeMachine) -> None:
    machine.add_pci("0000:03:00.0", 0x1D22, 0x3688, ACCELERATOR)
    machine.add_pci("0000:16:00.0", 0x1D22, 0x3688, ACCELERATOR)
    machine.add_file("proc/kunlun/version", "version: 5.0.21.47\n")
    for node in ("xpu0", "xpu10", "xpu2", "xpuctrl"):
        machine.add_file(f"dev/{node}")


def test_rows_are_read_by_position_with_a_quoted_model() -> None:
    first, second = parse_machine_rows(ROWS)
    assert (first.index, first.name, first.pci_bus_id, first.total_bytes) == (0, "P800 OAM", "0000:16:00.0", P800_BYTES)
    assert (second.index, second.pci_bus_id) == (1, "0000:03:00.0")


@pytest.mark.parametrize(
    "text",
    ["", 'No closing "quote', "Usage: xpu-smi [Options]\nexit(1)\n", ROWS[:60], ROWS.replace("98304", "N/A")],
    ids=["empty", "quote", "usage", "truncated", "column"],
)
def test_other_output_lists_nothing(text: str) -> None:
    assert parse_machine_rows(text) == ()


def test_devices_are_found_with_their_tool(machine: FakeMachine) -> None:
    add_p800(machine)
    machine.add_tool("xpu-smi", ROWS)
    result = probe(machine.root)
    assert [device.pci_bus_id for device in result.devices] == ["0000:16:00.0", "0000:03:00.0"]
    assert result.driver_version == "5.0.21.47"
    assert "2 XPU(s) by xpu-smi -m" in result.reason


@pytest.mark.parametrize(
    ("output", "doubt"),
    [
        (None, "xpu-smi is not installed"),
        ("Intel XPU System Management Interface -- v1.2\n", "does not fit the PCI devices"),
        (ROWS.replace(":16:", ":99:"), "does not fit the PCI devices"),
    ],
    ids=["missing", "Intel's", "elsewhere"],
)
def test_devices_are_found_by_their_nodes_when_the_tool_is_no_help(
    machine: FakeMachine, output: str | None, doubt: str
) -> None:
    add_p800(machine)
    if output is not None:
        machine.add_tool("xpu-smi", output)
    result = probe(machine.root)
    assert [(d.index, d.name, d.pci_bus_id) for d in result.devices] == [(i, "P800 OAM", None) for i in range(3)]
    assert doubt in result.reason


def test_p800_pcie_is_found_under_its_other_vendor_id(machine: FakeMachine) -> None:
    machine.add_pci("0000:16:00.0", 0x2057, 0x3686, ACCELERATOR)
    machine.add_file("dev/xpu0")
    assert [device.name for device in probe(machine.root).devices] == ["P800 PCIe"]


def test_other_device_of_that_vendor_id_is_not_claimed(machine: FakeMachine) -> None:
    machine.add_pci("0000:16:00.0", 0x2057, 0x0001, ACCELERATOR)
    machine.add_file("dev/xpu0")
    assert not probe(machine.root).available


def test_intels_card_and_tool_are_not_claimed(machine: FakeMachine) -> None:
    machine.add_pci("0000:4d:00.0", 0x8086, 0x0BD5)
    machine.add_file("dev/xpu0")
    tool = machine.add_tool("xpu-smi", ROWS)
    result = probe(machine.root)
    assert not result.available
    assert f"{tool} proves nothing: Intel's tool has the same name" in result.reason
    assert "0x1d22 or is 2057:3686" in result.reason


@pytest.mark.parametrize(
    ("driver_directory", "remedy"),
    [("kunlun", "--device=/dev/xpuctrl"), ("xpu", "--device=/dev/xpuctrl"), (None, "load Kunlunxin's kernel driver")],
)
def test_missing_device_nodes_are_the_reason(machine: FakeMachine, driver_directory: str | None, remedy: str) -> None:
    machine.add_pci("0000:16:00.0", 0x1D22, 0x3688, ACCELERATOR)
    machine.add_file("dev/xpuctrl")
    if driver_directory:
        machine.add_file(f"proc/{driver_directory}/version", "4.0.25\n")
    result = probe(machine.root)
    assert not result.available
    assert "PCI lists Kunlunxin devices at 0000:16:00.0, but there is no /dev/xpu0" in result.reason
    assert remedy in result.reason


def test_nodes_are_in_numeric_order(machine: FakeMachine) -> None:
    add_p800(machine)
    assert find_device_nodes(machine.root) == ("xpu0", "xpu2", "xpu10")


@pytest.mark.parametrize(("text", "version"), [("version: 4.0.25", "4.0.25"), ("515.58", None), ("unknown", None)])
def test_placeholder_is_no_driver_version(machine: FakeMachine, text: str, version: str | None) -> None:
    machine.add_file("proc/kunlun/version", text)
    assert read_driver_version(machine.root) == version


def test_runtime_is_looked_up_and_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert describe_runtime().startswith("neither torch_xmlir nor torch_xray is installed here")
    (tmp_path / "torch_xmlir.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert describe_runtime() == "torch_xmlir is installed"
    assert "torch_xmlir" not in sys.modules


def test_loaded_runtime_without_a_spec_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_xray", ModuleType("torch_xray"))
    assert describe_runtime() == "torch_xray is installed"


@pytest.mark.parametrize(
    ("torch_version", "override", "device_type", "visible_devices_env"),
    [
        ("1.12.1+cpu", None, "xpu", "XPU_VISIBLE_DEVICES"),
        ("2.9.0+cu129", None, "cuda", "CUDA_VISIBLE_DEVICES"),
        (None, None, "cuda", "CUDA_VISIBLE_DEVICES"),
        ("2.9.0+cu129", "r300", "xpu", "XPU_VISIBLE_DEVICES"),
        ("1.12.1+cpu", "p800", "cuda", "CUDA_VISIBLE_DEVICES"),
    ],
)
def test_profile_follows_the_installed_torch_and_can_be_overridden(
    monkeypatch: pytest.MonkeyPatch,
    torch_version: str | None,
    override: str | None,
    device_type: str,
    visible_devices_env: str,
) -> None:
    monkeypatch.setattr("chipperf_kunlunxin.profiles.distribution_version", {"torch": torch_version}.get)
    monkeypatch.delenv("PERF_KUNLUNXIN_PROFILE", raising=False)
    if override:
        monkeypatch.setenv("PERF_KUNLUNXIN_PROFILE", override)
    info = perf_vendor_info()
    assert (info.device_type, info.visible_devices_env) == (device_type, (visible_devices_env,))


def test_unknown_profile_is_an_error_that_lists_the_profiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERF_KUNLUNXIN_PROFILE", "r400")
    with pytest.raises(PluginError, match="PERF_KUNLUNXIN_PROFILE=r400") as caught:
        perf_vendor_info()
    assert caught.value.hint == "use one of: r300, p800"
