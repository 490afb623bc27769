"""MetaX's management tool: where it is, what it is asked, and which devices it lists.

The tool can also reset devices, flash firmware and kill processes; so it is only ever run with a :class:`Query`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from chipperf import ProbedDevice, ToolCommand, hookimpl
from chipperf.hardware import ToolOutput, find_tool, normalize_pci_address, run_tool

# ht-smi is the same tool under the name of a white label.
_NAMES = ("mx-smi", "ht-smi")
_INSTALLED_IN = (Path("/opt/mxdriver/bin"), Path("/opt/maca/bin"))

# "GPU#0    MXC500      0000:37:00.0   Available (UUID: GPU-...)", before that "GPU 0: MXC500 (UUID: MX-...)".
_GPU_ROW = re.compile(r"^\s*GPU(?:#(?P<new>\d+)\s|\s+(?P<old>\d+):)\s*(?P<name>\S.*?)(?=\s{2,}|\s*\(|$)(?P<rest>.*)$")
# A slice follows its GPU: "  SGPU#3   25% 15.625gb   Available (UUID: GPU-...) sgpu-...".
_SLICE_ROW = re.compile(r"^\s+SGPU#\d+\s(?P<rest>.*)$")
_UUID = re.compile(r"UUID:\s*([^\s)]+)")
# Serial numbers of chip (like "AB1C23_45_6_7") and board (like "ABCD0123456789").
_SERIAL_NUMBERS = (r"\b[A-Z0-9]+(?:_\d+){3}\b", r"\b[A-Z]{4}\d{10}\b")
_NOT_AVAILABLE = re.compile(r"Not Available(?:\(([^)]*)\))?")


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


def find_mx_smi() -> str | None:
    """Return the tool's path, or ``None`` if it is not installed."""
    return next(filter(None, (find_tool(name, _INSTALLED_IN) for name in _NAMES)), None)


@hookimpl
def perf_tool_commands() -> tuple[ToolCommand, ...]:
    """List every call of mx-smi that this plugin makes."""
    tool = find_mx_smi() or "mx-smi"
    return tuple(
        ToolCommand(name=f"mx-smi-{query.name.lower()}", argv=(tool, *query.value), private_patterns=_SERIAL_NUMBERS)
        for query in Query
    )


def ask(query: Query, *, timeout_s: float) -> ToolOutput:
    """Run the tool.

    Args:
        query: What to ask.
        timeout_s: How long it may take.
    """
    tool = find_mx_smi()
    if tool is None:
        return ToolOutput(problem="mx-smi is not installed")
    output = run_tool([tool, *query.value], timeout_s=timeout_s)
    # Records quote the problem, and where the tool is installed is no part of it.
    return replace(output, problem=output.problem and output.problem.replace(tool, Path(tool).name))


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
            devices.append(replace(gpu, uuid=_uuid(slice_row["rest"])))
    numbered = (replace(device, index=index) for index, device in enumerate(devices))
    return DeviceList(devices=tuple(numbered), sliced=frozenset(sliced), unavailable=tuple(unavailable))


def _gpu(row: re.Match[str]) -> ProbedDevice | None:
    if _NOT_AVAILABLE.search(row["rest"]):
        return None
    return ProbedDevice(
        index=int(row["new"] or row["old"]),
        name=row["name"],
        uuid=_uuid(row["rest"]),
        pci_bus_id=normalize_pci_address(row["rest"]),
    )


def _uuid(text: str) -> str | None:
    match = _UUID.search(text)
    return match[1] if match else None
