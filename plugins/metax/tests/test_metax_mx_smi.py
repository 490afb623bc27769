"""Finding mx-smi, what it is asked, and its listing of devices."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from chipperf_metax import plugin
from chipperf_metax.mx_smi import TOOL, Query, parse_list

if TYPE_CHECKING:
    from collections.abc import Callable

    from fake_machine import FakeMachine

UUID = "GPU-00000000-0000-0000-0000-00000000000{}"


def test_slice_stands_for_its_gpu(recorded: Callable[[str], str]) -> None:
    listed = parse_list(recorded("list-2.2.12-sgpu"))
    (device,) = listed.devices
    assert (device.index, device.name, device.uuid) == (0, "MXC500", UUID.format(3))
    assert device.pci_bus_id == "0000:37:00.0"
    assert device.part == "sGPU 25% 15.625gb"
    assert len(listed.unavailable) == 7
    assert listed.unavailable[0] == "GPU 1: MetaX Sysfs File Unaccessible"


def test_slices_whole_gpus_and_unavailable_ones_side_by_side() -> None:
    text = (
        f"GPU#0  MXC500  0000:37:00.0   Available (UUID: {UUID.format(0)})\n"
        f"  SGPU#0   50% 31.25gb   Available (UUID: {UUID.format(1)}) sgpu-1\n"
        f"  SGPU#1   25% 15.625gb   Not Available(MetaX Sysfs File Unaccessible)\n"
        f"  SGPU#2   25% 15.625gb   Available (UUID: {UUID.format(3)}) sgpu-2\n"
        "GPU#1  MXC500  0000:38:00.0   Not Available(MetaX Sysfs File Unaccessible)\n"
        f"  SGPU#0   50% 31.25gb   Available (UUID: {UUID.format(4)}) sgpu-3\n"
        f"GPU#2  MXC500  0000:39:00.0   Available (UUID: {UUID.format(5)})\n"
    )
    listed = parse_list(text)
    assert [(device.index, device.uuid, device.pci_bus_id) for device in listed.devices] == [
        (0, UUID.format(1), "0000:37:00.0"),
        (1, UUID.format(3), "0000:37:00.0"),
        (2, UUID.format(5), "0000:39:00.0"),
    ]
    why = "MetaX Sysfs File Unaccessible"
    assert listed.unavailable == (f"GPU 0, SGPU#1: {why}", f"GPU 1: {why}")


@pytest.mark.parametrize(
    ("state", "fault"),
    [
        ("Available (UUID: GPU-1)", None),
        ("available(UUID: GPU-1)", None),
        ("(UUID: GPU-1)", None),
        ("", None),
        ("Unavailable (UUID: GPU-1)", "Unavailable"),
        ("Disabled (UUID: GPU-1)", "Disabled"),
        ("not available(reset required)", "reset required"),
        ("Not Available", "Not Available"),
        ("In Use By Another Container", "In Use By Another Container"),
    ],
)
def test_only_an_available_device_can_be_used(state: str, fault: str | None) -> None:
    gpu = f"GPU#3    MXC500      0000:10:00.0   {state}\n"
    assert parse_list(gpu).unavailable == ((f"GPU 3: {fault}",) if fault else ())
    assert len(parse_list(gpu).devices) == (0 if fault else 1)
    divided = f"GPU#3  MXC500  0000:10:00.0  Available\n  SGPU#1   25% 15.625gb   {state} sgpu-0000000001\n"
    assert [device.part for device in parse_list(divided).devices] == ([] if fault else ["sGPU 25% 15.625gb"])
    assert parse_list(divided).unavailable == ((f"GPU 3, SGPU#1: {fault}",) if fault else ())


def test_devices_are_in_the_order_of_their_numbers() -> None:
    rows = [f"GPU#{number}  MXC500  0000:{bus}:00.0  Available (UUID: N/A)" for number, bus in ((10, "1b"), (2, "1c"))]
    assert [(d.index, d.uuid, d.pci_bus_id) for d in parse_list("\n".join(rows)).devices] == [
        (0, None, "0000:1c:00.0"),
        (1, None, "0000:1b:00.0"),
    ]


def test_old_listing_has_no_address(recorded: Callable[[str], str]) -> None:
    first, second = parse_list(recorded("list-old")).devices
    assert (first.index, first.name, first.uuid, first.pci_bus_id) == (0, "MXC500", "MX-00000001", None)
    assert (second.index, second.uuid) == (1, "MX-00000002")


@pytest.mark.parametrize(
    "text",
    ["", "PARSE ERROR: Argument: -L\n", "GPU", "GPU#x MXC500", "  SGPU#3   25% 15.625gb   Available (UUID: GPU-1)\n"],
)
def test_other_output_lists_nothing(text: str) -> None:
    listed = parse_list(text)
    assert (listed.devices, listed.unavailable) == ((), ())


@pytest.mark.parametrize("cut_at", ["UUID", "0000:37", "MXC500"])
def test_listing_that_is_cut_off_leaves_the_rest_unknown(recorded: Callable[[str], str], cut_at: str) -> None:
    text = recorded("list-2.2.12-sgpu")
    devices = parse_list(text[: text.index(cut_at)]).devices
    assert all(device.uuid is None for device in devices)


@pytest.mark.parametrize("name", ["mx-smi", "ht-smi"])
def test_tool_is_found_under_both_names(machine: FakeMachine, name: str) -> None:
    machine.add_tool(name, "something")
    assert TOOL.run(Query.TABLE.value, timeout_s=5).stdout == "something"


def test_missing_tool_is_a_problem(machine: FakeMachine) -> None:
    assert TOOL.run(Query.TABLE.value, timeout_s=5).problem == "mx-smi is not installed"


@pytest.mark.parametrize("query", Query)
def test_nothing_that_is_asked_changes_a_device(query: Query) -> None:
    arguments = " ".join(query.value)
    assert re.fullmatch(r"(|-L|-j|--summary|--show-version|dmon -c 1 .*)", arguments)
    assert not re.search(r"kill|flr|set|reset|upgrade|flash|dump|(^| )-(r|u|U|y)( |$)", arguments)


def test_recorded_commands_are_those_that_are_asked() -> None:
    commands = plugin.perf_tool_commands()
    assert {command.argv[1:] for command in commands} == {query.value for query in Query}
    assert len({command.name for command in commands}) == len(commands)


@pytest.mark.parametrize("serial", ["chip serial   : AA0A00_00_0_0", "board serial    : ABCD0123456789"])
def test_recorded_commands_hide_serial_numbers(serial: str) -> None:
    (patterns,) = {command.private_patterns for command in plugin.perf_tool_commands()}
    assert re.search("|".join(patterns), serial)


def test_recorded_commands_keep_everything_else(recorded: Callable[[str], str]) -> None:
    (patterns,) = {command.private_patterns for command in plugin.perf_tool_commands()}
    found = re.findall("|".join(patterns), recorded("summary-2.2.12") + recorded("json-2.2.12"))
    assert found == ["AA0000_00_0_1", "AAAA0000000001"]
