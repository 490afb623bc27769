"""MetaX's management tool: where it is, what it is asked, and parsers of what it prints.

The tool can also reset devices, flash firmware and kill processes; so it is only ever run with a :class:`Query`.
Layouts differ from version to version, so values are recognized by their names and units and never by their column.
A parser never raises: what it does not recognize is unknown.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from chipperf import ProbedDevice, ToolCommand, hookimpl
from chipperf.hardware import (
    UNSTATED,
    WATTS,
    DeviceReport,
    ManagementTool,
    normalize_pci_address,
    quantity,
    read_device,
    read_sections,
    read_table,
    stated,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# ht-smi is the same tool under the name of a white label.
TOOL: Final = ManagementTool(names=("mx-smi", "ht-smi"), directories=(Path("/opt/mxdriver/bin"), Path("/opt/maca/bin")))

# "GPU#0    MXC500      0000:37:00.0   Available (UUID: GPU-...)", before that "GPU 0: MXC500 (UUID: MX-...)".
_GPU_ROW = re.compile(r"^\s*GPU(?:#(?P<new>\d+)\s|\s+(?P<old>\d+):)\s*(?P<name>\S.*?)(?=\s{2,}|\s*\(|$)(?P<rest>.*)$")
# A slice follows its GPU: "  SGPU#3   25% 15.625gb   Available (UUID: GPU-...) sgpu-...".
_SLICE_ROW = re.compile(r"^\s+(?P<slice>SGPU#\d+)\s(?P<rest>.*)$")
_SHARE = re.compile(r"\d+%(?:\s+[\d.]+[A-Za-z]+)?")
# The rest of a row is the state, which the old layout does not have: "Available", "Not Available(why)".
_BESIDE_STATE = re.compile(rf"\(UUID:[^)]*\)?|\bsgpu-\S+|\S+:\S+\.[0-7]\b|{_SHARE.pattern}")
_UUID = re.compile(r"UUID:\s*([^\s)]+)")
# Serial numbers of chip (like "AB1C23_45_6_7") and board (like "ABCD0123456789").
_SERIAL_NUMBERS = (r"\b[A-Z0-9]+(?:_\d+){3}\b", r"\b[A-Z]{4}\d{10}\b")

_TOOL_VERSION = re.compile(r"^\s*[a-z]+-smi\s+version:\s*(\S+)", re.MULTILINE)
_LOG_GPU = re.compile(r"GPU#\d+\s+(?P<name>\S.*?)\s+(?P<address>[0-9A-Fa-f:]+\.[0-7])\s*")

_TABLE_TOOL = re.compile(r"\b[A-Z]{2}-SMI\s+(\d\S*)")
_TABLE_DRIVER = re.compile(r"Kernel Mode Driver Version:\s*(\d\S*)")
_TABLE_SDK = re.compile(r"\b(?:MACA|HPCC) Version:\s*(\d\S*)")
_TABLE_VALUES = {
    "name": re.compile(r"^\|\s*\d+\s+([^\s|]+(?: [^\s|]+)*)"),
    "temperature_c": re.compile(r"(?<!\S)(\d+C)(?!\S)"),
    # "56W", or "53W / 450W" with the limit behind the stroke.
    "power_w": re.compile(r"(?<!\S)(?<!/ )(\d+W)(?=\s|/|$)"),
    "utilization_percent": re.compile(r"(?<!\S)(\d+%)(?!\S)"),
    "memory_used_bytes": re.compile(r"(\d+)/\d+ MiB"),
    "memory_total_bytes": re.compile(r"\d+/(\d+ MiB)"),
}
_DMON_COLUMNS = {
    "power_w": "power",
    "temperature_c": "hottemp",
    "utilization_percent": "gpu",
    "memory_total_bytes": "total",
}


class Query(Enum):
    """Everything the tool is asked; each value is its arguments, and none of them changes a device."""

    LIST = ("-L",)
    TABLE = ()
    SUMMARY = ("--summary",)
    VERSION = ("--show-version",)
    JSON = ("-j",)
    DMON = ("dmon", "-c", "1", "--format", "csv", "--total-memory", "--show-bdf")


class DeviceList(NamedTuple):
    """What ``mx-smi -L`` lists: the usable devices as MetaX's runtime counts them, with slices in place of their GPUs,
    and a message for each GPU or slice in another state than available.
    """

    devices: tuple[ProbedDevice, ...] = ()
    unavailable: tuple[str, ...] = ()


@hookimpl
def perf_tool_commands() -> tuple[ToolCommand, ...]:
    """List every call of the tool that this plugin makes."""
    tool = TOOL.find() or "mx-smi"
    return tuple(
        ToolCommand(name=f"mx-smi-{query.name.lower()}", argv=(tool, *query.value), private_patterns=_SERIAL_NUMBERS)
        for query in Query
    )


def parse_list(text: str) -> DeviceList:
    """Parse the output of ``mx-smi -L`` in its two known layouts; lines of any other form are skipped.

    MetaX's runtime shows the slices of a GPU instead of it: with their own UUID, at the address of their GPU.
    """
    devices: list[ProbedDevice] = []
    unavailable = []
    gpu: ProbedDevice | None = None
    for line in text.splitlines():
        row, slice_row = _GPU_ROW.match(line), _SLICE_ROW.match(line)
        if row:
            rest, index, name = row["rest"], int(row["new"] or row["old"]), row["name"]
            which, fault, address = f"GPU {index}", _fault_of(rest), normalize_pci_address(rest)
            device = ProbedDevice(index=index, name=name, uuid=_first(_UUID, rest), pci_bus_id=address)
            gpu = None if fault else device
        elif slice_row and gpu:
            rest = slice_row["rest"]
            which, fault = f"GPU {gpu.index}, {slice_row['slice']}", _fault_of(rest)
            devices = devices[:-1] if devices[-1:] == [gpu] else devices
            device = replace(gpu, uuid=_first(_UUID, rest), part=f"sGPU {' '.join(_SHARE.findall(rest))}".strip())
        else:
            continue
        if fault:
            unavailable.append(f"{which}: {fault}")
        else:
            devices.append(device)
    numbered = (replace(device, index=index) for index, device in enumerate(sorted(devices, key=lambda gpu: gpu.index)))
    return DeviceList(devices=tuple(numbered), unavailable=tuple(unavailable))


def _fault_of(rest: str) -> str:
    """Return why the device of a row cannot be used, in the tool's words; nothing if it is available."""
    state, _, why = _BESIDE_STATE.sub("", rest).partition("(")
    return "" if state.strip().casefold() in ("", "available") else why.strip(" )") or state.strip()


def parse_log(text: str) -> DeviceReport:
    """Parse what ``--summary`` or any of ``--show-memory``, ``--show-version`` and the like prints: named values."""
    readings = []
    versions: dict[str, str] = {}
    for heading, values in read_sections(text, _LOG_GPU)[1]:
        # Ways have a voltage, a current and a power. Keys such as "core" repeat in sections that are not read.
        entries: dict[str, str] = {}
        for path, value in values.items():
            entries.setdefault(f"{path[-1]} W" if value.endswith(" W") else path[-1], value)
        power_w = quantity(entries.get("Total W"), WATTS)
        if power_w is None and "End of Log" in text:
            # Where output was cut off, the sum would lack ways.
            power_w = _sum(quantity(value, WATTS) for key, value in entries.items() if re.fullmatch(r"Way \d+ W", key))
        texts = {
            "pci_bus_id": heading["address"],
            "name": heading["name"],
            # Which sensor is the hottest changes from call to call: "hotspot(sensor5)".
            "temperature_c": next((value for key, value in entries.items() if key.startswith("hotspot")), None),
            "utilization_percent": entries.get("GPU"),
            "memory_used_bytes": entries.get("vram used"),
            "memory_total_bytes": entries.get("vram total"),
            "clock_mhz": entries.get("XCORE_CLK") or entries.get("XCORE"),
        }
        readings.append(read_device(texts, power_w=power_w))
        versions = versions or entries
    return DeviceReport(
        readings=tuple(readings),
        tool_version=_first(_TOOL_VERSION, text),
        driver_version=versions.get("KMD"),
        sdk_version=versions.get("MACA"),
    )


def parse_table(text: str) -> DeviceReport:
    """Parse the table that ``mx-smi`` prints without options, in all of its known layouts."""
    return DeviceReport(
        readings=tuple(
            read_device({**texts, "memory_used_bytes": f"{texts['memory_used_bytes']} MiB"})
            for texts in read_table(text, _TABLE_VALUES)
        ),
        tool_version=_first(_TABLE_TOOL, text) or _first(_TOOL_VERSION, text),
        driver_version=_first(_TABLE_DRIVER, text),
        sdk_version=_first(_TABLE_SDK, text),
    )


def parse_json(text: str) -> DeviceReport:
    """Parse the output of ``-j``: a line of text, then a JSON object; it says nothing about memory."""
    _, brace, rest = text.partition("{")
    try:
        content: dict[str, Any] = json.JSONDecoder().raw_decode(brace + rest)[0]
    except ValueError:
        return DeviceReport()
    readings = []
    for address, gpu in content.items():
        if isinstance(gpu, dict) and normalize_pci_address(address) and not gpu.get("unavailable_reason"):
            texts = {
                "pci_bus_id": address,
                "temperature_c": gpu.get("hotspot"),
                "utilization_percent": gpu.get("utilization"),
                "clock_mhz": _mapping(gpu.get("clocks")).get("XCORE"),
            }
            # Most numbers are strings, and some are not.
            ways = _mapping(_mapping(gpu.get("board_power")).get("power")).values()
            power_w = _sum(quantity(str(value), UNSTATED) for value in ways)
            readings.append(read_device(texts, unstated=UNSTATED, power_w=power_w))
    return DeviceReport(
        readings=tuple(readings),
        tool_version=content.get("smi_version"),
        driver_version=content.get("driver_version"),
        sdk_version=content.get("maca_version"),
    )


def parse_dmon(text: str) -> DeviceReport:
    """Parse one interval of ``dmon``, in columns or as CSV; memory in use is left out, because it is in percent only.

    The first row names the columns, the second their units. Only with ``--show-bdf`` do the rows say which GPU it is.
    """
    lines = filter(str.strip, text.splitlines())
    rows = [re.split(r"\s*,\s*" if "," in line else r"\s+", line.strip()) for line in lines]
    first = next((number for number, row in enumerate(rows) if {"hottemp", "power"} <= set(row)), len(rows))
    readings = []
    for cells in rows[first + 2 :]:
        if len(cells) == len(rows[first]):
            units = dict(zip(rows[first], rows[first + 1], strict=False))
            row = dict(zip(rows[first], cells, strict=True))
            texts = {name: f"{row.get(column)} {units.get(column, '')}" for name, column in _DMON_COLUMNS.items()}
            readings.append(read_device({**texts, "pci_bus_id": row.get("bdfid")}))
    return DeviceReport(readings=tuple(readings))


def _first(pattern: re.Pattern[str], text: str) -> str | None:
    match = pattern.search(text)
    return stated(match[1]) if match else None


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _sum(values: Iterable[float | None]) -> float | None:
    """Add up; a sum with an unknown part, or without any, is unknown."""
    parts = list(values)
    return sum(filter(None, parts)) if parts and None not in parts else None
