"""Finds and reads Kunlunxin's management tool, ``xpu-smi`` (``xpu_smi`` in old releases).

Intel's XPU Manager installs a tool of the same name with other options: its presence proves nothing, and an output that
does not parse is nobody's. Only options that read are ever passed; ``-r`` would reset the device.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from chipperf import ProbedDevice
from chipperf.hardware import find_tool, normalise_pci_address

_INSTALLED_IN = (Path("/opt/xre/bin"), Path("/usr/local/xpu/bin"))
_PCI_FIELD = 0
_MEMORY_TOTAL_FIELD = 18
_MODEL_FIELD = 21
# The tool writes MB and counts in units of 2**20.
_MIB = 2**20


def find_xpu_smi() -> str | None:
    """Return the path of a tool with this name, or ``None``."""
    return find_tool("xpu-smi", _INSTALLED_IN) or find_tool("xpu_smi", _INSTALLED_IN)


def parse_machine_rows(text: str) -> tuple[ProbedDevice, ...]:
    """Parse the output of ``xpu-smi -m``: one line per device, fields by position; other lines are skipped."""
    devices: list[ProbedDevice] = []
    for line in text.splitlines():
        try:
            # The model is quoted, because it may contain spaces.
            fields = shlex.split(line)
            pci_bus_id = normalise_pci_address(fields[_PCI_FIELD])
            total_bytes = int(fields[_MEMORY_TOTAL_FIELD]) * _MIB
            model = fields[_MODEL_FIELD]
        except (ValueError, IndexError):
            continue
        if pci_bus_id is not None:
            devices.append(
                ProbedDevice(index=len(devices), name=model, pci_bus_id=pci_bus_id, total_bytes=total_bytes or None)
            )
    return tuple(devices)
