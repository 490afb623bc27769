"""What the kernel says of Kunlunxin's devices: PCI ids, device nodes, driver version."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from chipperf.hardware import PciDevice, find_pci_devices, read_text

from chipperf_kunlunxin.xpu_smi_output import driver_version

if TYPE_CHECKING:
    from collections.abc import Iterable

MACHINE_ROOT = Path("/")
"""Directory that holds ``sys``, ``proc`` and ``dev``."""

PCI_VENDOR_ID: Final = 0x1D22

# The PCIe version of the P800 carries another company's vendor id, so only this one device of it counts.
_P800_PCIE_ID: Final = (0x2057, 0x3686)
_PRODUCTS: Final = {0x3684: "Kunlun 1", 0x3685: "Kunlun 2", 0x3686: "P800 PCIe", 0x3688: "P800 OAM"}
_VERSION: Final = re.compile(r"\b\d+\.\d+(?:\.\d+)*\b")
_DEVICE_NODE: Final = re.compile(r"xpu\d+")


def is_kunlunxin(function: PciDevice) -> bool:
    """Return True if a PCI function is a Kunlunxin device."""
    return function.vendor_id == PCI_VENDOR_ID or (function.vendor_id, function.device_id) == _P800_PCIE_ID


def product_name(cards: Iterable[PciDevice]) -> str:
    """Return the product that PCI ids tell; with several kinds of card, all of them."""
    return " or ".join(sorted({_PRODUCTS.get(card.device_id, f"device {card.device_id:04x}") for card in cards}))


def installed_product_name() -> str:
    """Return the product in this machine by its PCI ids, for a device of which nothing else is known."""
    cards = filter(is_kunlunxin, find_pci_devices(MACHINE_ROOT / "sys/bus/pci/devices"))
    return product_name(cards) or "unidentified XPU"


def find_device_nodes(root: Path) -> tuple[str, ...]:
    """Return the names of the device nodes in the order of their numbers; ``xpuctrl`` is none of them."""
    names = (path.name for path in (root / "dev").glob("xpu*"))
    return tuple(sorted(filter(_DEVICE_NODE.fullmatch, names), key=node_number))


def node_number(name: str) -> int:
    """Return the number in the name of a device node."""
    return int(name.removeprefix("xpu"))


def read_driver_version(root: Path) -> str | None:
    """Return the version of the loaded kernel driver, or ``None`` if it is unknown or a placeholder."""
    match = _VERSION.search(read_text(root / "proc/kunlun/version") or "")
    return driver_version(match[0]) if match else None
