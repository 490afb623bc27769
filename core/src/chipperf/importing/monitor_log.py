"""Reading logs of FlagPerf's device monitors: every few seconds a time and the output of the vendor's tool.

The formats of the tools differ between vendors and versions, and FlagPerf's scripts copy columns by number. All formats
have a unit after a number, so this module recognizes values by their unit.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Final

from chipperf.documents.markdown import Located, Place, one_line
from chipperf.records.schema import UNKNOWN, Memory, Missing, Power

MAX_LISTED_LINES: Final = 20
"""Largest number of lines listed as not understood, because a failing tool prints its message every few seconds."""

_TIME: Final = re.compile(r"\d{4}-\d\d-\d\d-\d\d:\d\d:\d\d")
_TIME_FORMAT: Final = "%Y-%m-%d-%H:%M:%S"
_TEMPERATURE: Final = re.compile(r"(?<![\w.])(\d{1,3}(?:\.\d+)?)\s?C(?!\w)")
_POWER: Final = re.compile(r"(?<![\w.])(\d{1,5}(?:\.\d+)?)\s?W(?!\w)")
_MEMORY: Final = re.compile(r"(?<![\w.])(\d{1,9})\s*(?:Mi?B)?\s*[/\s]\s*(\d{1,9})\s*Mi?B")
_UTILIZATION: Final = re.compile(r"(?<![\w.])(\d{1,3}(?:\.\d+)?)\s?%")
_TABLE_LINE: Final = re.compile(r"\s*[|+=-]")
_MIB: Final = 2**20


@dataclass(slots=True)
class _Reading:
    """The values of all devices at one time. Each list has the order of the devices."""

    seconds: float
    temperatures_c: list[float] = field(default_factory=list)
    powers_w: list[float] = field(default_factory=list)
    used_bytes: list[int] = field(default_factory=list)
    totals_bytes: list[int] = field(default_factory=list)
    utilizations_percent: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class MonitorLog:
    """Telemetry and memory from a log, the place of the highest memory use, and lines without data.

    ``first_s`` and ``last_s`` are the times of the readings in seconds since 1970, if the clock is in this time zone.
    """

    power: Power
    memory: Memory | Missing
    peak_place: Place | None
    not_understood: tuple[Located, ...]
    first_s: float
    last_s: float


def read_monitor_log(text: str, source: str) -> MonitorLog | None:
    """Return the content of a device monitor's log, or ``None`` if it has no reading of a device.

    The memory is the highest reading of any device, as the tool printed it, because reports contain this number. The
    memory that was in use before the run is not subtracted. ``source`` is the log's name in the record.
    """
    readings: list[_Reading] = []
    unknown: list[Located] = []
    peak, peak_place = -1, None
    for number, line in enumerate(text.splitlines(), start=1):
        if _TIME.fullmatch(line.strip()):
            if (seconds := _seconds(line.strip())) is not None:
                readings.append(_Reading(seconds))
            continue
        if not readings or not line.strip():
            continue
        found = _take(line, readings[-1])
        if not found and not _TABLE_LINE.match(line) and len(unknown) < MAX_LISTED_LINES:
            unknown.append(Located(one_line(line)[:200], Place(number, 1)))
        if (match := _MEMORY.search(line)) and int(match[1]) > peak:
            peak, peak_place = int(match[1]), Place(number, match.start() + 1)
    readings = [reading for reading in readings if reading.powers_w or reading.used_bytes]
    if not readings:
        return None
    times = [reading.seconds for reading in readings]
    power, memory = _power(readings, source), _memory(readings, source)
    return MonitorLog(power, memory, peak_place, tuple(unknown), min(times), max(times))


def _seconds(stamp: str) -> float | None:
    try:
        return datetime.strptime(stamp, _TIME_FORMAT).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def _take(line: str, reading: _Reading) -> bool:
    """Add the values in a line to a reading, and return whether there are any."""
    temperature, power, memory = _TEMPERATURE.search(line), _POWER.search(line), _MEMORY.search(line)
    utilizations = _UTILIZATION.findall(line)
    if temperature:
        reading.temperatures_c.append(float(temperature[1]))
    if power:
        # A second number in watts in the same line is the power limit.
        reading.powers_w.append(float(power[1]))
    if memory and int(memory[2]) > 0:
        reading.used_bytes.append(int(memory[1]) * _MIB)
        reading.totals_bytes.append(int(memory[2]) * _MIB)
    if utilizations:
        reading.utilizations_percent.append(float(utilizations[-1]))
    return bool(temperature or power or memory or utilizations)


def _power(readings: Sequence[_Reading], source: str) -> Power:
    def reduce(function: Callable[[list[float]], float], name: str) -> float | Missing:
        values = [value for reading in readings for value in getattr(reading, name)]
        return function(values) if values else UNKNOWN

    return Power(
        samples=len(readings),
        mean_w=reduce(statistics.fmean, "powers_w"),
        max_w=reduce(max, "powers_w"),
        energy_j=_energy_j(readings),
        mean_temperature_c=reduce(statistics.fmean, "temperatures_c"),
        max_temperature_c=reduce(max, "temperatures_c"),
        mean_utilization_percent=reduce(statistics.fmean, "utilizations_percent"),
        used_peak_bytes=UNKNOWN,
        source=source,
    )


def _energy_j(readings: Sequence[_Reading]) -> float | Missing:
    """Return the integral of the power over all devices; unknown if a device is missing in a reading."""
    if len(readings) < 2 or len({len(reading.powers_w) for reading in readings}) > 1:
        return UNKNOWN
    return sum(
        (later.seconds - earlier.seconds) * (sum(earlier.powers_w) + sum(later.powers_w)) / 2
        for earlier, later in pairwise(readings)
    )


def _memory(readings: Sequence[_Reading], source: str) -> Memory | Missing:
    used = [value for reading in readings for value in reading.used_bytes]
    if not used:
        return UNKNOWN
    return Memory(
        allocated_peak_bytes=UNKNOWN,
        reserved_peak_bytes=UNKNOWN,
        device_peak_bytes=max(used),
        total_bytes=max(value for reading in readings for value in reading.totals_bytes),
        allocator_source="",
        device_source=source,
    )
