"""The MetaX probe against fake machines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from chipperf.hardware import ToolOutput
from chipperf.plugin.probe_process import PROBE_TIMEOUT_S
from chipperf_metax.probe import built_with_maca, describe_torch_build, probe

if TYPE_CHECKING:
    from collections.abc import Callable

    from fake_machine import FakeMachine

UUID = "GPU-00000000-0000-0000-0000-00000000000{}"
LISTING = (
    f"GPU#0    MXC500      0000:37:00.0   Available (UUID: {UUID.format(1)})\n"
    "GPU#1    MXC500      0000:38:00.0   Not Available(MetaX Sysfs File Unaccessible)\n"
)


@pytest.fixture(autouse=True)
def all_devices_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MACA_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)


def add_card(machine: FakeMachine, address: str = "0000:37:00.0", node: str = "dev/mxcd") -> None:
    machine.add_pci(address, 0x9999, 0x4001)
    machine.add_file("sys/module/metax/version", "3.8.30\n")
    machine.add_file(node)


def add_mx_smi(machine: FakeMachine, listing: str, table: str = "", *, name: str = "mx-smi") -> None:
    for file, text in (("list", listing), ("table", table)):
        (machine.bin / file).write_text(text, encoding="utf-8")
    machine.add_tool(name, script=f'/bin/cat {machine.bin}/"$([ "$1" = -L ] && echo list || echo table)"')


def eight_cards(machine: FakeMachine, table: str) -> None:
    buses = ("0e", "0f", "10", "12", "35", "36", "37", "38")
    for bus in buses:
        add_card(machine, f"0000:{bus}:00.0")
    rows = [f"GPU#{i}  MXC500  0000:{bus}:00.0  Available (UUID: {UUID.format(i)})" for i, bus in enumerate(buses)]
    add_mx_smi(machine, "\n".join(rows), table)


def test_card_is_found_with_its_tool(machine: FakeMachine, recorded: Callable[[str], str]) -> None:
    add_card(machine)
    add_mx_smi(machine, LISTING, recorded("table-2.2.12-sgpu"))
    result = probe(machine.root)
    (device,) = result.devices
    assert (device.index, device.name, device.uuid) == (0, "MetaX C500", UUID.format(1))
    assert (device.pci_bus_id, device.total_bytes) == ("0000:37:00.0", 64 * 2**30)
    assert result.driver_version == "3.8.30"
    assert "1 GPU(s) by mx-smi -L" in result.reason
    assert "GPU 1: MetaX Sysfs File Unaccessible" in result.reason


def test_slice_is_found_in_place_of_its_gpu(machine: FakeMachine, recorded: Callable[[str], str]) -> None:
    add_card(machine)
    add_mx_smi(machine, recorded("list-2.2.12-sgpu"), recorded("table-2.2.12-sgpu"))
    (device,) = probe(machine.root).devices
    assert (device.name, device.uuid, device.pci_bus_id) == ("MetaX C500", UUID.format(3), "0000:37:00.0")
    assert (device.total_bytes, device.part) == (None, "sGPU 25% 15.625gb")


def test_white_label_is_found(machine: FakeMachine, recorded: Callable[[str], str]) -> None:
    machine.add_pci("0000:4b:00.0", 0x9999, 0x4001)
    machine.add_file("dev/htcd")
    listing = f"GPU#0  X201  0000:4b:00.0  Available (UUID: {UUID.format(1)})\n"
    add_mx_smi(machine, listing, recorded("table-ht-smi-2.2.9"), name="ht-smi")
    result = probe(machine.root)
    assert [device.name for device in result.devices] == ["Mars X201"]
    assert result.driver_version == "3.4.4"


def test_chip_is_named_where_the_table_is_no_help(machine: FakeMachine) -> None:
    add_card(machine)
    add_mx_smi(machine, LISTING, "something else")
    assert [device.name for device in probe(machine.root).devices] == ["MXC500"]


@pytest.mark.parametrize(
    ("script", "doubt"),
    [
        (None, "mx-smi is not installed"),
        ("exit 1", "ended with status 1"),
        ("echo something else", "the output of mx-smi -L is not understood"),
        ("/bin/sleep 30", "did not finish within 0.2 s"),
    ],
    ids=["missing", "failing", "foreign", "hanging"],
)
def test_card_is_found_by_pci_when_the_tool_is_no_help(machine: FakeMachine, script: str | None, doubt: str) -> None:
    add_card(machine, "0000:37:00.0")
    add_card(machine, "0000:38:00.0")
    if script:
        machine.add_tool("mx-smi", script=script)
    result = probe(machine.root, timeout_s=0.2)
    assert [(d.index, d.name, d.pci_bus_id, d.uuid) for d in result.devices] == [
        (0, "MetaX device 4001", "0000:37:00.0", None),
        (1, "MetaX device 4001", "0000:38:00.0", None),
    ]
    assert doubt in result.reason


def test_tool_that_ends_with_an_error_is_used_and_quoted(machine: FakeMachine, recorded: Callable[[str], str]) -> None:
    for address in ("0000:37:00.0", "0000:38:00.0", "0000:39:00.0"):
        add_card(machine, address)
    add_mx_smi(machine, LISTING, recorded("table-2.2.12-sgpu"))
    tool = machine.bin / "mx-smi"
    tool.write_text(f"{tool.read_text()}echo GPU 2 is lost >&2\nexit 1\n")
    result = probe(machine.root)
    assert [(d.name, d.uuid, d.total_bytes) for d in result.devices] == [("MetaX C500", UUID.format(1), 64 * 2**30)]
    assert "1 GPU(s) by mx-smi -L (mx-smi ended with status 1: GPU 2 is lost); GPU 1: MetaX" in result.reason
    assert "; PCI lists 3; " in result.reason


def test_tool_may_take_the_time_in_which_a_driver_starts(machine: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    allowed_s: list[float] = []

    def note(argv: list[str], *, timeout_s: float) -> ToolOutput:
        allowed_s.append(timeout_s)
        return ToolOutput(stdout=LISTING)

    monkeypatch.setattr("chipperf.hardware.run_tool", note)
    add_card(machine)
    machine.add_tool("mx-smi")
    assert probe(machine.root).available
    assert min(allowed_s) >= 15
    assert sum(allowed_s) < PROBE_TIMEOUT_S


def test_card_whose_gpus_are_all_unavailable_is_not_available(machine: FakeMachine) -> None:
    add_card(machine)
    add_mx_smi(machine, LISTING.splitlines()[1])
    result = probe(machine.root)
    assert not result.available
    assert "GPU 1: MetaX Sysfs File Unaccessible" in result.reason


@pytest.mark.parametrize(("has_module", "remedy"), [(True, "--device=/dev/mxcd"), (False, "load MetaX's driver")])
def test_missing_device_node_is_the_reason(machine: FakeMachine, has_module: bool, remedy: str) -> None:
    machine.add_pci("0000:37:00.0", 0x9999, 0x4001)
    if has_module:
        machine.add_file("sys/module/metax/version", "3.8.30\n")
    result = probe(machine.root)
    assert not result.available
    assert "PCI lists MetaX GPUs at 0000:37:00.0, but there is no /dev/mxcd" in result.reason
    assert remedy in result.reason


def test_tool_and_node_alone_prove_nothing(machine: FakeMachine) -> None:
    machine.add_pci("0000:37:00.0", 0x10DE, 0x20B0)
    machine.add_file("dev/mxcd")
    add_mx_smi(machine, LISTING)
    result = probe(machine.root)
    assert not result.available
    assert "has vendor id 0x9999" in result.reason


@pytest.mark.parametrize(
    ("environment", "buses"),
    [
        ({}, ["0e", "0f", "10", "12", "35", "36", "37", "38"]),
        ({"CUDA_VISIBLE_DEVICES": "6,1"}, ["37", "0f"]),
        ({"MACA_VISIBLE_DEVICES": "2"}, ["10"]),
        ({"MACA_VISIBLE_DEVICES": "3,2", "CUDA_VISIBLE_DEVICES": "3,2"}, ["12", "10"]),
        ({"CUDA_VISIBLE_DEVICES": UUID.format(5)}, ["36"]),
    ],
)
def test_variables_choose_devices(
    machine: FakeMachine, recorded: Callable[[str], str], environment: dict[str, str], buses: list[str]
) -> None:
    eight_cards(machine, recorded("table-2.2.9"))
    result = probe(machine.root, environment=environment)
    assert [device.pci_bus_id for device in result.devices] == [f"0000:{bus}:00.0" for bus in buses]
    assert [device.index for device in result.devices] == list(range(len(buses)))
    assert {device.name for device in result.devices} == {"MetaX C500"}
    for name, value in list(environment.items())[:1]:
        assert f"8 GPU(s) by mx-smi -L, of which {name}={value!r} leaves {len(buses)}" in result.reason


@pytest.mark.parametrize("name", ["MACA_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"])
@pytest.mark.parametrize("value", ["", "99"])
def test_variables_can_hide_every_device(
    machine: FakeMachine, recorded: Callable[[str], str], name: str, value: str
) -> None:
    eight_cards(machine, recorded("table-2.2.9"))
    result = probe(machine.root, environment={name: value})
    assert not result.available
    assert f"{name}={value!r} leaves none" in result.reason


def test_contradicting_variables_are_the_reason(machine: FakeMachine, recorded: Callable[[str], str]) -> None:
    eight_cards(machine, recorded("table-2.2.9"))
    environment = {"MACA_VISIBLE_DEVICES": "0,1", "CUDA_VISIBLE_DEVICES": "4,5"}
    result = probe(machine.root, environment=environment)
    assert not result.available
    assert "MACA_VISIBLE_DEVICES='0,1' contradicts CUDA_VISIBLE_DEVICES='4,5'" in result.reason
    assert "unset MACA_VISIBLE_DEVICES" in result.reason


@pytest.mark.parametrize(
    ("version", "maca"),
    [
        ("2.0.0+mc2.18.0.8", "2.18.0.8"),
        ("2.8.0+metax3.5.3.9", "3.5.3.9"),
        ("2.0.0+mc2.20.2.20-cp38", "2.20.2.20"),
        ("2.4.0+cu121", None),
        ("2.4.0+mcu", None),
        ("2.4.0", None),
    ],
)
def test_torch_build_states_the_sdk(version: str, maca: str | None) -> None:
    assert built_with_maca(version) == maca


def test_backend_for_upstream_torch_is_named_as_not_supported(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"torch": "2.10.0+cpu", "torch_fl": "0.1.0+metax3.8.1"}
    monkeypatch.setattr("chipperf_metax.probe.distribution_version", versions.get)
    said = describe_torch_build()
    assert "and torch_fl 0.1.0+metax3.8.1, through which it uses MetaX's GPUs, is not supported yet" in said


@pytest.mark.parametrize(
    ("version", "text"),
    [
        ("2.0.0+mc2.18.0.8", "torch 2.0.0+mc2.18.0.8"),
        ("2.4.0+cu121", "torch 2.4.0+cu121 is not a MetaX build (+metax or +mc): install MetaX's to train"),
        (None, "torch is not installed here: install MetaX's build to train"),
    ],
)
def test_torch_build_is_told_from_its_metadata(monkeypatch: pytest.MonkeyPatch, version: str | None, text: str) -> None:
    monkeypatch.setattr("chipperf_metax.probe.distribution_version", {"torch": version}.get)
    assert describe_torch_build() == text
