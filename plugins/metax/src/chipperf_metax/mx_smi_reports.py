"""Parsers of what ``mx-smi`` prints about the state of devices.

Layouts differ from version to version, so values are recognized by their names and units and never by their column.
A parser never raises: what it does not recognize is unknown.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chipperf.hardware import (
    BYTES,
    CELSIUS,
    MEGAHERTZ,
    PERCENT,
    UNSTATED,
    WATTS,
    DeviceReading,
    normalize_pci_address,
    quantity,
    whole,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_TOOL_VERSION = re.compile(r"^\s*[a-z]+-smi\s+version:\s*(\S+)", re.MULTILINE)
_LOG_GPU = re.compile(r"^GPU#\d+\s+(?P<name>\S.*?)\s+(?P<address>[0-9A-Fa-f:]+\.[0-7])\s*$")
_LOG_ENTRY = re.compile(r"^\s+(?P<key>\S.*?)\s*: (?P<value>.*)$")

_LOG_END = "End of Log"

_TABLE_TOOL = re.compile(r"\b[A-Z]{2}-SMI\s+(\d\S*)")
_TABLE_DRIVER = re.compile(r"Kernel Mode Driver Version:\s*(\d\S*)")
_TABLE_SDK = re.compile(r"\b(?:MACA|HPCC) Version:\s*(\d\S*)")
_TABLE_NAME = re.compile(r"^\|\s*\d+\s+([^\s|]+(?: [^\s|]+)*)")
_TABLE_TEMPERATURE = re.compile(r"(?<!\S)(\d+C)(?!\S)")
# "56W", or "53W / 450W" with the limit behind the stroke.
_TABLE_POWER = re.compile(r"(?<!\S)(?<!/ )(\d+W)(?=\s|/|$)")
_TABLE_MEMORY = re.compile(r"(\d+)/(\d+) (MiB)")
_TABLE_USAGE = re.compile(r"(?<!\S)(\d+%)(?!\S)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One output of the tool.

    Attributes:
        readings: One per GPU.
        tool_version: Version of the tool itself, which is not the driver's.
        driver_version: Version of the kernel-mode driver (KMD).
        maca_version: Version of the installed SDK, MACA.
    """

    readings: tuple[DeviceReading, ...] = ()
    tool_version: str | None = None
    driver_version: str | None = None
    maca_version: str | None = None


def parse_log(text: str) -> Report:
    """Parse what ``--summary`` or any of ``--show-memory``, ``--show-version`` and the like prints: named values."""
    gpus = list(_log_gpus(text))
    is_complete = _LOG_END in text
    entries = gpus[0][1] if gpus else {}
    return Report(
        readings=tuple(_log_reading(heading, values, is_complete=is_complete) for heading, values in gpus),
        tool_version=_first(_TOOL_VERSION, text),
        driver_version=entries.get("KMD"),
        maca_version=entries.get("MACA"),
    )


def parse_table(text: str) -> Report:
    """Parse the table that ``mx-smi`` prints without options, in all of its known layouts."""
    return Report(
        readings=tuple(map(_table_reading, _table_blocks(text))),
        tool_version=_first(_TABLE_TOOL, text) or _first(_TOOL_VERSION, text),
        driver_version=_first(_TABLE_DRIVER, text),
        maca_version=_first(_TABLE_SDK, text),
    )


def parse_json(text: str) -> Report:
    """Parse the output of ``-j``: a line of text, then a JSON object; it says nothing about memory."""
    _, brace, rest = text.partition("{")
    try:
        content: dict[str, Any] = json.JSONDecoder().raw_decode(brace + rest)[0]
    except ValueError:
        return Report()
    return Report(
        readings=tuple(
            _json_reading(address, gpu)
            for address, gpu in content.items()
            if isinstance(gpu, dict) and normalize_pci_address(address) and not gpu.get("unavailable_reason")
        ),
        tool_version=_text(content.get("smi_version")),
        driver_version=_text(content.get("driver_version")),
        maca_version=_text(content.get("maca_version")),
    )


def parse_dmon(text: str) -> Report:
    """Parse one interval of ``dmon``, in columns or as CSV; memory in use is left out, because it is in percent only.

    The first row names the columns, the second their units. Only with ``--show-bdf`` do the rows say which GPU it is.
    """
    rows = [row for row in map(_dmon_cells, text.splitlines()) if row]
    for first, names in enumerate(rows):
        if "hottemp" in names and "power" in names and first + 1 < len(rows):
            units = dict(zip(names, rows[first + 1], strict=False))
            data = [row for row in rows[first + 2 :] if len(row) == len(names)]
            return Report(readings=tuple(_dmon_reading(dict(zip(names, row, strict=True)), units) for row in data))
    return Report()


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
    return DeviceReading(
        pci_bus_id=normalize_pci_address(heading["address"]),
        name=heading["name"],
        power_w=power_w,
        temperature_c=quantity(hotspot, CELSIUS),
        utilization_percent=quantity(entries.get("GPU"), PERCENT),
        memory_used_bytes=whole(quantity(entries.get("vram used"), BYTES)),
        memory_total_bytes=whole(quantity(entries.get("vram total"), BYTES)),
        clock_mhz=quantity(entries.get("XCORE_CLK") or entries.get("XCORE"), MEGAHERTZ),
    )


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
    memory = _TABLE_MEMORY.search(block)
    return DeviceReading(
        pci_bus_id=normalize_pci_address(block),
        name=_first(_TABLE_NAME, block),
        power_w=quantity(_first(_TABLE_POWER, block), WATTS),
        temperature_c=quantity(_first(_TABLE_TEMPERATURE, block), CELSIUS),
        utilization_percent=quantity(_first(_TABLE_USAGE, block), PERCENT),
        memory_used_bytes=whole(quantity(f"{memory[1]} {memory[3]}", BYTES)) if memory else None,
        memory_total_bytes=whole(quantity(f"{memory[2]} {memory[3]}", BYTES)) if memory else None,
    )


def _json_reading(address: str, gpu: Mapping[str, Any]) -> DeviceReading:
    # Most numbers are strings, and some are not.
    ways = _mapping(_mapping(gpu.get("board_power")).get("power"))
    return DeviceReading(
        pci_bus_id=normalize_pci_address(address),
        power_w=_sum([quantity(str(value), UNSTATED) for value in ways.values()]),
        temperature_c=quantity(str(gpu.get("hotspot")), UNSTATED),
        utilization_percent=quantity(str(gpu.get("utilization")), {**UNSTATED, **PERCENT}),
        clock_mhz=quantity(str(_mapping(gpu.get("clocks")).get("XCORE")), UNSTATED),
    )


def _dmon_cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split(",")] if "," in line else line.split()


def _dmon_reading(row: Mapping[str, str], units: Mapping[str, str]) -> DeviceReading:
    def cell(name: str, accepted: Mapping[str, float]) -> float | None:
        return quantity(f"{row.get(name, '')} {units.get(name, '')}", accepted)

    return DeviceReading(
        pci_bus_id=normalize_pci_address(row.get("bdfid", "")),
        power_w=cell("power", WATTS),
        temperature_c=cell("hottemp", CELSIUS),
        utilization_percent=cell("gpu", PERCENT),
        memory_total_bytes=whole(cell("total", BYTES)),
    )


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
