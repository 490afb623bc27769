"""MetaX's management library through its Python binding ``pymxsml``, which comes with the SDK and not from PyPI.

Units are those of the binding's structures: memory in KiB, power in mW per supply way, temperature in 0.01 °C.
"""

from __future__ import annotations

import functools
import importlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from chipperf.hardware import DeviceReading, call_bounded, normalize_pci_address

from chipperf_metax.mx_smi_reports import Report

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_KIB = 2**10
_MILLI = 1e-3
_CENTI = 1e-2


class ManagementLibrary:
    """The initialized library.

    Args:
        binding: The module ``pymxsml``, initialized.
    """

    def __init__(self, binding: Any) -> None:
        self._binding = binding

    def report(self) -> Report:
        """Read every board, and the versions of driver and SDK; what the library refuses is unknown."""
        binding = self._binding
        count = _value(binding.mxSmlGetDeviceCount) or 0
        boards = (self._reading(index) for index in range(count))
        return Report(
            readings=tuple(board for board in boards if board is not None),
            driver_version=_value(lambda: binding.mxSmlGetDeviceVersion(0, binding.MXSML_VERSION_DRIVER)),
            maca_version=_value(binding.mxSmlGetMacaVersion),
        )

    def _reading(self, index: int) -> DeviceReading | None:
        binding = self._binding
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
def open_library(timeout_s: float = 2.0) -> ManagementLibrary | None:
    """Return the library, initialized once per process; ``None`` if it is missing, fails or does not answer.

    Args:
        timeout_s: How long its initialization may take.
    """
    # Whatever a foreign binding does wrong on import or start means that it is not there.
    with suppress(Exception):
        binding = importlib.import_module("pymxsml")
        call_bounded(binding.mxSmlInit, timeout_s=timeout_s)
        return ManagementLibrary(binding)
    return None


def _value(query: Callable[[], T]) -> T | None:
    # The library raises for each quantity that a board, its firmware or a container's permissions do not offer.
    try:
        return query()
    except Exception:
        return None
