"""Finds and runs Kunlunxin's management tool, ``xpu-smi`` (``xpu_smi`` in old releases).

Intel's XPU Manager installs a tool of the same name with other options: its presence proves nothing, and an output that
does not parse is nobody's. Only options that read are ever passed; ``-r`` would reset the device.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from chipperf.hardware import find_tool, run_tool

from chipperf_kunlunxin.xpu_smi_query import XpuQuery, parse_list, parse_query
from chipperf_kunlunxin.xpu_smi_rows import parse_machine_rows
from chipperf_kunlunxin.xpu_smi_tables import parse_tables

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chipperf_kunlunxin.xpu_reading import XpuReading

_INSTALLED_IN: Final = (Path("/opt/xre/bin"), Path("/usr/local/xpu/bin"))

_LAYOUTS: Final[tuple[tuple[tuple[str, ...], Callable[[str], tuple[XpuReading, ...]]], ...]] = (
    (("-m",), parse_machine_rows),
    ((), parse_tables),
    (("-L",), parse_list),
)
"""Options and parser of each layout, the most exact one first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What the tool says of all devices.

    Attributes:
        readings: The devices, in the tool's order; none if the tool is of no help.
        source: The call they come from, for example ``xpu-smi -m``.
        problem: Why there are no readings.
    """

    readings: tuple[XpuReading, ...] = ()
    source: str = ""
    problem: str = ""


def find_xpu_smi() -> str | None:
    """Return the path of a tool with this name, or ``None``."""
    return find_tool("xpu-smi", _INSTALLED_IN) or find_tool("xpu_smi", _INSTALLED_IN)


def survey_devices(*, timeout_s: float) -> Survey:
    """Read all devices in the first layout that the installed tool has.

    Args:
        timeout_s: Time for all calls together. A tool that hangs is not called again.
    """
    tool = find_xpu_smi()
    if tool is None:
        return Survey(problem="xpu-smi is not installed")
    deadline_s = time.monotonic() + timeout_s
    problem = ""
    for options, parse in _LAYOUTS:
        remaining_s = deadline_s - time.monotonic()
        if remaining_s <= 0:
            break
        output = run_tool([tool, *options], timeout_s=remaining_s)
        readings = () if output.problem else parse(output.stdout)
        if readings:
            return Survey(readings=readings, source=" ".join((Path(tool).name, *options)))
        problem = problem or output.problem or f"the output of {' '.join((tool, *options))} is not Kunlunxin's"
    return Survey(problem=problem)


def query_devices(*, timeout_s: float) -> XpuQuery:
    """Ask ``xpu-smi -q`` for versions and identities; nothing is known where it does not answer."""
    tool = find_xpu_smi()
    output = run_tool([tool, "-q"], timeout_s=timeout_s) if tool else None
    return parse_query(output.stdout) if output and not output.problem else XpuQuery()


def identify_devices(*, timeout_s: float) -> tuple[Survey, XpuQuery]:
    """Read all devices together with what only ``xpu-smi -q`` tells: their UUIDs, and the versions.

    Args:
        timeout_s: Time for each of the two.
    """
    survey = survey_devices(timeout_s=timeout_s)
    if not survey.readings:
        return survey, XpuQuery()
    query = query_devices(timeout_s=timeout_s)
    return replace(survey, readings=with_identities(survey.readings, query.readings)), query


def with_identities(readings: Sequence[XpuReading], identities: Sequence[XpuReading]) -> tuple[XpuReading, ...]:
    """Return the readings, each with what its address has in ``identities``.

    The two devices of a K200 share one address, which then identifies neither.
    """
    count = Counter(reading.pci_bus_id for reading in readings)
    by_address = {identity.pci_bus_id: identity for identity in identities}
    return tuple(
        reading.identified_by(by_address.get(reading.pci_bus_id, reading))
        if count[reading.pci_bus_id] == 1
        else reading
        for reading in readings
    )


def find_reading(readings: Sequence[XpuReading], *, uuid: str | None, pci_bus_id: str | None) -> XpuReading | None:
    """Return the reading of the device with this UUID, or else at this address; ``None`` unless it is exactly one."""
    matches = [reading for reading in readings if uuid and reading.uuid == uuid]
    matches = matches or [reading for reading in readings if pci_bus_id and reading.pci_bus_id == pci_bus_id]
    return matches[0] if len(matches) == 1 else None
