"""The Kunlunxin probe against fake machines, and the choice of the stack."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
from chipperf import PluginError
from chipperf.hardware import DeviceReading, ToolOutput, run_tool
from chipperf.plugin.probe_process import PROBE_TIMEOUT_S
from chipperf_kunlunxin.plugin import perf_tool_commands, perf_vendor_info
from chipperf_kunlunxin.probe import describe_runtime, find_device_nodes, probe, read_driver_version
from chipperf_kunlunxin.stacks import STACKS
from fake_machine import ACCELERATOR
from kunlunxin_tool import P800_BYTES, add_xpu_smi, query_of, recorded

if TYPE_CHECKING:
    from pathlib import Path

    from fake_machine import FakeMachine

ROWS = recorded("xpu-smi-m-p800")
QUERY = query_of(("00000000:16:00.0", "GPU-A1"), ("00000000:03:00.0", "GPU-B2"))


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CUDA_VISIBLE_DEVICES", "XPU_VISIBLE_DEVICES", "PERF_KUNLUNXIN_PROFILE", "XPU_EVENT_KL3_ENABLE"):
        monkeypatch.delenv(name, raising=False)


def add_p800(machine: FakeMachine) -> None:
    machine.add_pci("0000:03:00.0", 0x1D22, 0x3688, ACCELERATOR)
    machine.add_pci("0000:16:00.0", 0x1D22, 0x3688, ACCELERATOR)
    machine.add_file("proc/kunlun/version", "version: 5.0.21.47\n")
    for node in ("xpu0", "xpu10", "xpu2", "xpuctrl"):
        machine.add_file(f"dev/{node}")


def test_devices_are_found_with_their_tool(machine: FakeMachine) -> None:
    add_p800(machine)
    add_xpu_smi(machine, m=ROWS, q=QUERY)
    result = probe(machine.root)
    assert [(d.index, d.name, d.pci_bus_id, d.uuid, d.total_bytes) for d in result.devices] == [
        (0, "P800 OAM", "0000:16:00.0", "a1", P800_BYTES),
        (1, "P800 OAM", "0000:03:00.0", "b2", P800_BYTES),
    ]
    assert result.driver_version == "5.0.21.47"
    assert "2 XPU(s) by xpu-smi -m; neither torch_xmlir" in result.reason
    assert "the tool lists 2, and /dev 3" in result.reason
    assert [device.part for device in result.devices] == [None, None]


def test_virtual_function_is_a_part_of_a_card(machine: FakeMachine) -> None:
    add_p800(machine)
    machine.add_file("sys/bus/pci/devices/0000:16:00.0/physfn")
    add_xpu_smi(machine, m=ROWS, q=QUERY)
    assert [device.part for device in probe(machine.root).devices] == ["virtual function", None]


def test_driver_version_comes_from_the_tool_if_the_kernel_does_not_say(machine: FakeMachine) -> None:
    add_p800(machine)
    machine.add_file("proc/kunlun/version", "515.58")
    add_xpu_smi(machine, m=ROWS, q=QUERY.replace("5.0.21.47", "5.0.21.26"))
    assert probe(machine.root).driver_version == "5.0.21.26"


def test_machine_without_uuids_is_found_by_the_table_of_an_old_tool(machine: FakeMachine) -> None:
    for address in ("0000:53:00.0", "0000:56:00.0"):
        machine.add_pci(address, 0x1D22, 0x3685, ACCELERATOR)
    machine.add_file("dev/xpu0")
    machine.add_file("dev/xpu1")
    add_xpu_smi(machine, table=recorded("xpu_smi-table-4.31"))
    result = probe(machine.root)
    assert [(d.name, d.pci_bus_id, d.uuid) for d in result.devices] == [
        ("R300", "0000:53:00.0", None),
        ("R300", "0000:56:00.0", None),
    ]


def test_two_devices_at_one_address_get_no_identity_of_each_other(machine: FakeMachine) -> None:
    machine.add_pci("0000:37:00.0", 0x1D22, 0x3684, ACCELERATOR)
    machine.add_file("dev/xpu0")
    machine.add_file("dev/xpu1")
    add_xpu_smi(machine, m=recorded("xpu-smi-m-k200"), q=query_of(("0000:37:00.0", "GPU-A1")))
    assert [(d.index, d.name, d.uuid) for d in probe(machine.root).devices] == [(0, "K200", None), (1, "K200", None)]


@pytest.mark.parametrize(
    ("output", "doubt"),
    [
        (None, "xpu-smi is not installed"),
        ("Intel XPU System Management Interface -- v1.2\n", "is not Kunlunxin's"),
        (ROWS.replace(":16:", ":99:"), "does not fit the PCI devices"),
        (ROWS[:60], "is not Kunlunxin's"),
    ],
    ids=["missing", "Intel's", "elsewhere", "cut off"],
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


def test_hanging_tool_is_killed_and_called_no_second_time(
    machine: FakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_p800(machine)
    tool = machine.add_tool("xpu-smi", script="/bin/sleep 60")
    calls = []

    def counted_run_tool(argv: list[str], *, timeout_s: float) -> ToolOutput:
        calls.append(argv)
        return run_tool(argv, timeout_s=timeout_s)

    monkeypatch.setattr("chipperf.hardware.run_tool", counted_run_tool)
    result = probe(machine.root, timeout_s=0.1)
    assert len(result.devices) == 3
    assert "(xpu-smi did not finish within" in result.reason
    assert calls == [[str(tool), "-m"]]


def test_tool_may_take_the_time_in_which_a_driver_starts(machine: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    add_p800(machine)
    machine.add_tool("xpu-smi")
    allowed_s: list[float] = []

    def note(argv: list[str], *, timeout_s: float) -> ToolOutput:
        allowed_s.append(timeout_s)
        return ToolOutput(stdout=ROWS if argv[1:] == ["-m"] else QUERY)

    monkeypatch.setattr("chipperf.hardware.run_tool", note)
    assert [device.uuid for device in probe(machine.root).devices] == ["a1", "b2"]
    assert min(allowed_s) >= 15
    assert sum(allowed_s) < PROBE_TIMEOUT_S


def test_lost_card_is_named_and_the_others_stay(machine: FakeMachine) -> None:
    add_p800(machine)
    machine.add_pci("0000:28:00.0", 0x1D22, 0x3688, ACCELERATOR)
    add_xpu_smi(machine, m=ROWS, q=QUERY)
    tool = machine.bin / "xpu-smi"
    tool.write_text(f"{tool.read_text()}echo XPU 00000000:28:00.0 is lost >&2\nexit 15\n")
    result = probe(machine.root)
    assert [device.uuid for device in result.devices] == ["a1", "b2"]
    assert "2 XPU(s) by xpu-smi -m (xpu-smi ended with status 15: XPU 00000000:28:00.0 is lost)" in result.reason


@pytest.mark.parametrize(("variable", "uuids"), [(None, ["b2"]), ("0", ["b2"]), ("1", [])])
def test_container_has_the_devices_whose_nodes_it_has(
    machine: FakeMachine, monkeypatch: pytest.MonkeyPatch, variable: str | None, uuids: list[str]
) -> None:
    add_p800(machine)
    for node in ("xpu0", "xpu2"):
        (machine.root / "dev" / node).unlink()
    first, number, second = QUERY.rpartition("Minor Number                          : ")
    add_xpu_smi(machine, m=ROWS, q=f"{first}{number}10{second[1:]}")
    if variable:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    assert [device.uuid for device in probe(machine.root).devices] == uuids


def test_list_is_read_if_nothing_else_is(machine: FakeMachine) -> None:
    add_p800(machine)
    rows = "XPU 0: 00000000:03:00.0\nXPU 1: 00000000:16:00.0\n"
    add_xpu_smi(machine, L=rows, q=QUERY)
    result = probe(machine.root)
    assert "2 XPU(s) by xpu-smi -L" in result.reason
    assert [(d.name, d.uuid, d.total_bytes) for d in result.devices] == [
        ("P800 OAM", "b2", P800_BYTES),
        ("P800 OAM", "a1", P800_BYTES),
    ]


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
    assert "PCI lists Kunlunxin XPUs at 0000:16:00.0, but there is no /dev/xpu0" in result.reason
    assert remedy in result.reason


@pytest.mark.parametrize(
    ("profile", "variable", "value", "addresses"),
    [
        ("p800", "CUDA_VISIBLE_DEVICES", "0", ["0000:03:00.0"]),
        ("p800", "CUDA_VISIBLE_DEVICES", "0,1", ["0000:16:00.0", "0000:03:00.0"]),
        ("p800", "CUDA_VISIBLE_DEVICES", "GPU-b2", ["0000:03:00.0"]),
        ("p800", "XPU_VISIBLE_DEVICES", "0", ["0000:16:00.0", "0000:03:00.0"]),
        ("r300", "XPU_VISIBLE_DEVICES", "0,1", ["0000:03:00.0", "0000:16:00.0"]),
        ("r300", "XPU_VISIBLE_DEVICES", "1,7,0", ["0000:16:00.0"]),
        ("r300", "CUDA_VISIBLE_DEVICES", "0", ["0000:16:00.0", "0000:03:00.0"]),
    ],
)
def test_visible_devices_follow_the_variable_of_the_stack(
    machine: FakeMachine,
    monkeypatch: pytest.MonkeyPatch,
    profile: str,
    variable: str,
    value: str,
    addresses: list[str],
) -> None:
    add_p800(machine)
    add_xpu_smi(machine, m=ROWS, q=QUERY)
    monkeypatch.setenv("PERF_KUNLUNXIN_PROFILE", profile)
    monkeypatch.setenv(variable, value)
    devices = probe(machine.root).devices
    assert [(device.index, device.pci_bus_id) for device in devices] == list(enumerate(addresses))


@pytest.mark.parametrize("value", ["", "-1", "8"])
def test_nothing_visible_is_the_reason(machine: FakeMachine, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    add_p800(machine)
    add_xpu_smi(machine, m=ROWS, q=QUERY)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    result = probe(machine.root)
    assert not result.available
    assert f"but CUDA_VISIBLE_DEVICES={value} leaves none of 2 visible" in result.reason


def test_device_that_is_named_twice_hides_what_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    devices = tuple(DeviceReading(uuid=letter) for letter in "abc")
    monkeypatch.setenv("XPU_VISIBLE_DEVICES", "2,c,0")
    assert STACKS["r300"].visible(devices) == (devices[2],)


@pytest.mark.parametrize(("value", "warned"), [("1", True), ("0", False)])
def test_harmful_variable_is_part_of_the_reason(
    machine: FakeMachine, monkeypatch: pytest.MonkeyPatch, value: str, warned: bool
) -> None:
    add_p800(machine)
    monkeypatch.setenv("XPU_EVENT_KL3_ENABLE", value)
    reason = probe(machine.root).reason
    assert (f"XPU_EVENT_KL3_ENABLE={value} is set: with real event timing, collectives" in reason) is warned


def test_nodes_are_in_numeric_order(machine: FakeMachine) -> None:
    add_p800(machine)
    assert find_device_nodes(machine.root) == (0, 2, 10)


@pytest.mark.parametrize(("text", "version"), [("version: 4.0.25", "4.0.25"), ("515.58", None), ("unknown", None)])
def test_placeholder_is_no_driver_version(machine: FakeMachine, text: str, version: str | None) -> None:
    machine.add_file("proc/kunlun/version", text)
    assert read_driver_version(machine.root) == version


def test_runtime_is_looked_up_and_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert describe_runtime().startswith("neither torch_xmlir nor torch_xray is installed here")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("torch_xpu", "torch_xmlir"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported')\n")
        if name == "torch_xpu":
            assert "torch_xpu is installed, a stack that is not supported yet" in describe_runtime()
        importlib.invalidate_caches()
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
    monkeypatch.setattr("chipperf_kunlunxin.stacks.distribution_version", {"torch": torch_version}.get)
    if override:
        monkeypatch.setenv("PERF_KUNLUNXIN_PROFILE", override)
    info = perf_vendor_info()
    assert (info.device_type, info.visible_devices_env) == (device_type, (visible_devices_env,))


def test_unknown_profile_is_an_error_that_lists_the_profiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERF_KUNLUNXIN_PROFILE", "r400")
    with pytest.raises(PluginError, match="PERF_KUNLUNXIN_PROFILE=r400") as caught:
        perf_vendor_info()
    assert caught.value.hint == "use one of: r300, p800"


def test_recorded_calls_only_read(machine: FakeMachine) -> None:
    assert {command.argv for command in perf_tool_commands()} == {
        ("xpu-smi", "-m"),
        ("xpu-smi", "-q"),
        ("xpu-smi", "-L"),
        ("xpu-smi",),
    }
