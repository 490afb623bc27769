"""Every layout of the management tool's output, as recorded, and what it must not be taken for."""

from __future__ import annotations

import pytest
from chipperf.hardware import DeviceReading, read_device
from chipperf_kunlunxin.xpu_smi import (
    driver_version,
    normalize_uuid,
    parse_list,
    parse_machine_rows,
    parse_new_table,
    parse_old_table,
    parse_query,
    parse_tables,
    watts_of,
)
from kunlunxin_tool import P800_BYTES, query_of, recorded

MIB = 2**20
ROWS = recorded("xpu-smi-m-p800")
INTEL_HELP = "Intel XPU System Management Interface -- v1.2\nUsage: xpu-smi [Options]\n  xpu-smi discovery\n"
ERROR_TEXT = "[ERROR] xpuml init failed: (713) Device abnormal due to previous error\n"
UUID = "00000000-1111-2222-3333-0000000000ab"


def test_machine_rows_are_read_by_position() -> None:
    assert parse_machine_rows(ROWS) == (
        DeviceReading(
            device_id=1,
            pci_bus_id="0000:16:00.0",
            serial="02K00SERIAL000001",
            name="P800 OAM",
            temperature_c=37,
            power_w=94,
            utilization_percent=0,
            memory_used_bytes=0,
            memory_total_bytes=P800_BYTES,
            clock_mhz=1450,
        ),
        DeviceReading(
            device_id=0,
            pci_bus_id="0000:03:00.0",
            serial="02K00SERIAL000002",
            name="P800 OAM",
            temperature_c=36,
            power_w=86,
            utilization_percent=0,
            memory_used_bytes=90440 * MIB,
            memory_total_bytes=P800_BYTES,
            clock_mhz=1450,
        ),
    )


def test_milliwatts_of_a_k200_become_watts() -> None:
    readings = parse_machine_rows(recorded("xpu-smi-m-k200"))
    assert [(r.device_id, r.name, r.power_w, r.memory_total_bytes) for r in readings] == [
        (0, "K200", 33.12, 8064 * MIB),
        (1, "K200", 33.12, 8064 * MIB),
    ]


@pytest.mark.parametrize(
    ("model", "name"),
    [('"P800 OAM"', "P800 OAM"), ("P800 OAM", "P800 OAM"), ("R300", "R300"), ("'R300'", "R300")],
    ids=["quoted", "unquoted", "one word", "single quotes"],
)
@pytest.mark.parametrize("behind", ["", " 0", " 0 0 0 0 0 0 0 0 0 0", " 0 new 17"])
def test_fields_behind_the_model_may_differ(model: str, name: str, behind: str) -> None:
    line = ROWS.splitlines()[0].partition('"')[0] + model + behind
    (reading,) = parse_machine_rows(line)
    assert (reading.name, reading.memory_total_bytes) == (name, P800_BYTES)


@pytest.mark.parametrize("total", ["0", "N/A"])
def test_card_without_a_capacity_is_listed_beside_others(total: str) -> None:
    first, second = ROWS.splitlines()[:2]
    readings = parse_machine_rows(f"{first.replace(' 98304 ', f' {total} ')}\n{second}")
    assert [reading.memory_total_bytes for reading in readings] == [None, P800_BYTES]


def test_unknown_columns_stay_unknown() -> None:
    line = ROWS.splitlines()[0].replace(" 37 0 0 0 94 ", " N/A 0 0 0 N/A ")
    (reading,) = parse_machine_rows(line)
    assert (reading.temperature_c, reading.power_w, reading.memory_total_bytes) == (None, None, P800_BYTES)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ERROR_TEXT,
        INTEL_HELP,
        ROWS[:60],
        ROWS[: ROWS.index("OAM")],
        ROWS.replace("98304", "N/A"),
        ROWS.replace(" 0 98304 0 ", " 0 0 0 ").splitlines()[0],
        ROWS.replace(" 98304 0 ", " 96 0 ").splitlines()[1],
        ROWS.replace(" 98304 0 ", " 98304 101 "),
        ROWS.replace(" 37 ", " 1450 ").splitlines()[0],
        ROWS.replace("00000000:", "1 00000000:"),
        ROWS.replace(":16:00.0", "").replace(":03:00.0", ""),
    ],
    ids=[
        "empty",
        "error",
        "Intel's",
        "cut off",
        "cut in the model",
        "no total",
        "total 0",
        "use above total",
        "101 %",
        "1450 C",
        "new column",
        "no address",
    ],
)
def test_other_text_has_no_machine_rows(text: str) -> None:
    assert parse_machine_rows(text) == ()


def test_row_that_is_cut_off_leaves_the_others() -> None:
    assert [reading.device_id for reading in parse_machine_rows(ROWS[:-60])] == [1]


def test_query_keeps_sections_apart_that_repeat_keys() -> None:
    query = parse_query(recorded("xpu-smi-q-p800"))
    assert (query.driver_version, query.sdk_version) == ("5.0.21.47", "10.2")
    assert query.readings == (
        DeviceReading(
            device_id=0,
            node=3,
            pci_bus_id="0000:1c:00.0",
            serial="02K00SERIAL000003",
            uuid=UUID,
            name="P800 OAM",
            temperature_c=42,
            power_w=92,
            utilization_percent=0,
            memory_used_bytes=0,
            memory_total_bytes=P800_BYTES,
            clock_mhz=1450,
        ),
    )


def test_query_keeps_devices_apart() -> None:
    query = parse_query(query_of(("00000000:1C:00.0", "GPU-a"), ("00000000:52:00.0", "GPU-b")))
    assert [(r.device_id, r.pci_bus_id, r.uuid) for r in query.readings] == [
        (0, "0000:1c:00.0", "a"),
        (1, "0000:52:00.0", "b"),
    ]


def test_query_that_is_cut_off_says_what_came() -> None:
    text = recorded("xpu-smi-q-p800")
    (reading,) = parse_query(text[: text.index("    L3 Usage")]).readings
    assert (reading.uuid, reading.memory_total_bytes, reading.power_w) == (UUID, P800_BYTES, None)


def test_placeholder_and_missing_versions_of_a_container_are_unknown() -> None:
    text = recorded("xpu-smi-q-p800").replace("5.0.21.47", "515.58").replace(": 10.2", ": N/A")
    query = parse_query(text)
    assert (query.driver_version, query.sdk_version) == (None, None)


@pytest.mark.parametrize("text", ["", ERROR_TEXT, INTEL_HELP, ROWS])
def test_other_text_is_no_query(text: str) -> None:
    assert parse_query(text).readings == ()


def test_old_table_goes_by_its_headers() -> None:
    first, second = parse_old_table(recorded("xpu_smi-table-4.0"))
    assert first == DeviceReading(
        device_id=0,
        pci_bus_id="0000:01:00.0",
        serial="02K00SERIAL00004",
        name="R200",
        temperature_c=49,
        power_w=25,
        utilization_percent=0,
        memory_used_bytes=0,
        memory_total_bytes=16384 * MIB,
        clock_mhz=1300,
    )
    assert (second.name, second.power_w, second.memory_total_bytes) == ("K100", 22, 8064 * MIB)


def test_old_table_without_some_columns() -> None:
    readings = parse_tables(recorded("xpu_smi-table-4.31"))
    assert [(r.device_id, r.pci_bus_id, r.name, r.memory_total_bytes) for r in readings] == [
        (0, "0000:53:00.0", "R300", 32768 * MIB),
        (1, "0000:56:00.0", "R300", 32768 * MIB),
    ]
    assert {(r.power_w, r.temperature_c, r.clock_mhz) for r in readings} == {(None, None, None)}


def test_old_table_with_use() -> None:
    busy, _ = parse_tables(recorded("xpu_smi-table-r300"))
    assert (busy.memory_used_bytes, busy.power_w, busy.utilization_percent) == (28653 * MIB, 114, 94)


def test_new_table_takes_the_memory_and_not_the_l3_cache() -> None:
    readings = parse_tables(recorded("xpu-smi-table-p800"))
    assert readings == (
        DeviceReading(
            device_id=0,
            pci_bus_id="0000:52:00.0",
            name="P800 OAM",
            temperature_c=38,
            power_w=85,
            utilization_percent=0,
            memory_used_bytes=0,
            memory_total_bytes=P800_BYTES,
        ),
        DeviceReading(
            device_id=1,
            pci_bus_id="0000:ab:00.0",
            name="P800 OAM",
            temperature_c=42,
            power_w=88,
            utilization_percent=0,
            memory_used_bytes=0,
            memory_total_bytes=P800_BYTES,
        ),
    )


def test_new_table_that_is_cut_off_before_the_values() -> None:
    text = recorded("xpu-smi-table-p800")
    assert parse_new_table(text[: text.index("| N/A   38C")]) == (
        DeviceReading(device_id=0, pci_bus_id="0000:52:00.0", name="P800 OAM"),
    )


@pytest.mark.parametrize("text", ["", ERROR_TEXT, INTEL_HELP, ROWS, recorded("xpu-smi-q-p800")])
def test_other_text_is_no_table(text: str) -> None:
    assert parse_tables(text) == ()


def test_list_gives_numbers_and_addresses() -> None:
    text = recorded("xpu-smi-L") + "XPU 2: 00000000:25:00.0 (UUID: GPU-ABC)\nXPU x: none\n"
    assert [(r.device_id, r.pci_bus_id, r.uuid) for r in parse_list(text)] == [
        (0, "0000:21:00.0", None),
        (1, "0000:23:00.0", None),
        (2, "0000:25:00.0", "abc"),
    ]


@pytest.mark.parametrize(
    ("text", "watts"),
    [("94", 94), ("92.00 W", 92), ("33120", 33.12), ("33120 mW", 33.12), ("N/A", None), ("94 V", None), (None, None)],
)
def test_power_is_in_watts(text: str | None, watts: float | None) -> None:
    assert watts_of(text) == watts


@pytest.mark.parametrize(
    ("text", "size"),
    [("64 KB", 65536), ("1 KiB", 1024), ("0MiB", 0), ("96 MB", 96 * MIB), ("96 GiB", 96 * 1024 * MIB), ("96", None)],
)
def test_sizes_are_in_bytes(text: str, size: int | None) -> None:
    assert read_device({"memory_total_bytes": text}).memory_total_bytes == size


@pytest.mark.parametrize(
    ("text", "version"), [("5.0.21.47", "5.0.21.47"), ("515.58", None), ("N/A", None), (None, None)]
)
def test_driver_version_is_no_placeholder(text: str | None, version: str | None) -> None:
    assert driver_version(text) == version


@pytest.mark.parametrize(("text", "uuid"), [("GPU-AB-1", "ab-1"), ("ab-1", "ab-1"), ("", None), (None, None)])
def test_uuids_have_one_form(text: str | None, uuid: str | None) -> None:
    assert normalize_uuid(text) == uuid
