"""MetaX's management tool: where it is, what it is asked, and parsers of what it prints.

The tool can also reset devices, flash firmware and kill processes; so it is only ever run with a :class:`Query`.
Layouts differ from version to version, so values are recognized by their names and units and never by their column.
A parser never raises: what it does not recognize is unknown.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from chipperf import ProbedDevice, ToolCommand, hookimpl
from chipperf.hardware import (
    UNSTATED,
    WATTS,
    DeviceReading,
    DeviceReport,
    ManagementTool,
    normalize_pci_address,
    quantity,
    read_device,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# ht-smi is the same tool under the name of a white label.
TOOL: Final = ManagementTool(names=("mx-smi", "ht-smi"), directories=(Path("/opt/mxdriver/bin"), Path("/opt/maca/bin")))

# "GPU#0    MXC500      0000:37:00.0   Available (UUID: GPU-...)", before that "GPU 0: MXC500 (UUID: MX-...)".
_GPU_ROW = re.compile(r"^\s*GPU(?:#(?P<new>\d+)\s|\s+(?P<old>\d+):)\s*(?P<name>\S.*?)(?=\s{2,}|\s*\(|$)(?P<rest>.*)$")
# A slice follows its GPU: "  SGPU#3   25% 15.625gb   Available (UUID: GPU-...) sgpu-...".
_SLICE_ROW = re.compile(r"^\s+SGPU#\d+\s(?P<rest>.*)$")
_UUID = re.compile(r"UUID:\s*([^\s)]+)")
# Serial numbers of chip (like "AB1C23_45_6_7") and board (like "ABCD0123456789").
_SERIAL_NUMBERS = (r"\b[A-Z0-9]+(?:_\d+){3}\b", r"\b[A-Z]{4}\d{10}\b")
_NOT_AVAILABLE = re.compile(r"Not Available(?:\(([^)]*)\))?")

_TOOL_VERSION = re.compile(r"^\s*[a-z]+-smi\s+version:\s*(\S+)", re.MULTILINE)
_LOG_GPU = re.compile(r"^GPU#\d+\s+(?P<name>\S.*?)\s+(?P<address>[0-9A-Fa-f:]+\.[0-7])\s*$")
_LOG_ENTRY = re.compile(r"^\s+(?P<key>\S.*?)\s*: (?P<value>.*)$")

_LOG_END = "End of Log"

_TABLE_TOOL = re.compile(r"\b[A-Z]{2}-SMI\s+(\d\S*)")
_TABLE_DRIVER = re.compile(r"Kernel Mode Driver Version:\s*(\d\S*)")
_TABLE_SDK = re.compile(r"\b(?:MACA|HPCC) Version:\s*(\d\S*)")
_TABLE_VALUES = {
    "name": re.compile(r"^\|\s*\d+\s+([^\s|]+(?: [^\s|]+)*)"),
    "temperature_c": re.compile(r"(?<!\S)(\d+C)(?!\S)"),
    # "56W", or "53W / 450W" with the limit behind the stroke.
    "power_w": re.compile(r"(?<!\S)(?<!/ )(\d+W)(?=\s|/|$)"),
    "utilization_percent": re.compile(r"(?<!\S)(\d+%)(?!\S)"),
    "memory_total_bytes": re.compile(r"\d+/(\d+ MiB)"),
}
_TABLE_MEMORY_USED = re.compile(r"(\d+)/\d+ MiB")
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


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceList:
    """What ``mx-smi -L`` lists.

    Attributes:
        devices: Devices that can be used, as MetaX's runtime counts them: GPUs, and slices in place of a sliced GPU.
        sliced: Addresses of the GPUs that are divided into slices.
        unavailable: One message for each GPU the tool marks as not available, with the tool's index.
    """

    devices: tuple[ProbedDevice, ...] = ()
    sliced: frozenset[str | None] = frozenset()
    unavailable: tuple[str, ...] = ()


@hookimpl
def perf_tool_commands() -> tuple[ToolCommand, ...]:
    """List every call of mx-smi that this plugin makes."""
    tool = TOOL.find() or "mx-smi"
    return tuple(
        ToolCommand(name=f"mx-smi-{query.name.lower()}", argv=(tool, *query.value), private_patterns=_SERIAL_NUMBERS)
        for query in Query
    )


def parse_list(text: str) -> DeviceList:
    """Parse the output of ``mx-smi -L`` in its two known layouts; lines of any other form are skipped.

    A GPU that is shared has slices, and MetaX's runtime shows those instead: with their own UUID, at the address of
    their GPU.
    """
    devices: list[ProbedDevice] = []
    sliced = set()
    unavailable = []
    gpu: ProbedDevice | None = None
    for line in text.splitlines():
        row, slice_row = _GPU_ROW.match(line), _SLICE_ROW.match(line)
        if row:
            gpu = _gpu(row)
            if gpu is None:
                missing = _NOT_AVAILABLE.search(line)
                reason = missing[1] if missing and missing[1] else "not available"
                unavailable.append(f"GPU {row['new'] or row['old']}: {reason}")
            else:
                devices.append(gpu)
        elif slice_row and gpu and not _NOT_AVAILABLE.search(line):
            if devices[-1] == gpu:
                devices.pop()
            sliced.add(gpu.pci_bus_id)
            devices.append(replace(gpu, uuid=_first(_UUID, slice_row["rest"])))
    numbered = (replace(device, index=index) for index, device in enumerate(devices))
    return DeviceList(devices=tuple(numbered), sliced=frozenset(sliced), unavailable=tuple(unavailable))


def _gpu(row: re.Match[str]) -> ProbedDevice | None:
    if _NOT_AVAILABLE.search(row["rest"]):
        return None
    return ProbedDevice(
        index=int(row["new"] or row["old"]),
        name=row["name"],
        uuid=_first(_UUID, row["rest"]),
        pci_bus_id=normalize_pci_address(row["rest"]),
    )


def parse_log(text: str) -> DeviceReport:
    """Parse what ``--summary`` or any of ``--show-memory``, ``--show-version`` and the like prints: named values."""
    gpus = list(_log_gpus(text))
    is_complete = _LOG_END in text
    entries = gpus[0][1] if gpus else {}
    return DeviceReport(
        readings=tuple(_log_reading(heading, values, is_complete=is_complete) for heading, values in gpus),
        tool_version=_first(_TOOL_VERSION, text),
        driver_version=entries.get("KMD"),
        sdk_version=entries.get("MACA"),
    )


def parse_table(text: str) -> DeviceReport:
    """Parse the table that ``mx-smi`` prints without options, in all of its known layouts."""
    return DeviceReport(
        readings=tuple(map(_table_reading, _table_blocks(text))),
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
    return DeviceReport(
        readings=tuple(
            _json_reading(address, gpu)
            for address, gpu in content.items()
            if isinstance(gpu, dict) and normalize_pci_address(address) and not gpu.get("unavailable_reason")
        ),
        tool_version=_text(content.get("smi_version")),
        driver_version=_text(content.get("driver_version")),
        sdk_version=_text(content.get("maca_version")),
    )


def parse_dmon(text: str) -> DeviceReport:
    """Parse one interval of ``dmon``, in columns or as CSV; memory in use is left out, because it is in percent only.

    The first row names the columns, the second their units. Only with ``--show-bdf`` do the rows say which GPU it is.
    """
    rows = [row for row in map(_dmon_cells, text.splitlines()) if row]
    for first, names in enumerate(rows):
        if "hottemp" in names and "power" in names and first + 1 < len(rows):
            units = dict(zip(names, rows[first + 1], strict=False))
            data = [row for row in rows[first + 2 :] if len(row) == len(names)]
            return DeviceReport(
                readings=tuple(_dmon_reading(dict(zip(names, row, strict=True)), units) for row in data)
            )
    return DeviceReport()


def _log_gpus(text: str) -> Iterator[tuple[re.Match[str], dict[str, str]]]:
    entries: dict[str, str] | None = None
    for line in text.splitlines():
        heading = _LOG_GPU.match(line)
        entry = _LOG_ENTRY.match(line)
        if heading:
            entries = {}
            yield heading, entries
        elif entry and entries is not None:
            # Keys such as "core" repeat in sections that are not read; the first one is kept.
            entries.setdefault(_log_key(entry["key"], entry["value"]), entry["value"].strip())


def _log_key(key: str, value: str) -> str:
    """Tell equal keys of different sections apart: ways have a voltage, a current and a power."""
    return f"{key} W" if value.rstrip().endswith(" W") else key


def _log_reading(heading: re.Match[str], entries: Mapping[str, str], *, is_complete: bool) -> DeviceReading:
    power_w = quantity(entries.get("Total W"), WATTS)
    if power_w is None and is_complete:
        # Where output was cut off, the sum would lack ways.
        power_w = _sum([quantity(value, WATTS) for key, value in entries.items() if re.fullmatch(r"Way \d+ W", key)])
    # Which sensor is the hottest changes from call to call: "hotspot(sensor5)".
    hotspot = next((value for key, value in entries.items() if key.startswith("hotspot")), None)
    texts = {
        "pci_bus_id": heading["address"],
        "name": heading["name"],
        "temperature_c": hotspot,
        "utilization_percent": entries.get("GPU"),
        "memory_used_bytes": entries.get("vram used"),
        "memory_total_bytes": entries.get("vram total"),
        "clock_mhz": entries.get("XCORE_CLK") or entries.get("XCORE"),
    }
    return read_device(texts, power_w=power_w)


def _table_blocks(text: str) -> Iterator[str]:
    """Yield the lines about each GPU: from the one with its address to the next rule."""
    block: list[str] = []
    for line in text.splitlines():
        in_table = line.lstrip().startswith("|")
        starts = in_table and normalize_pci_address(line) is not None
        if block and (starts or not in_table):
            yield "\n".join(block)
            block = []
        if starts or block:
            block.append(line.strip())
    if block:
        yield "\n".join(block)


def _table_reading(block: str) -> DeviceReading:
    texts = {name: _first(pattern, block) for name, pattern in _TABLE_VALUES.items()}
    used = _first(_TABLE_MEMORY_USED, block)
    return read_device({**texts, "pci_bus_id": block, "memory_used_bytes": f"{used} MiB"})


def _json_reading(address: str, gpu: Mapping[str, Any]) -> DeviceReading:
    # Most numbers are strings, and some are not.
    ways = _mapping(_mapping(gpu.get("board_power")).get("power"))
    texts = {
        "pci_bus_id": address,
        "temperature_c": gpu.get("hotspot"),
        "utilization_percent": gpu.get("utilization"),
        "clock_mhz": _mapping(gpu.get("clocks")).get("XCORE"),
    }
    power_w = _sum([quantity(str(value), UNSTATED) for value in ways.values()])
    return read_device(texts, unstated=UNSTATED, power_w=power_w)


def _dmon_cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split(",")] if "," in line else line.split()


def _dmon_reading(row: Mapping[str, str], units: Mapping[str, str]) -> DeviceReading:
    texts = {name: f"{row.get(column, '')} {units.get(column, '')}" for name, column in _DMON_COLUMNS.items()}
    return read_device({**texts, "pci_bus_id": row.get("bdfid")})


def _first(pattern: re.Pattern[str], text: str) -> str | None:
    match = pattern.search(text)
    return match[1] if match else None


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _sum(values: list[float | None]) -> float | None:
    """Add up; a sum with an unknown part, or without any, is unknown."""
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None
