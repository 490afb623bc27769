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
from chipperf.hardware import DeviceReport, distribution_version, only, probe_cards, read_text, select_visible

from chipperf_metax.mx_smi import TOOL, DeviceList, Query, parse_list, parse_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from chipperf.hardware import PciDevice

# The one that wins first. It hides the one that launchers set: left over in a shell or an image, it would silently send
# a job to other devices than it was given. So the two may not contradict each other.
VISIBLE_VARIABLES: Final = ("MACA_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES")

# "2.0.0+mc2.18.0.8", and "2.8.0+metax3.5.3.9" since 2025.
_MACA_BUILD = re.compile(r"\+(?:metax|mc)(\d[\d.]*)")

# The second one belongs to the white label whose tool is ht-smi.
_DEVICE_NODES = ("dev/mxcd", "dev/htcd")


def probe(
    root: Path = Path("/"), *, environment: Mapping[str, str] = os.environ, timeout_s: float = 20.0
) -> ProbeResult:
    """Find the visible GPUs of the machine whose file system starts at ``root``, in torch's order.

    One call of ``mx-smi`` may take ``timeout_s`` seconds, for example if it starts the driver; there are two at most.
    """
    driver_version = read_text(root / "sys/module/metax/version")

    def examine(cards: tuple[PciDevice, ...]) -> ProbeResult | str:
        obstacle = _find_obstacle(root, environment)
        if obstacle:
            return obstacle
        listed, source = _list_devices(timeout_s)
        if listed.unavailable and not listed.devices:
            return f"mx-smi -L calls all of them unavailable ({'; '.join(listed.unavailable)}); check dmesg"
        if listed.devices:
            table = TOOL.report(Query.TABLE.value, parse_table, timeout_s=timeout_s)
            devices = _complete(listed, table)
        else:
            table = DeviceReport()
            devices = tuple(
                ProbedDevice(index=index, name=f"MetaX device {card.device_id:04x}", pci_bus_id=card.address)
                for index, card in enumerate(cards)
            )
        found = f"{len(devices)} GPU(s) by {'; '.join((source, *listed.unavailable))}"
        choice = active_choice(environment)
        if choice:
            devices = select(devices, choice[1])
            found += f", of which {choice[0]}={choice[1]!r} leaves {len(devices) or 'none'}"
        return ProbeResult(
            available=bool(devices),
            reason=f"{found}; PCI lists {len(cards)}; {describe_torch_build()}",
            devices=devices,
            driver_version=driver_version or table.driver_version,
        )

    return probe_cards(
        root,
        lambda function: function.vendor_id == 0x9999,
        examine,
        called="MetaX GPU",
        criterion="has vendor id 0x9999",
        driver_version=driver_version,
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
    return f"torch {version} is not a MetaX build (+metax or +mc){describe_new_stack()}: install MetaX's to train"


def describe_new_stack() -> str:
    """Name MetaX's backend for upstream torch, if it is installed, as the end of a clause."""
    version = distribution_version("torch_fl")
    return f", and torch_fl {version}, through which it uses MetaX's GPUs, is not supported yet" if version else ""


def find_conflict(environment: Mapping[str, str]) -> str | None:
    """Return what is wrong with the variables and what to do, or ``None`` if they agree."""
    stale, chosen = (environment.get(name) for name in VISIBLE_VARIABLES)
    if stale is None or chosen is None or re.split(r"\s*,\s*", stale.strip()) == re.split(r"\s*,\s*", chosen.strip()):
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

    As in CUDA, the value is a list of indices, UUIDs or prefixes of UUIDs, separated by commas.
    """

    def find(entry: str) -> ProbedDevice | None:
        if entry.isascii() and entry.isdecimal():
            return devices[int(entry)] if int(entry) < len(devices) else None
        return only(device for device in devices if entry and device.uuid and device.uuid.startswith(entry))

    return tuple(replace(device, index=index) for index, device in enumerate(select_visible(choice, find)))


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
    """Return what ``mx-smi -L`` lists, and by what devices are known: the tool, or PCI and why not the tool."""
    output = TOOL.run(Query.LIST.value, timeout_s=timeout_s)
    listed = parse_list(output.stdout) if output.is_whole else DeviceList()
    if listed.devices or listed.unavailable:
        return listed, f"mx-smi -L ({output.problem})" if output.problem else "mx-smi -L"
    return listed, f"PCI alone ({output.problem or 'the output of mx-smi -L is not understood'})"


def _complete(listed: DeviceList, table: DeviceReport) -> tuple[ProbedDevice, ...]:
    """Add to the listed devices what the table knows of their boards: the name that torch gives them, and the memory.

    ``-L`` names the chip and not the product. How much of a board a slice may use is not what the tool calls its quota.
    """
    boards = {board.pci_bus_id: board for board in table.readings if board.pci_bus_id}
    devices = []
    for device in listed.devices:
        board = boards.get(device.pci_bus_id or "")
        if board:
            total_bytes = None if device.part else board.memory_total_bytes
            device = replace(device, name=board.name or device.name, total_bytes=total_bytes)
        devices.append(device)
    return tuple(devices)
