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

# The most complete one first; not every version has all of them.
_LAYOUTS: Final = {Query.SUMMARY: parse_log, Query.TABLE: parse_table, Query.JSON: parse_json, Query.DMON: parse_dmon}


def ask_library(*, timeout_s: float) -> DeviceReport:
    """Read everything through the library, or nothing without it; no answer in time is a ``TimeoutError``."""
    binding = open_library()
    return DeviceReport() if binding is None else call_bounded(lambda: read_library(binding), timeout_s=timeout_s)


def read_library(binding: Any) -> DeviceReport:
    """Read every board, and the versions of driver and SDK; what the initialized library refuses is unknown."""
    count = _value(lambda: binding.mxSmlGetDeviceCount()) or 0
    boards = (_value(functools.partial(_read_board, binding, index)) for index in range(count))
    maca = _value(binding.mxSmlGetMacaVersion)
    return DeviceReport(
        readings=tuple(filter(None, boards)),
        source=f"pymxsml (MACA {maca})" if maca else "pymxsml",
        driver_version=_value(lambda: binding.mxSmlGetDeviceVersion(0, binding.MXSML_VERSION_DRIVER)),
        sdk_version=maca,
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
        power_w=sum(way.power for way in ways) / 1000 if ways else None,
        temperature_c=None if centidegrees is None else centidegrees / 100,
        utilization_percent=_value(lambda: binding.mxSmlGetDeviceIpUsage(index, binding.MXSML_USAGE_XCORE)),
        memory_used_bytes=memory.vramUse * 2**10 if memory else None,
        memory_total_bytes=memory.vramTotal * 2**10 if memory else None,
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
    """Reads all boards at once, which serves for ``fresh_s`` seconds, and finds a device among them."""

    def __init__(self, *, timeout_s: float = 2.0, fresh_s: float = 0.5) -> None:
        self._timeout_s = timeout_s
        self._uses_library = True
        layouts = [(query.value, parse) for query, parse in _LAYOUTS.items()]
        self._tool = LayoutReader(TOOL, layouts, misread="the output of mx-smi is not understood", tells=_tells)
        self._shared = SharedReport(self._take, fresh_s=fresh_s)

    def sample(self, device: DeviceInfo) -> TelemetrySample:
        """Return the latest reading of a device; when there is none, the source says why."""
        report = self._shared.current()
        reading = find_board(device, report.readings)
        if reading is None:
            unlisted = f"{report.source}: {device.uuid or device.pci_bus_id or device.name} is not listed"
            return TelemetrySample(source=unlisted if report.readings else report.problem)
        source = report.source
        if device.part:
            # Memory and load of the board are also other people's.
            reading = replace(reading, utilization_percent=None, memory_used_bytes=None)
            source += ", of the whole board that this device is a slice of"
        return TelemetrySample(source=source, **reading.sensors())

    def _take(self) -> DeviceReport:
        if self._uses_library:
            try:
                report = ask_library(timeout_s=self._timeout_s)
            except TimeoutError:
                # The thread that hangs stays; another one each second must not.
                self._uses_library = False
            else:
                if _tells(report):
                    return report
        return self._tool.read(timeout_s=self._timeout_s)


def find_board(device: DeviceInfo, readings: tuple[DeviceReading, ...]) -> DeviceReading | None:
    """Return the board of a device by UUID, or by PCI address: a slice has a UUID of its own at its board's address."""
    if device.uuid is None and device.pci_bus_id is None:
        # Older builds of torch tell neither; then only the machine's single board can be meant.
        return only(readings)
    return find_reading(readings, uuid=device.uuid, pci_bus_id=device.pci_bus_id)


def _tells(report: DeviceReport) -> bool:
    # A clock alone is not worth a report.
    return any(replace(reading, clock_mhz=None).sensors() != DeviceReading().sensors() for reading in report.readings)


_sampler = Sampler()


@hookimpl
def perf_telemetry(device: DeviceInfo) -> TelemetrySample:
    """Read the board's power, temperature, utilization and memory from pymxsml or mx-smi."""
    return _sampler.sample(device)
