"""Telemetry: which source answers, how a device is found in it, and what an absent answer looks like."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import pytest
from chipperf import DeviceInfo
from chipperf.hardware import DeviceReading
from chipperf_metax.telemetry import Sampler, find_board
from fake_pymxsml import UUIDS, FakePymxsml

if TYPE_CHECKING:
    from collections.abc import Callable

    from fake_machine import FakeMachine

    Recorded = Callable[[str], str]

WHOLE_BOARD_BYTES = 65120 * 2**20
# Prints the recording that is named like its first argument, and keeps a list of its calls.
SCRIPT = 'echo "$*" >> {calls}\ncase "$1" in {cases} *) echo "PARSE ERROR: Argument: $1"; exit 1;; esac'


def add_mx_smi(machine: FakeMachine, recorded: Recorded, **recordings: str) -> Callable[[], list[str]]:
    """Install a tool that answers to some options; return what reads its list of calls."""
    calls = machine.bin / "calls"
    cases = []
    for option, recording in recordings.items():
        file = machine.bin / f"{recording}.txt"
        file.write_text(recorded(recording), encoding="utf-8")
        option = {"table": '""', "json": "-j", "summary": "--summary"}.get(option, option)
        cases.append(f"{option}) /bin/cat {file};;")
    machine.add_tool("mx-smi", script=SCRIPT.format(calls=calls, cases=" ".join(cases)))
    return lambda: calls.read_text(encoding="utf-8").splitlines()


def device(**changes: object) -> DeviceInfo:
    known: dict[str, object] = {
        "index": 0,
        "name": "MetaX C500",
        "uuid": UUIDS[0],
        "pci_bus_id": "0000:37:00.0",
        "total_bytes": WHOLE_BOARD_BYTES,
    }
    return DeviceInfo(**{**known, **changes})  # type: ignore[arg-type]


def test_library_is_asked_first(machine: FakeMachine, recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymxsml", FakePymxsml())
    calls = add_mx_smi(machine, recorded, summary="summary-2.2.12")
    sample = Sampler().sample(device())
    assert sample.source == "pymxsml (MACA 3.5.3.20)"
    assert sample.power_w == pytest.approx(62.015)
    assert (sample.temperature_c, sample.utilization_percent) == (38.5, 71)
    assert sample.memory_used_bytes == 15518872 * 1024
    assert not (machine.bin / "calls").exists(), calls()


def test_summary_of_the_tool_is_asked_without_library(machine: FakeMachine, recorded: Recorded) -> None:
    add_mx_smi(machine, recorded, summary="summary-2.2.12")
    sample = Sampler().sample(device())
    assert sample.source == "mx-smi 2.2.12 --summary"
    assert (sample.power_w, sample.temperature_c, sample.utilization_percent) == (62.015, 38.5, 0)
    assert (sample.memory_used_bytes, sample.clock_mhz) == (15518872 * 1024, 1125)


@pytest.mark.parametrize(
    ("recordings", "source", "address"),
    [
        ({"table": "table-2.2.9"}, "mx-smi 2.2.9", "0000:37:00.0"),
        ({"json": "json-2.2.12"}, "mx-smi 2.2.12 -j", "0000:37:00.0"),
        ({"dmon": "dmon-csv"}, "mx-smi dmon -c 1 --format csv --total-memory --show-bdf", "0000:08:00.0"),
    ],
)
def test_other_formats_stand_in(
    machine: FakeMachine, recorded: Recorded, recordings: dict[str, str], source: str, address: str
) -> None:
    add_mx_smi(machine, recorded, **recordings)
    sample = Sampler().sample(device(pci_bus_id=address))
    assert sample.source == source
    assert sample.power_w is not None
    assert sample.temperature_c is not None
    assert (sample.memory_used_bytes is None) == ("table" not in recordings)


def test_format_that_works_is_kept(machine: FakeMachine, recorded: Recorded) -> None:
    calls = add_mx_smi(machine, recorded, table="table-2.2.9")
    sampler = Sampler(fresh_s=0)
    sampler.sample(device())
    sampler.sample(device())
    assert calls() == ["--summary", "", ""]


def test_devices_of_one_moment_share_one_call(machine: FakeMachine, recorded: Recorded) -> None:
    calls = add_mx_smi(machine, recorded, table="table-2.2.9")
    sampler = Sampler()
    powers = [sampler.sample(device(uuid=None, pci_bus_id=f"0000:{bus}:00.0")).power_w for bus in ("0e", "12", "38")]
    assert powers == [57, 60, 56]
    assert calls() == ["--summary", ""]


@pytest.mark.parametrize(
    ("script", "source"),
    [
        (None, "mx-smi is not installed"),
        ("echo 'MXSML error: no permission'", "the output of mx-smi is not understood"),
        ("echo failed; exit 3", "mx-smi ended with status 3: failed"),
        ("/bin/sleep 30", "mx-smi did not finish within 0.3 s"),
    ],
    ids=["missing", "error text", "failing", "hanging"],
)
def test_tool_that_is_no_help_leaves_everything_unknown(machine: FakeMachine, script: str | None, source: str) -> None:
    if script:
        machine.add_tool("mx-smi", script=script)
    sample = Sampler(timeout_s=0.3).sample(device())
    assert sample.source == source
    assert {getattr(sample, name) for name in sample.__slots__ if name != "source"} == {None}


def test_tool_that_hangs_is_waited_for_once_per_reading(machine: FakeMachine) -> None:
    started = machine.bin / "started"
    machine.add_tool("mx-smi", script=f"echo >> {started}; /bin/sleep 30")
    Sampler(timeout_s=0.2).sample(device())
    assert len(started.read_text().splitlines()) == 1


def test_library_that_hangs_gives_way_to_the_tool(
    machine: FakeMachine, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    binding = FakePymxsml()

    def hang() -> int:
        asked.append(1)
        time.sleep(2)
        return 0

    monkeypatch.setattr(binding, "mxSmlGetDeviceCount", hang, raising=False)
    monkeypatch.setitem(sys.modules, "pymxsml", binding)
    add_mx_smi(machine, recorded, summary="summary-2.2.12")
    sampler = Sampler(timeout_s=0.3, fresh_s=0)
    assert [sampler.sample(device()).source for _ in range(2)] == ["mx-smi 2.2.12 --summary"] * 2
    assert asked == [1]


def test_slice_shows_only_what_holds_for_its_board(machine: FakeMachine, recorded: Recorded) -> None:
    add_mx_smi(machine, recorded, summary="summary-2.2.12")
    slice_uuid = "GPU-00000000-0000-0000-0000-000000000003"
    sample = Sampler().sample(device(uuid=slice_uuid, part="sGPU 25% 15.625gb"))
    assert sample.source.endswith("of the whole board that this device is a slice of")
    assert (sample.power_w, sample.temperature_c, sample.clock_mhz) == (62.015, 38.5, 1125)
    assert (sample.memory_used_bytes, sample.utilization_percent) == (None, None)


ONE = DeviceReading(pci_bus_id="0000:37:00.0", uuid=UUIDS[0])
TWO = DeviceReading(pci_bus_id="0000:38:00.0", uuid=UUIDS[1])


@pytest.mark.parametrize(
    ("identity", "readings", "expected"),
    [
        ({"uuid": UUIDS[1], "pci_bus_id": None}, (ONE, TWO), TWO),
        ({"uuid": UUIDS[1].removeprefix("GPU-").upper(), "pci_bus_id": None}, (ONE, TWO), TWO),
        ({"uuid": UUIDS[1], "pci_bus_id": "0000:37:00.0"}, (ONE, TWO), TWO),
        ({"uuid": "GPU-slice", "pci_bus_id": "0000:38:00.0"}, (ONE, TWO), TWO),
        ({"uuid": "GPU-other", "pci_bus_id": "0000:99:00.0"}, (ONE, TWO), None),
        ({"uuid": "GPU-other", "pci_bus_id": None}, (ONE,), None),
        ({"uuid": None, "pci_bus_id": None}, (ONE,), ONE),
        ({"uuid": None, "pci_bus_id": None}, (ONE, TWO), None),
        ({"uuid": None, "pci_bus_id": None}, (), None),
    ],
    ids=[
        "uuid",
        "uuid as torch writes it",
        "uuid before address",
        "slice by address",
        "somebody else",
        "uuid only",
        "anonymous",
        "anonymous of two",
        "none",
    ],
)
def test_device_is_found_by_identity_and_never_by_index(
    identity: dict[str, str | None], readings: tuple[DeviceReading, ...], expected: DeviceReading | None
) -> None:
    assert find_board(device(index=0, **identity), readings) == expected


def test_device_that_is_not_listed_is_named(machine: FakeMachine, recorded: Recorded) -> None:
    add_mx_smi(machine, recorded, summary="summary-2.2.12")
    sample = Sampler().sample(device(pci_bus_id="0000:99:00.0"))
    assert sample.source == f"mx-smi 2.2.12 --summary: {UUIDS[0]} is not listed"
    assert sample.power_w is None
