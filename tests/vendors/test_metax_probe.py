"""The MetaX probe against made-up machines, and the listing of mx-smi."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from chipperf_metax.mx_smi import parse_list
from chipperf_metax.probe import describe_torch_build, probe

if TYPE_CHECKING:
    from fake_machine import FakeMachine

LISTING = (
    "GPU#0    MXC500      0000:37:00.0   Available (UUID: GPU-00000000-0000-0000-0000-000000000001)\n"
    "  SGPU#3   25% 15.625gb   Available (UUID: GPU-00000000-0000-0000-0000-000000000003)\n"
    "GPU#1    MXC500      0000:38:00.0   Not Available(MetaX Sysfs File Unaccessible)\n"
)


def add_card(machine: FakeMachine, address: str = "0000:37:00.0") -> None:
    machine.add_pci(address, 0x9999, 0x4001)
    machine.add_file("sys/module/metax/version", "3.8.30\n")
    machine.add_file("dev/mxcd")


def test_listing_skips_slices_and_unavailable_gpus() -> None:
    listed = parse_list(LISTING)
    (device,) = listed.devices
    assert (device.index, device.name, device.pci_bus_id) == (0, "MXC500", "0000:37:00.0")
    assert device.uuid == "GPU-00000000-0000-0000-0000-000000000001"
    assert listed.unavailable == ("GPU 1: MetaX Sysfs File Unaccessible",)


def test_old_listing_has_no_address() -> None:
    (device,) = parse_list("GPU 0: MXC500 (UUID: MX-abc)\n").devices
    assert (device.index, device.name, device.uuid, device.pci_bus_id) == (0, "MXC500", "MX-abc", None)


@pytest.mark.parametrize("text", ["", "PARSE ERROR: Argument: -L\n", "GPU", "GPU#x MXC500"])
def test_other_output_lists_nothing(text: str) -> None:
    listed = parse_list(text)
    assert (listed.devices, listed.unavailable) == ((), ())


def test_card_is_found_with_its_tool(machine: FakeMachine) -> None:
    add_card(machine)
    machine.add_tool("mx-smi", LISTING)
    result = probe(machine.root)
    assert [device.name for device in result.devices] == ["MXC500"]
    assert result.driver_version == "3.8.30"
    assert "1 GPU(s) by mx-smi -L" in result.reason
    assert "GPU 1: MetaX Sysfs File Unaccessible" in result.reason


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


def test_card_whose_gpus_are_all_unavailable_is_not_available(machine: FakeMachine) -> None:
    add_card(machine)
    machine.add_tool("mx-smi", LISTING.splitlines()[2])
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
    assert "PCI lists MetaX devices at 0000:37:00.0, but there is no /dev/mxcd" in result.reason
    assert remedy in result.reason


def test_tool_and_node_alone_prove_nothing(machine: FakeMachine) -> None:
    machine.add_pci("0000:37:00.0", 0x10DE, 0x20B0)
    machine.add_file("dev/mxcd")
    machine.add_tool("mx-smi", LISTING)
    result = probe(machine.root)
    assert not result.available
    assert "has vendor id 0x9999" in result.reason


@pytest.mark.parametrize(
    ("version", "text"),
    [
        ("2.0.0+mc2.18.0.8", "torch 2.0.0+mc2.18.0.8"),
        ("2.8.0+metax3.5.3.9", "torch 2.8.0+metax3.5.3.9"),
        ("2.4.0+cu121", "torch 2.4.0+cu121 is not a MetaX build (+metax or +mc): install MetaX's to train"),
        (None, "torch is not installed here: install MetaX's build to train"),
    ],
)
def test_torch_build_is_told_from_its_version(monkeypatch: pytest.MonkeyPatch, version: str | None, text: str) -> None:
    monkeypatch.setattr("chipperf_metax.probe.distribution_version", {"torch": version}.get)
    assert describe_torch_build() == text
