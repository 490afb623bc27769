"""Finds MetaX GPUs without torch.

MetaX's torch presents its devices as ``cuda``, so ``torch.cuda`` says nothing about the vendor. A GPU counts only if
the kernel lists it under MetaX's PCI vendor id and MetaX's driver has made its device node.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from chipperf import ProbedDevice, ProbeResult
from chipperf.hardware import find_pci_devices, read_text

from chipperf_metax.mx_smi import DeviceList, Query, ask, parse_list
from chipperf_metax.mx_smi_reports import Report, parse_table
from chipperf_metax.torch_build import describe_torch_build
from chipperf_metax.visible_devices import active_choice, find_conflict, select

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chipperf.hardware import PciDevice

PCI_VENDOR_ID = 0x9999

# The second one belongs to the white label whose tool is ht-smi.
_DEVICE_NODES = ("dev/mxcd", "dev/htcd")


def probe(
    root: Path = Path("/"), *, environment: Mapping[str, str] = os.environ, timeout_s: float = 3.5
) -> ProbeResult:
    """Find the visible GPUs of the machine whose file system starts at ``root``.

    Args:
        root: Directory that holds ``sys`` and ``dev``.
        environment: Variables that restrict the visible devices.
        timeout_s: How long one call of ``mx-smi`` may take; there are two at most.

    Returns:
        The GPUs that torch will see, in its order; or what was looked for and what to do.
    """
    pci_root = root / "sys/bus/pci/devices"
    functions = find_pci_devices(pci_root)
    cards = [function for function in functions if function.vendor_id == PCI_VENDOR_ID]
    driver_version = read_text(root / "sys/module/metax/version")
    if not cards:
        reason = (
            f"no MetaX GPU: none of the {len(functions)} PCI devices under {pci_root} has vendor id 0x9999; "
            "check that the card is powered, seated and passed to this machine"
        )
        return ProbeResult(available=False, reason=reason, driver_version=driver_version)
    found = f"PCI lists MetaX devices at {', '.join(card.address for card in cards)}"
    obstacle = _find_obstacle(root, environment)
    if obstacle:
        return ProbeResult(available=False, reason=f"{found}, but {obstacle}", driver_version=driver_version)
    listed, source = _list_devices(timeout_s)
    if listed.unavailable and not listed.devices:
        reason = f"{found}, but mx-smi -L calls all of them unavailable ({'; '.join(listed.unavailable)}); check dmesg"
        return ProbeResult(available=False, reason=reason, driver_version=driver_version)
    table = _read_table(timeout_s) if listed.devices else Report()
    devices = _complete(listed, table) if listed.devices else _name_by_pci(cards)
    faults = "".join(f"; {fault}" for fault in listed.unavailable)
    visible, choice = _select_visible(devices, environment)
    return ProbeResult(
        available=bool(visible),
        reason=f"{len(devices)} GPU(s) by {source}{faults}{choice}; {describe_torch_build()}",
        devices=visible,
        driver_version=driver_version or table.driver_version,
    )


def _find_obstacle(root: Path, environment: Mapping[str, str]) -> str | None:
    if not any(os.path.exists(root / node) for node in _DEVICE_NODES):
        return _explain_missing_node(root)
    return find_conflict(environment)


def _explain_missing_node(root: Path) -> str:
    if os.path.isdir(root / "sys/module/metax"):
        return (
            "there is no /dev/mxcd although the kernel module metax is loaded; start the container with "
            "--device=/dev/mxcd --device=/dev/dri"
        )
    return "there is no /dev/mxcd and the kernel module metax is not loaded; install or load MetaX's driver"


def _list_devices(timeout_s: float) -> tuple[DeviceList, str]:
    output = ask(Query.LIST, timeout_s=timeout_s)
    if output.problem:
        return DeviceList(), f"PCI alone ({output.problem})"
    listed = parse_list(output.stdout)
    if not (listed.devices or listed.unavailable):
        return listed, "PCI alone (the output of mx-smi -L is not understood)"
    return listed, "mx-smi -L"


def _read_table(timeout_s: float) -> Report:
    output = ask(Query.TABLE, timeout_s=timeout_s)
    return Report() if output.problem else parse_table(output.stdout)


def _complete(listed: DeviceList, table: Report) -> tuple[ProbedDevice, ...]:
    """Add to the listed devices what the table knows of their boards: the name that torch gives them, and the memory.

    ``-L`` names the chip and not the product. How much of a board a slice may use is not what the tool calls its quota.
    """
    boards = {board.pci_bus_id: board for board in table.readings if board.pci_bus_id}
    devices = []
    for device in listed.devices:
        board = boards.get(device.pci_bus_id or "")
        if board:
            total_bytes = None if device.pci_bus_id in listed.sliced else board.memory_total_bytes
            device = replace(device, name=board.name or device.name, total_bytes=total_bytes)
        devices.append(device)
    return tuple(devices)


def _name_by_pci(cards: list[PciDevice]) -> tuple[ProbedDevice, ...]:
    return tuple(
        ProbedDevice(index=index, name=f"MetaX device {card.device_id:04x}", pci_bus_id=card.address)
        for index, card in enumerate(cards)
    )


def _select_visible(
    devices: tuple[ProbedDevice, ...], environment: Mapping[str, str]
) -> tuple[tuple[ProbedDevice, ...], str]:
    """Return the visible devices, and words about the choice if there is one."""
    active = active_choice(environment)
    if active is None:
        return devices, ""
    name, value = active
    visible = select(devices, value)
    return visible, f", of which {name}={value!r} leaves {len(visible) or 'none'}"
