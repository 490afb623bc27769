"""The torch-free tools that probes are made of."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest
from chipperf import ProbedDevice, ProbeResult, TelemetrySample
from chipperf.hardware import (
    BYTES,
    CELSIUS,
    PERCENT,
    UNSTATED,
    WATTS,
    DeviceReading,
    DeviceReport,
    LayoutReader,
    ManagementTool,
    SharedReport,
    call_bounded,
    distribution_version,
    find_pci_devices,
    find_reading,
    normalize_pci_address,
    only,
    probe_cards,
    quantity,
    read_device,
    read_sections,
    read_table,
    read_text,
    run_tool,
    select_visible,
    stated,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from chipperf.hardware import PciDevice
    from fake_machine import FakeMachine


def test_pci_devices_are_read_by_address(machine: FakeMachine) -> None:
    machine.add_pci("0000:1b:00.0", 0x10DE, 0x2335)
    network, card = find_pci_devices(machine.root / "sys/bus/pci/devices")
    assert (network.vendor_id, network.is_display) == (0x8086, False)
    assert (card.address, card.vendor_id, card.device_id, card.is_display) == ("0000:1b:00.0", 0x10DE, 0x2335, True)


def test_unreadable_pci_entries_are_skipped(machine: FakeMachine) -> None:
    machine.add_file("sys/bus/pci/devices/0000:1c:00.0/vendor", "0x10de")
    machine.add_file("sys/bus/pci/devices/0000:1d:00.0/vendor", "garbage")
    machine.add_pci("not-an-address", 0x10DE, 0x2335)
    assert [d.address for d in find_pci_devices(machine.root / "sys/bus/pci/devices")] == ["0000:02:00.0"]


def test_no_pci_tree_means_no_devices(tmp_path: Path) -> None:
    assert find_pci_devices(tmp_path / "absent") == ()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("00000000:1B:00.0", "0000:1b:00.0"),
        ("0000:1b:00.0", "0000:1b:00.0"),
        ("XPU 00010000:1C:0a.1 rest", "10000:1c:0a.1"),
        ("1b:00.0", None),
        ("no address", None),
    ],
)
def test_pci_addresses_have_one_form(text: str, address: str | None) -> None:
    assert normalize_pci_address(text) == address


def test_reading_a_file_never_raises(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b" 4.0\xff\n")
    assert read_text(tmp_path / "text") == "4.0\ufffd"
    assert read_text(tmp_path / "absent") is None
    assert read_text(tmp_path) is None


def test_distribution_version_needs_no_import() -> None:
    assert distribution_version("pluggy")
    assert distribution_version("no-such-distribution-here") is None


def test_tool_is_found_on_the_path_before_its_own_directory(machine: FakeMachine, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    smi = ManagementTool(names=("some-smi",), directories=(own,))
    assert smi.find() is None
    tool = machine.add_tool("some-smi")
    installed = own / "some-smi"
    installed.write_text("#!/bin/sh\n")
    installed.chmod(0o755)
    assert smi.find() == str(tool)
    tool.unlink()
    assert smi.find() == str(installed)


def test_tool_output_is_returned(machine: FakeMachine) -> None:
    output = run_tool([str(machine.add_tool("some-smi", "line\n"))])
    assert (output.stdout, output.problem) == ("line\n", None)


def test_tool_output_has_no_colors(machine: FakeMachine) -> None:
    tool = machine.add_tool("some-smi", "\x1b[1;32mAvailable\x1b[0m\x1b[K\n")
    assert run_tool([str(tool)]).stdout == "Available\n"


@pytest.mark.parametrize(
    ("script", "problem", "is_whole"),
    [
        ("echo no device >&2; exit 3", "ended with status 3: no device", True),
        ("echo PARSE ERROR; exit 1", "ended with status 1: PARSE ERROR", True),
        ("exit 2", "ended with status 2: no message", True),
        ("kill -9 $$", "ended with status -9: no message", False),
    ],
)
def test_failing_tool_says_why(machine: FakeMachine, script: str, problem: str, is_whole: bool) -> None:
    tool = str(machine.add_tool("some-smi", script=script))
    output = run_tool([tool])
    assert (output.problem, output.is_whole) == (f"{tool} {problem}", is_whole)


def test_missing_tool_says_so() -> None:
    assert run_tool(["/nowhere/some-smi"]).problem == "/nowhere/some-smi cannot be run: No such file or directory"


def test_hanging_tool_is_killed_with_its_children(machine: FakeMachine, tmp_path: Path) -> None:
    survivor = tmp_path / "survivor"
    tool = machine.add_tool("some-smi", script=f"(/bin/sleep 0.4; echo > {survivor}) & /bin/sleep 60")
    output = run_tool([str(tool)], timeout_s=0.1)
    assert (output.problem, output.is_whole) == (f"{tool} did not finish within 0.1 s", False)
    time.sleep(0.6)
    assert not survivor.exists()


def test_tool_that_prints_without_end_is_no_help(machine: FakeMachine) -> None:
    tool = machine.add_tool("some-smi", script="while echo GPU 0 is busy; do :; done 2>&-")
    output = run_tool([str(tool)], timeout_s=60)
    assert not output.is_whole
    assert output.problem == f"{tool} prints more than 1 MiB"


def test_daemon_of_a_tool_is_not_waited_for(machine: FakeMachine) -> None:
    tool = machine.add_tool("some-smi", script="/bin/sleep 60 & echo $!")
    output = run_tool([str(tool)], timeout_s=30)
    os.kill(int(output.stdout), signal.SIGKILL)
    assert output.problem is None


def test_bounded_call_returns_raises_and_gives_up() -> None:
    release = threading.Event()
    assert call_bounded(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        call_bounded(lambda: 1 // 0)
    with pytest.raises(TimeoutError, match=r"no answer within 0\.05 s"):
        call_bounded(release.wait, timeout_s=0.05)
    release.set()


def test_cards_are_found_or_the_reason_is_told(machine: FakeMachine) -> None:
    def is_acme(function: PciDevice) -> bool:
        return function.vendor_id == 0x1D22

    found: list[str] = []

    def examine(cards: tuple[PciDevice, ...]) -> str:
        found.extend(card.address for card in cards)
        return "none works"

    def reason() -> str:
        criterion = "has vendor id 0x1d22"
        return probe_cards(
            machine.root, is_acme, examine, called="ACME card", criterion=criterion, driver_version=None
        ).reason

    words = reason()
    assert found == []
    assert words.startswith(f"no ACME card: none of the 1 PCI devices under {machine.root}")
    assert "has vendor id 0x1d22; check that the card is powered" in words
    for bus in ("1b", "1a"):
        machine.add_pci(f"0000:{bus}:00.0", 0x1D22, 0x3684)
    assert reason() == "PCI lists ACME cards at 0000:1a:00.0, 0000:1b:00.0, but none works"
    assert found == ["0000:1a:00.0", "0000:1b:00.0"]


def test_probe_examines_the_cards_that_pci_lists(machine: FakeMachine) -> None:
    def probed(examined: ProbeResult | str) -> ProbeResult:
        return probe_cards(
            machine.root,
            lambda function: function.vendor_id == 0x1D22,
            lambda cards: examined,
            called="ACME card",
            criterion="has vendor id 0x1d22",
            driver_version="5.0",
        )

    result = ProbeResult(available=True, reason="one A1", devices=(ProbedDevice(index=0, name="A1"),))
    assert probed(result).reason.startswith("no ACME card: none of the 1 PCI devices")
    machine.add_pci("0000:1b:00.0", 0x1D22, 0x3684)
    assert probed(result) == result
    refused = probed("there is no /dev/acme0; load the driver")
    assert refused.reason == "PCI lists ACME cards at 0000:1b:00.0, but there is no /dev/acme0; load the driver"
    assert (refused.available, refused.driver_version) == (False, "5.0")


def test_virtual_function_is_a_part_of_a_card(machine: FakeMachine) -> None:
    for address in ("0000:1a:00.0", "0000:1b:00.0"):
        machine.add_pci(address, 0x1D22, 0x3684)
    machine.add_file("sys/bus/pci/devices/0000:1b:00.0/physfn")
    devices = tuple(
        ProbedDevice(index=i, name="A1", pci_bus_id=f"0000:{bus}:00.0") for i, bus in enumerate(("1a", "1b"))
    )
    result = probe_cards(
        machine.root,
        lambda function: True,
        lambda cards: ProbeResult(available=True, reason="two", devices=devices),
        called="ACME card",
        criterion="is there",
        driver_version=None,
    )
    assert [device.part for device in result.devices] == [None, "virtual function"]


def test_card_that_is_not_on_the_bus_is_told_instead(machine: FakeMachine) -> None:
    result = probe_cards(
        machine.root,
        lambda function: False,
        lambda cards: "",
        called="ACME card",
        criterion="is there",
        driver_version=None,
        otherwise="this is an ACME Nano, which is not supported",
    )
    assert result.reason == "this is an ACME Nano, which is not supported"


@pytest.mark.parametrize(
    ("choice", "cuda", "lenient"),
    [("0, 2", "ac", "ac"), ("2,0", "ca", "ca"), ("", "", ""), ("1,x,2", "b", "b"), ("2,2,0", "", "c")],
)
def test_visible_devices_are_those_up_to_the_first_entry_that_names_none(choice: str, cuda: str, lenient: str) -> None:
    find = dict(zip("012", "abc", strict=True)).get
    assert "".join(select_visible(choice, find)) == cuda
    assert "".join(select_visible(choice, find, repetition_hides_all=False)) == lenient


@pytest.mark.parametrize(("matches", "found"), [([], None), ([1], 1), ([1, 2], None)])
def test_abbreviation_names_a_device_only_if_it_is_the_only_one(matches: list[int], found: int | None) -> None:
    assert only(matches) == found


@pytest.mark.parametrize(
    ("text", "units", "value"),
    [
        ("64 MiB", BYTES, 64 * 2**20),
        ("67108864KB", BYTES, 64 * 2**30),
        ("450 mW", WATTS, 0.45),
        ("-3 C", CELSIUS, -3),
        (" 12.5% ", PERCENT, 12.5),
        ("7", UNSTATED, 7),
        ("7", PERCENT, None),
        ("7 W", PERCENT, None),
        ("N/A", BYTES, None),
        (None, BYTES, None),
    ],
)
def test_quantity_needs_its_unit(text: str | None, units: Mapping[str, float], value: float | None) -> None:
    assert quantity(text, units) == value


def test_count_of_bytes_is_whole() -> None:
    sizes = [read_device({"memory_used_bytes": text}).memory_used_bytes for text in ("1.6 B", "N/A")]
    assert sizes == [2, None]


def test_reading_gives_a_sample_its_values() -> None:
    reading = DeviceReading(device_id=3, name="A1", power_w=7.0, memory_used_bytes=5)
    sample = TelemetrySample(source="acme-smi", **reading.sensors())
    assert (sample.power_w, sample.memory_used_bytes, sample.clock_mhz) == (7.0, 5, None)


@pytest.mark.parametrize(("name", "expected"), [("A1", "A1"), (None, "an A")])
def test_reading_gives_a_device_its_identity(name: str | None, expected: str) -> None:
    reading = DeviceReading(device_id=3, name=name, uuid="ab", memory_total_bytes=5, power_w=7.0)
    assert ProbedDevice(**reading.identity(1, "an A")) == ProbedDevice(index=1, name=expected, uuid="ab", total_bytes=5)


@pytest.mark.parametrize(
    "text", [None, "", " ", "N/A", "n/a", "[N/A]", "[Not Supported]", "[Unknown", "ERR!", "Unknown Error", "None", "--"]
)
def test_word_in_place_of_a_value_is_none(text: str | None) -> None:
    assert stated(text) is None
    assert read_device({"uuid": text, "name": text, "serial": text, "pci_bus_id": text}) == DeviceReading()


@pytest.mark.parametrize("text", ["GPU-1", "Unknown Horizon 2", "0", "A1", "Nonesuch"])
def test_value_is_kept(text: str) -> None:
    assert stated(f" {text} ") == text


def test_reading_is_made_of_texts_and_knows_nothing_else() -> None:
    texts = {
        "pci_bus_id": "GPU at 0000:1B:00.0",
        "name": "A1",
        "serial": "",
        "power_w": "1500 mW",
        "temperature_c": None,
        "utilization_percent": 7,
        "memory_used_bytes": "1 MiB",
        "memory_total_bytes": "64",
    }
    known = DeviceReading(pci_bus_id="0000:1b:00.0", name="A1", power_w=1.5, memory_used_bytes=2**20, device_id=3)
    assert read_device(texts, device_id=3) == known
    assert read_device(texts, unstated=UNSTATED).utilization_percent == 7
    assert read_device(texts, unstated=UNSTATED).memory_total_bytes is None


TABLE = """\
+--------------------------+
| 0 A1  | 0000:1B:00.0     |
|   7W  | 1/64 MiB         |
+--------------------------+
| 1 A1  | 0000:1C:00.0     |
| 2 A2  | 0000:1D:00.0     |
|   9W  |"""


def test_table_is_read_by_the_lines_about_each_device() -> None:
    patterns = {"name": re.compile(r"\d+ (\S+)"), "power_w": re.compile(r"(\d+W)")}
    assert [read_device(texts) for texts in read_table(TABLE, patterns)] == [
        DeviceReading(pci_bus_id="0000:1b:00.0", name="A1", power_w=7),
        DeviceReading(pci_bus_id="0000:1c:00.0", name="A1"),
        DeviceReading(pci_bus_id="0000:1d:00.0", name="A2", power_w=9),
    ]


SECTIONS = """\
Driver : 5.0
Card 1
    Name : A1
    Memory
        Total : 64 MiB
        Bus
            Width : 8
    Clock
        Total : 1 MHz
Card 2
    Name : A2
    Memory"""


def test_values_are_found_by_their_sections_and_key() -> None:
    general, devices = read_sections(SECTIONS, re.compile(r"Card (\d)"))
    assert general == {("Driver",): "5.0"}
    assert [(heading[1], values) for heading, values in devices] == [
        (
            "1",
            {
                ("Name",): "A1",
                ("Memory", "Total"): "64 MiB",
                ("Memory", "Bus", "Width"): "8",
                ("Clock", "Total"): "1 MHz",
            },
        ),
        ("2", {("Name",): "A2"}),
    ]


@pytest.mark.parametrize(
    ("uuid", "address", "expected"),
    [
        ("GPU-AB", None, 0),
        ("ab", "0000:02:00.0", 0),
        ("cd", "0000:02:00.0", 1),
        ("cd", None, None),
        (None, "0000:03:00.0", None),
        (None, None, None),
    ],
    ids=["prefix and case", "UUID before address", "address", "nothing", "two at one address", "anonymous"],
)
def test_device_is_found_by_identity(uuid: str | None, address: str | None, expected: int | None) -> None:
    addresses = ("0000:01:00.0", "0000:02:00.0", "0000:03:00.0", "0000:03:00.0")
    uuids = ("GPU-ab", None, None, None)
    readings = [DeviceReading(uuid=u, pci_bus_id=a) for u, a in zip(uuids, addresses, strict=True)]
    found = find_reading(readings, uuid=uuid, pci_bus_id=address)
    assert found == (None if expected is None else readings[expected])


ACME = ManagementTool(names=("acme-smi", "acme_smi"))


def acme_reader() -> LayoutReader:
    def parse(text: str) -> DeviceReport:
        names = text.split()[1:]
        return DeviceReport(readings=tuple(DeviceReading(name=name) for name in names), tool_version="2.1")

    return LayoutReader(ACME, [(("-m",), parse), ((), parse)], misread="{call} says nothing")


def test_tool_is_run_under_its_first_installed_name(machine: FakeMachine) -> None:
    assert ACME.find() is None
    assert ACME.run((), timeout_s=5).problem == "acme-smi is not installed"
    tool = machine.add_tool("acme_smi", script="exit 3")
    assert ACME.find() == str(tool)
    assert ACME.run((), timeout_s=5).problem == "acme_smi ended with status 3: no message"


def test_first_layout_that_tells_something_is_kept(machine: FakeMachine) -> None:
    calls = machine.bin / "calls"
    machine.add_tool("acme-smi", script=f'echo "call$1" >> {calls}; [ -n "$1" ] || echo devices A1 A2')
    reader = acme_reader()
    reports = [reader.read(timeout_s=5) for _ in range(2)]
    assert [reading.name for reading in reports[0].readings] == ["A1", "A2"]
    assert [report.source for report in reports] == ["acme-smi 2.1"] * 2
    assert calls.read_text().split() == ["call-m", "call", "call"]


def test_devices_that_a_failing_tool_lists_count_unless_it_was_stopped(machine: FakeMachine) -> None:
    machine.add_tool("acme-smi", script='echo devices A1 A2; echo A3 is lost >&2; [ -z "$1" ] && kill -9 $$; exit 15')
    report = acme_reader().read(timeout_s=5)
    assert [reading.name for reading in report.readings] == ["A1", "A2"]
    assert (report.source, report.problem) == ("acme-smi 2.1 -m", "acme-smi ended with status 15: A3 is lost")
    parsed = [ACME.report(options, lambda text: DeviceReport(source=text), timeout_s=5) for options in (("-m",), ())]
    assert [report.source for report in parsed] == ["devices A1 A2\n", ""]


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        (None, "acme-smi is not installed"),
        ("true", "acme-smi -m says nothing"),
        ('[ -z "$1" ] || exit 3', "acme-smi ended with status 3: no message"),
        ("/bin/sleep 60", "acme-smi did not finish within 0.1 s"),
    ],
    ids=["missing", "silent", "first fault counts", "hanging"],
)
def test_report_without_readings_says_why(machine: FakeMachine, script: str | None, problem: str) -> None:
    if script:
        machine.add_tool("acme-smi", script=script)
    assert acme_reader().read(timeout_s=0.1 if script and "sleep" in script else 5) == DeviceReport(problem=problem)


def test_report_is_shared_while_it_is_fresh() -> None:
    taken: list[DeviceReport] = []

    def take() -> DeviceReport:
        taken.append(DeviceReport(source=str(len(taken))))
        return taken[-1]

    shared = SharedReport(take, fresh_s=60)
    assert [shared.current().source for _ in range(2)] == ["0", "0"]
    stale = SharedReport(take, fresh_s=-1)
    assert [stale.current().source for _ in range(2)] == ["1", "2"]
