"""Readings of a device while it trains: from MetaX's library if it is installed, else from its tool.

The library is used through its Python binding ``pymxsml``, which comes with the SDK and not from PyPI. Units are those
of the binding's structures: memory in KiB, power in mW per supply way, temperature in 0.01 °C.
"""

from __future__ import annotations

import functools
import importlib
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from chipperf import TelemetrySample, hookimpl
from chipperf.hardware import (
    DeviceReading,
    DeviceReport,
    LayoutReader,
    SharedReport,
    call_bounded,
    find_reading,
    normalize_pci_address,
    only,
)

from chipperf_metax.mx_smi import TOOL, Query, parse_dmon, parse_json, parse_log, parse_table

if TYPE_CHECKING:
    from collections.abc import Callable

    from chipperf import DeviceInfo

T = TypeVar("T")

_KIB = 2**10
_MILLI = 1e-3
_CENTI = 1e-2

# The most complete one first; not every version has all of them.
_LAYOUTS: Final = (
    (Query.SUMMARY.value, parse_log),
    (Query.TABLE.value, parse_table),
    (Query.JSON.value, parse_json),
    (Query.DMON.value, parse_dmon),
)

# torch sees more than 99 % of a whole board.
_WHOLE_BOARD: Final = 0.9


def read_library(binding: Any) -> DeviceReport:
    """Read every board, and the versions of driver and SDK; what the initialized library refuses is unknown."""
    count = _value(binding.mxSmlGetDeviceCount) or 0
    boards = (_read_board(binding, index) for index in range(count))
    return DeviceReport(
        readings=tuple(board for board in boards if board is not None),
        driver_version=_value(lambda: binding.mxSmlGetDeviceVersion(0, binding.MXSML_VERSION_DRIVER)),
        sdk_version=_value(binding.mxSmlGetMacaVersion),
    )


def _read_board(binding: Any, index: int) -> DeviceReading | None:
    info = _value(lambda: binding.mxSmlGetDeviceInfo(index))
    # A board that is divided among virtual machines computes nothing itself.
    if info is None or info.mode == binding.MXSML_VIRTUALIZATION_MODE_PF:
        return None
    memory = _value(lambda: binding.mxSmlGetMemoryInfo(index))
    ways = _value(lambda: binding.mxSmlGetBoardPowerInfo(index))
    centidegrees = _value(lambda: binding.mxSmlGetTemperatureInfo(index, binding.MXSML_TEMPERATURE_HOTSPOT))
    return DeviceReading(
        pci_bus_id=normalize_pci_address(info.bdfId),
        uuid=info.uuid or None,
        name=info.deviceName,
        power_w=sum(way.power for way in ways) * _MILLI if ways else None,
        temperature_c=None if centidegrees is None else centidegrees * _CENTI,
        utilization_percent=_value(lambda: binding.mxSmlGetDeviceIpUsage(index, binding.MXSML_USAGE_XCORE)),
        memory_used_bytes=memory.vramUse * _KIB if memory else None,
        memory_total_bytes=memory.vramTotal * _KIB if memory else None,
    )


@functools.cache
def open_library(timeout_s: float = 2.0) -> Any:
    """Return ``pymxsml``, initialized once per process; ``None`` if it is missing, fails or does not answer."""
    # Whatever a foreign binding does wrong on import or start means that it is not there.
    with suppress(Exception):
        binding = importlib.import_module("pymxsml")
        call_bounded(binding.mxSmlInit, timeout_s=timeout_s)
        return binding
    return None


def _value(query: Callable[[], T]) -> T | None:
    # The library raises for each quantity that a board, its firmware or a container's permissions do not offer.
    try:
        return query()
    except Exception:
        return None


class Sampler:
    """Reads all boards at once and finds a device among them.

    Args:
        timeout_s: How long the library, and the tool, may take.
        fresh_s: How long one reading of all boards serves.
    """

    def __init__(self, *, timeout_s: float = 2.0, fresh_s: float = 0.5) -> None:
        self._timeout_s = timeout_s
        self._uses_library = True
        self._tool = LayoutReader(TOOL, _LAYOUTS, misread="the output of mx-smi is not understood", tells=_tells)
        self._shared = SharedReport(self._take, fresh_s=fresh_s)

    def sample(self, device: DeviceInfo) -> TelemetrySample:
        """Return the latest reading of a device; when there is none, the source says why."""
        report = self._shared.current()
        reading = find_board(device, report.readings)
        if reading is None:
            unlisted = f"{report.source}: {device.uuid or device.pci_bus_id or device.name} is not listed"
            return TelemetrySample(source=unlisted if report.readings else report.problem)
        if is_slice(device, reading):
            # Memory and load of the board are also other people's.
            own = replace(reading, utilization_percent=None, memory_used_bytes=None)
            source = f"{report.source}, of the whole board that this device is a slice of"
            return TelemetrySample(source=source, **own.sensors())
        return TelemetrySample(source=report.source, **reading.sensors())

    def _take(self) -> DeviceReport:
        return self._ask_library() or self._tool.read(timeout_s=self._timeout_s)

    def _ask_library(self) -> DeviceReport | None:
        library = open_library() if self._uses_library else None
        if library is None:
            return None
        try:
            report = call_bounded(lambda: read_library(library), timeout_s=self._timeout_s)
        except TimeoutError:
            # The thread that hangs stays; another one each second must not.
            self._uses_library = False
            return None
        source = f"pymxsml (MACA {report.sdk_version})" if report.sdk_version else "pymxsml"
        return replace(report, source=source) if _tells(report) else None


def find_board(device: DeviceInfo, readings: tuple[DeviceReading, ...]) -> DeviceReading | None:
    """Return the board of a device by UUID, or by PCI address: a slice has a UUID of its own at its board's address.

    Older builds of torch tell neither; then only the machine's single board can be meant.
    """
    if device.uuid is None and device.pci_bus_id is None:
        return only(readings)
    return find_reading(readings, uuid=device.uuid, pci_bus_id=device.pci_bus_id)


def is_slice(device: DeviceInfo, board: DeviceReading) -> bool:
    """Return True if the device is a part of the board, whose memory and load are then also other people's."""
    if device.total_bytes is None or board.memory_total_bytes is None:
        return False
    return device.total_bytes < _WHOLE_BOARD * board.memory_total_bytes


def _tells(report: DeviceReport) -> bool:
    return any(
        value is not None
        for reading in report.readings
        for name, value in reading.sensors().items()
        if name != "clock_mhz"
    )


_sampler = Sampler()


@hookimpl
def perf_telemetry(device: DeviceInfo) -> TelemetrySample:
    """Read the board's power, temperature, utilization and memory from pymxsml or mx-smi."""
    return _sampler.sample(device)
