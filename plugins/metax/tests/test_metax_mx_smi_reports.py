"""The parsers of mx-smi on recorded outputs, and on damaged ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from chipperf.hardware import DeviceReading, DeviceReport
from chipperf_metax.mx_smi import parse_dmon, parse_json, parse_log, parse_table

if TYPE_CHECKING:
    from collections.abc import Callable

    Recorded = Callable[[str], str]

MIB = 2**20
BOARD = "0000:37:00.0"


@pytest.mark.parametrize(
    ("recording", "count", "versions", "first"),
    [
        (
            "table-2.0.12",
            1,
            (None, None, None),
            ("0000:1b:00.0", "MXC500", 56.0, 35.0, 914),
        ),
        (
            "table-2.2.4",
            8,
            ("2.2.4", "2.15.9", "2.32.0.6"),
            ("0000:0f:00.0", "MetaX C550", 53.0, 29.0, 858),
        ),
        (
            "table-2.2.6",
            1,
            ("2.2.6", "3.0.11", "3.0.0.8"),
            ("0000:0e:00.0", "MetaX C500", 59.0, 35.0, 858),
        ),
        (
            "table-2.2.9",
            8,
            ("2.2.9", "3.4.4", "3.3.0.15"),
            ("0000:0e:00.0", "MetaX C500", 57.0, 35.0, 826),
        ),
        (
            "table-2.2.12-sgpu",
            1,
            ("2.2.12", "3.8.30", "3.5.3.20"),
            (BOARD, "MetaX C500", 61.0, 38.0, 15155),
        ),
        (
            "table-ht-smi-2.2.9",
            8,
            ("2.2.9", "3.4.4", "3.3.0.15"),
            ("0000:4b:00.0", "Mars X201", 38.0, 34.0, 858),
        ),
    ],
)
def test_every_layout_of_the_table(
    recorded: Recorded,
    recording: str,
    count: int,
    versions: tuple[str | None, ...],
    first: tuple[str, str, float, float, int],
) -> None:
    report = parse_table(recorded(recording))
    address, name, power_w, temperature_c, used_mib = first
    assert len(report.readings) == count
    assert (report.tool_version, report.driver_version, report.sdk_version) == versions
    assert report.readings[0] == DeviceReading(
        pci_bus_id=address,
        name=name,
        power_w=power_w,
        temperature_c=temperature_c,
        utilization_percent=0.0,
        memory_used_bytes=used_mib * MIB,
        memory_total_bytes=65536 * MIB,
    )


def test_rows_of_a_table_are_kept_apart(recorded: Recorded) -> None:
    readings = parse_table(recorded("table-2.2.9")).readings
    assert [reading.pci_bus_id for reading in readings] == [
        f"0000:{bus}:00.0" for bus in ("0e", "0f", "10", "12", "35", "36", "37", "38")
    ]
    assert [reading.power_w for reading in readings] == [57, 58, 58, 60, 57, 56, 55, 56]
    assert [reading.temperature_c for reading in readings] == [35, 37, 36, 35, 33, 34, 34, 36]


def test_table_with_other_columns_is_read_by_unit() -> None:
    text = (
        "| 3   MetaX C600  | A1 | 88%  Native | 00000000:A1:00.0 |\n"
        "| Available | 70000/147456 MiB | N/A / 700W | P0  81C |\n"
    )
    (reading,) = parse_table(text).readings
    assert (reading.pci_bus_id, reading.name) == ("0000:a1:00.0", "MetaX C600")
    assert (reading.utilization_percent, reading.temperature_c, reading.power_w) == (88, 81, None)
    assert reading.memory_used_bytes == 70000 * MIB


def test_table_cut_off_within_a_row_keeps_what_is_there(recorded: Recorded) -> None:
    whole = recorded("table-2.2.9")
    cut = whole[: whole.index("58W")]
    first, second = parse_table(cut).readings
    assert first.power_w == 57
    assert second == DeviceReading(pci_bus_id="0000:0f:00.0", name="MetaX C500", utilization_percent=0.0)


SUMMARY = DeviceReading(
    pci_bus_id=BOARD,
    name="MXC500",
    power_w=62.015,
    temperature_c=38.5,
    utilization_percent=0.0,
    memory_used_bytes=15518872 * 1024,
    memory_total_bytes=64 * 2**30,
    clock_mhz=1125.0,
)


def test_summary_holds_everything(recorded: Recorded) -> None:
    report = parse_log(recorded("summary-2.2.12"))
    assert report == DeviceReport(
        readings=(SUMMARY,), tool_version="2.2.12", driver_version="3.8.30", sdk_version="3.5.3.20"
    )


@pytest.mark.parametrize(
    ("recording", "told"),
    [
        ("show-memory-2.2.12", {"memory_used_bytes", "memory_total_bytes"}),
        ("show-temperature-2.2.12", {"temperature_c"}),
        ("show-board-power-2.2.12", {"power_w"}),
        ("show-usage-2.2.12", {"utilization_percent"}),
        ("show-clock-2.2.12", {"clock_mhz"}),
        ("show-version-2.2.12", set()),
    ],
)
def test_single_options_tell_their_part_of_the_summary(recorded: Recorded, recording: str, told: set[str]) -> None:
    (reading,) = parse_log(recorded(recording)).readings
    for name in DeviceReading.__slots__:
        expected = getattr(SUMMARY, name) if name in {*told, "pci_bus_id", "name"} else None
        assert getattr(reading, name) == expected


def test_driver_is_the_kernel_mode_driver_and_not_the_tool(recorded: Recorded) -> None:
    report = parse_log(recorded("show-version-2.2.12"))
    assert (report.driver_version, report.tool_version) == ("3.8.30", "2.2.12")


def test_power_without_a_total_is_the_sum_of_the_ways(recorded: Recorded) -> None:
    lines = recorded("show-board-power-2.2.12").splitlines()
    (reading,) = parse_log("\n".join(line for line in lines if "Total" not in line)).readings
    assert reading.power_w == pytest.approx(25.789 + 26.652 + 9.574)


def test_power_with_an_unreadable_way_is_unknown(recorded: Recorded) -> None:
    lines = recorded("show-board-power-2.2.12").replace("26.652 W", "N/A W").splitlines()
    (reading,) = parse_log("\n".join(line for line in lines if "Total" not in line)).readings
    assert reading.power_w is None


@pytest.mark.parametrize(
    ("printed", "used_bytes"), [("15518872 KB", 15518872 * 1024), ("15155 MiB", 15155 * MIB), ("23.1 %", None)]
)
def test_memory_is_converted_by_its_unit(recorded: Recorded, printed: str, used_bytes: int | None) -> None:
    text = recorded("show-memory-2.2.12").replace("15518872 KB", printed)
    assert parse_log(text).readings[0].memory_used_bytes == used_bytes


def test_log_of_several_gpus_is_kept_apart() -> None:
    text = "".join(f"GPU#{n}  MXC500  0000:0{n}:00.0\n    Memory\n        vram used   : {n} KB\n" for n in (1, 2))
    assert [(r.pci_bus_id, r.memory_used_bytes) for r in parse_log(text).readings] == [
        ("0000:01:00.0", 1024),
        ("0000:02:00.0", 2048),
    ]


def test_json_follows_a_line_of_text_and_tells_no_memory(recorded: Recorded) -> None:
    report = parse_json(recorded("json-2.2.12"))
    (reading,) = report.readings
    assert (report.tool_version, report.driver_version, report.sdk_version) == ("2.2.12", "3.8.30", "3.5.3.20")
    assert reading.power_w == pytest.approx(61.919)
    assert (reading.pci_bus_id, reading.temperature_c, reading.utilization_percent) == (BOARD, 38.5, 0)
    assert (reading.clock_mhz, reading.memory_used_bytes, reading.memory_total_bytes) == (1125, None, None)


def test_json_leaves_unavailable_gpus_out(recorded: Recorded) -> None:
    text = recorded("json-2.2.12").replace('"unavailable_reason": ""', '"unavailable_reason": "Sysfs"')
    assert parse_json(text).readings == ()


@pytest.mark.parametrize("field", ["hotspot", "utilization", "board_power", "clocks"])
def test_json_without_a_field_leaves_it_unknown(recorded: Recorded, field: str) -> None:
    (reading,) = parse_json(recorded("json-2.2.12").replace(f'"{field}"', '"renamed"', 1)).readings
    known = {"hotspot": reading.temperature_c, "utilization": reading.utilization_percent}
    known |= {"board_power": reading.power_w, "clocks": reading.clock_mhz}
    assert {name for name, value in known.items() if value is None} == {field}


def test_dmon_as_csv_names_its_gpus(recorded: Recorded) -> None:
    first, second = parse_dmon(recorded("dmon-csv")).readings
    assert first == DeviceReading(
        pci_bus_id="0000:08:00.0",
        power_w=159,
        temperature_c=45,
        utilization_percent=71,
        memory_total_bytes=64 * 2**30,
    )
    assert (second.pci_bus_id, second.power_w) == ("0000:09:00.0", 165)


def test_dmon_in_columns_cannot_be_joined(recorded: Recorded) -> None:
    (reading,) = parse_dmon(recorded("dmon-2.2.12")).readings
    assert reading == DeviceReading(power_w=61, temperature_c=38, utilization_percent=0)


def test_dmon_columns_are_found_by_name() -> None:
    text = "bdfid, gpu, power, hottemp\n, %, W, C\n0000:08:00.0, 9, 60, 41\n0000:09:00.0, 9\n"
    assert parse_dmon(text).readings == (
        DeviceReading(pci_bus_id="0000:08:00.0", power_w=60, temperature_c=41, utilization_percent=9),
    )


@pytest.mark.parametrize("parse", [parse_log, parse_table, parse_json, parse_dmon])
@pytest.mark.parametrize(
    "text",
    [
        "",
        "mx-smi  version: 2.2.12\n",
        "GPU#0 show-pcie-slot Sysfs error: No such file or directory\n",
        "Segmentation fault (core dumped)\n",
        "{\n",
        '{"0000:37:00.0": 5, "attached_gpus": []}',
        "dev power hottemp\n",
        "| 0 | | \n",
    ],
)
def test_other_text_tells_nothing(parse: Callable[[str], DeviceReport], text: str) -> None:
    assert parse(text).readings == ()


@pytest.mark.parametrize("parse", [parse_log, parse_table, parse_json, parse_dmon])
def test_complaint_about_an_option_tells_nothing(recorded: Recorded, parse: Callable[[str], DeviceReport]) -> None:
    assert parse(recorded("parse-error-2.2.12")) == DeviceReport()


@pytest.mark.parametrize(
    ("parse", "recording"),
    [
        (parse_log, "summary-2.2.12"),
        (parse_table, "table-2.2.12-sgpu"),
        (parse_json, "json-2.2.12"),
        (parse_dmon, "dmon-csv"),
    ],
)
def test_output_cut_off_anywhere_tells_the_truth_or_less(
    recorded: Recorded, parse: Callable[[str], DeviceReport], recording: str
) -> None:
    whole = recorded(recording)
    truth = {reading.pci_bus_id: reading for reading in parse(whole).readings}
    for length in range(0, len(whole), 3):
        for reading in parse(whole[:length]).readings:
            # A row whose address is cut off belongs to no board.
            board = truth.get(reading.pci_bus_id, reading)
            for name in DeviceReading.__slots__:
                assert getattr(reading, name) in (None, getattr(board, name))
