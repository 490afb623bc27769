"""The torch-free tools that probes are made of."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest
from chipperf.hardware import (
    call_bounded,
    distribution_version,
    find_pci_devices,
    find_tool,
    normalise_pci_address,
    read_text,
    run_tool,
)

if TYPE_CHECKING:
    from pathlib import Path

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
    assert normalise_pci_address(text) == address


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
    assert find_tool("some-smi", (own,)) is None
    tool = machine.add_tool("some-smi")
    installed = own / "some-smi"
    installed.write_text("#!/bin/sh\n")
    installed.chmod(0o755)
    assert find_tool("some-smi", (own,)) == str(tool)
    tool.unlink()
    assert find_tool("some-smi", (own,)) == str(installed)


def test_tool_output_is_returned(machine: FakeMachine) -> None:
    output = run_tool([str(machine.add_tool("some-smi", "line\n"))])
    assert (output.stdout, output.problem) == ("line\n", None)


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("echo no device >&2; exit 3", "ended with status 3: no device"),
        ("echo PARSE ERROR; exit 1", "ended with status 1: PARSE ERROR"),
        ("exit 2", "ended with status 2: no message"),
        ("kill -9 $$", "ended with status -9: no message"),
    ],
)
def test_failing_tool_says_why(machine: FakeMachine, script: str, problem: str) -> None:
    tool = str(machine.add_tool("some-smi", script=script))
    assert run_tool([tool]).problem == f"{tool} {problem}"


def test_missing_tool_says_so() -> None:
    assert run_tool(["/nowhere/some-smi"]).problem == "/nowhere/some-smi cannot be run: No such file or directory"


def test_hanging_tool_is_killed_with_its_children(machine: FakeMachine, tmp_path: Path) -> None:
    survivor = tmp_path / "survivor"
    tool = machine.add_tool("some-smi", script=f"(/bin/sleep 0.4; echo > {survivor}) & /bin/sleep 60")
    output = run_tool([str(tool)], timeout_s=0.1)
    assert output.problem == f"{tool} did not finish within 0.1 s"
    time.sleep(0.6)
    assert not survivor.exists()


def test_bounded_call_returns_raises_and_gives_up() -> None:
    release = threading.Event()
    assert call_bounded(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        call_bounded(lambda: 1 // 0)
    with pytest.raises(TimeoutError, match=r"no answer within 0\.05 s"):
        call_bounded(release.wait, timeout_s=0.05)
    release.set()
