"""Finds and reads MetaX's management tool, ``mx-smi``.

Only options that read are ever passed: the tool also has ones that reset devices and kill processes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from chipperf import ProbedDevice
from chipperf.hardware import find_tool, normalise_pci_address

_INSTALLED_IN = (Path("/opt/mxdriver/bin"), Path("/opt/maca/bin"))
# "GPU#0    MXC500      0000:37:00.0   Available (UUID: GPU-...)", before that "GPU 0: MXC500 (UUID: MX-...)". Slices of
# a shared GPU follow theirs as indented SGPU rows.
_GPU_ROW = re.compile(r"^\s*GPU(?:#(?P<new>\d+)\s|\s+(?P<old>\d+):)\s*(?P<name>\S.*?)(?=\s{2,}|\s*\(|$)(?P<rest>.*)$")
_UUID = re.compile(r"UUID:\s*([^\s)]+)")
_NOT_AVAILABLE = re.compile(r"Not Available(?:\(([^)]*)\))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceList:
    """What ``mx-smi -L`` lists.

    Attributes:
        devices: GPUs that can be used.
        unavailable: One message for each GPU the tool marks as not available, with its index.
    """

    devices: tuple[ProbedDevice, ...]
    unavailable: tuple[str, ...]


def find_mx_smi() -> str | None:
    """Return the tool's path, or ``None`` if it is not installed."""
    return find_tool("mx-smi", _INSTALLED_IN)


def parse_list(text: str) -> DeviceList:
    """Parse the output of ``mx-smi -L`` in its two known layouts; lines of any other form are skipped."""
    devices = []
    unavailable = []
    for row in filter(None, map(_GPU_ROW.match, text.splitlines())):
        index = int(row["new"] or row["old"])
        missing = _NOT_AVAILABLE.search(row.string)
        if missing:
            unavailable.append(f"GPU {index}: {missing[1] or 'not available'}")
            continue
        uuid = _UUID.search(row["rest"])
        devices.append(
            ProbedDevice(
                index=index,
                name=row["name"],
                uuid=uuid[1] if uuid else None,
                pci_bus_id=normalise_pci_address(row["rest"]),
            )
        )
    return DeviceList(devices=tuple(devices), unavailable=tuple(unavailable))
