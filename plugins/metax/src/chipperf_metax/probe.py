"""Finds MetaX GPUs without torch.

MetaX's torch presents its devices as ``cuda``, so ``torch.cuda`` says nothing about the vendor. A GPU counts only if
the kernel lists it under MetaX's PCI vendor id and MetaX's driver has made its device node.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from chipperf import ProbedDevice, ProbeResult
from chipperf.hardware import DeviceReport, distribution_version, find_cards, only, read_text, select_visible

from chipperf_metax.mx_smi import TOOL, DeviceList, Query, parse_list, parse_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from chipperf.hardware import PciDevice

# The one that wins first. It hides the one that launchers set: left over in a shell or an image, it would silently send
# a job to other devices than it was given. So the two may not contradict each other.
VISIBLE_VARIABLES: Final = ("MACA_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES")

# "2.0.0+mc2.18.0.8", and "2.8.0+metax3.5.3.9" since 2025.
_MACA_BUILD = re.compile(r"\+(?:metax|mc)(\d[\d.]*)")

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
    cards, found = find_cards(
        root,
        lambda function: function.vendor_id == PCI_VENDOR_ID,
        called="MetaX GPU",
        criterion="has vendor id 0x9999",
    )
    driver_version = read_text(root / "sys/module/metax/version")
    if not cards:
        return ProbeResult(available=False, reason=found, driver_version=driver_version)
    obstacle = _find_obstacle(root, environment)
    if obstacle:
        return ProbeResult(available=False, reason=f"{found}, but {obstacle}", driver_version=driver_version)
    listed, source = _list_devices(timeout_s)
    if listed.unavailable and not listed.devices:
        reason = f"{found}, but mx-smi -L calls all of them unavailable ({'; '.join(listed.unavailable)}); check dmesg"
        return ProbeResult(available=False, reason=reason, driver_version=driver_version)
    table = _read_table(timeout_s) if listed.devices else DeviceReport()
    devices = _complete(listed, table) if listed.devices else _name_by_pci(cards)
    faults = "".join(f"; {fault}" for fault in listed.unavailable)
    visible, choice = _select_visible(devices, environment)
    return ProbeResult(
        available=bool(visible),
        reason=f"{len(devices)} GPU(s) by {source}{faults}{choice}; {describe_torch_build()}",
        devices=visible,
        driver_version=driver_version or table.driver_version,
    )


def built_with_maca(torch_version: str) -> str | None:
    """Return the version of MACA that a torch was built with, or ``None`` if it is no build of MetaX's."""
    match = _MACA_BUILD.search(torch_version)
    return match[1].rstrip(".") if match else None


def describe_torch_build() -> str:
    """Say whether the installed torch is MetaX's, from the metadata of its distribution."""
    version = distribution_version("torch")
    if version is None:
        return "torch is not installed here: install MetaX's build to train"
    if built_with_maca(version):
        return f"torch {version}"
    return f"torch {version} is not a MetaX build (+metax or +mc): install MetaX's to train"


def find_conflict(environment: Mapping[str, str]) -> str | None:
    """Return what is wrong with the variables and what to do, or ``None`` if they agree."""
    stale, chosen = (environment.get(name) for name in VISIBLE_VARIABLES)
    if stale is None or chosen is None or _entries(stale) == _entries(chosen):
        return None
    return (
        f"MACA_VISIBLE_DEVICES={stale!r} contradicts CUDA_VISIBLE_DEVICES={chosen!r}, and MetaX's torch would follow "
        "the first: unset MACA_VISIBLE_DEVICES to use what the launcher chose, or give both the same value"
    )


def active_choice(environment: Mapping[str, str]) -> tuple[str, str] | None:
    """Return name and value of the variable in force, or ``None`` if all devices are visible."""
    return next(((name, environment[name]) for name in VISIBLE_VARIABLES if name in environment), None)


def select(devices: Sequence[ProbedDevice], choice: str) -> tuple[ProbedDevice, ...]:
    """Return the devices that a variable's value leaves, numbered as torch numbers them.

    Args:
        devices: All devices, in the runtime's order.
        choice: Indices, or UUIDs or beginnings of such, separated by commas, as in CUDA.
    """
    visible = select_visible(choice, lambda entry: _find(devices, entry))
    return tuple(replace(device, index=index) for index, device in enumerate(visible))


def _find_obstacle(root: Path, environment: Mapping[str, str]) -> str | None:
    if any(os.path.exists(root / node) for node in _DEVICE_NODES):
        return find_conflict(environment)
    if os.path.isdir(root / "sys/module/metax"):
        return (
            "there is no /dev/mxcd although the kernel module metax is loaded; start the container with "
            "--device=/dev/mxcd --device=/dev/dri"
        )
    return "there is no /dev/mxcd and the kernel module metax is not loaded; install or load MetaX's driver"


def _list_devices(timeout_s: float) -> tuple[DeviceList, str]:
    output = TOOL.run(Query.LIST.value, timeout_s=timeout_s)
    if output.problem:
        return DeviceList(), f"PCI alone ({output.problem})"
    listed = parse_list(output.stdout)
    if not (listed.devices or listed.unavailable):
        return listed, "PCI alone (the output of mx-smi -L is not understood)"
    return listed, "mx-smi -L"


def _read_table(timeout_s: float) -> DeviceReport:
    output = TOOL.run(Query.TABLE.value, timeout_s=timeout_s)
    return DeviceReport() if output.problem else parse_table(output.stdout)


def _complete(listed: DeviceList, table: DeviceReport) -> tuple[ProbedDevice, ...]:
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


def _name_by_pci(cards: Sequence[PciDevice]) -> tuple[ProbedDevice, ...]:
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


def _find(devices: Sequence[ProbedDevice], entry: str) -> ProbedDevice | None:
    if entry.isdecimal():
        return devices[int(entry)] if int(entry) < len(devices) else None
    return only(device for device in devices if entry and device.uuid and device.uuid.startswith(entry))


def _entries(choice: str) -> list[str]:
    return [entry.strip() for entry in choice.split(",")]
