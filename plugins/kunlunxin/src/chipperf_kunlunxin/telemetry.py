"""Telemetry of one device, from the tool's readings of all."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from chipperf import TelemetrySample

from chipperf_kunlunxin.xpu_smi import Survey, find_reading, query_devices, survey_devices, with_identities

if TYPE_CHECKING:
    from chipperf import DeviceInfo

    from chipperf_kunlunxin.xpu_smi_query import XpuQuery

# The devices of a machine are asked about one after the other: one call of the tool serves them all.
_SHARED_FOR_S: Final = 0.5


class TelemetryReader:
    """Reads devices for as long as a process lives.

    Args:
        timeout_s: Time a call of the tool may take.
    """

    def __init__(self, *, timeout_s: float = 2.0) -> None:
        self._timeout_s = timeout_s
        self._query: XpuQuery | None = None
        self._survey = Survey()
        self._surveyed_s = float("-inf")

    def sample(self, device: DeviceInfo) -> TelemetrySample:
        """Return the device's values; none of them is known if the tool does not list it, and ``source`` says why."""
        survey = self._current_survey()
        reading = find_reading(survey.readings, uuid=device.uuid, pci_bus_id=device.pci_bus_id)
        if reading is None:
            which = device.uuid or device.pci_bus_id or f"{device.name} #{device.index}"
            return TelemetrySample(source=survey.problem or f"{survey.source}, which does not identify {which}")
        return TelemetrySample(
            source=self._source(survey),
            power_w=reading.power_w,
            temperature_c=reading.temperature_c,
            utilisation_percent=reading.utilisation_percent,
            memory_used_bytes=reading.memory_used_bytes,
            clock_mhz=reading.clock_mhz,
        )

    def _current_survey(self) -> Survey:
        if time.monotonic() - self._surveyed_s > _SHARED_FOR_S:
            survey = survey_devices(timeout_s=self._timeout_s)
            if survey.readings:
                self._query = self._query or query_devices(timeout_s=self._timeout_s)
                survey = replace(survey, readings=with_identities(survey.readings, self._query.readings))
            self._survey, self._surveyed_s = survey, time.monotonic()
        return self._survey

    def _source(self, survey: Survey) -> str:
        version = self._query.runtime_version if self._query else None
        return f"{survey.source} (XPU-RT {version})" if version else survey.source
