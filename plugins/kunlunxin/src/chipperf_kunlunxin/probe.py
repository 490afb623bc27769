"""Finds Kunlunxin XPUs without torch and without Kunlunxin's torch extension.

The names ``xpu`` and ``xpu-smi`` belong to Intel as well, and the current stack presents its devices as ``cuda``. So a
device counts only if the kernel lists it under Kunlunxin's PCI ids and Kunlunxin's driver has made its node. The
extension is looked up but never imported: its import can write registers of the whole machine.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from pathlib import Path

from chipperf import ProbedDevice, ProbeResult
from chipperf.hardware import PciDevice, find_pci_devices, read_text, run_tool

from chipperf_kunlunxin.xpu_smi import find_xpu_smi, parse_machine_rows

PCI_VENDOR_ID = 0x1D22
# The PCIe version of the P800 carries another company's vendor id, so only this one device of it counts.
P800_PCIE_ID = (0x2057, 0x3686)
PRODUCTS = {0x3684: "Kunlun 1", 0x3685: "Kunlun 2", 0x3686: "P800 PCIe", 0x3688: "P800 OAM"}
RUNTIME_MODULES = ("torch_xmlir", "torch_xray")
# Containers without the matching library show this instead of the driver's version.
PLACEHOLDER_DRIVER_VERSION = "515.58"
_VERSION = re.compile(r"\b\d+\.\d+(?:\.\d+)*\b")
_DEVICE_NODE = re.compile(r"xpu\d+")


def probe(root: Path = Path("/"), *, timeout_s: float = 5.0) -> ProbeResult:
    """Find the XPUs of the machine whose file system starts at ``root``.

    Args:
        root: Directory that holds ``sys``, ``proc`` and ``dev``.
        timeout_s: How long ``xpu-smi`` may take.

    Returns:
        Kunlunxin's devices in the order of ``xpu-smi``, or of their device nodes where the tool says nothing; or what
        was looked for and what to do.
    """
    pci_root = root / "sys/bus/pci/devices"
    functions = find_pci_devices(pci_root)
    cards = [function for function in functions if _is_kunlunxin(function)]
    driver_version = read_driver_version(root)
    if not cards:
        reason = (
            f"no Kunlunxin XPU: none of the {len(functions)} PCI devices under {pci_root} has vendor id 0x1d22 or is "
            f"2057:3686{_intel_hint()}; check that the card is powered, seated and passed to this machine"
        )
        return ProbeResult(available=False, reason=reason, driver_version=driver_version)
    found = f"PCI lists Kunlunxin devices at {', '.join(card.address for card in cards)}"
    nodes = find_device_nodes(root)
    if not nodes:
        return ProbeResult(
            available=False, reason=f"{found}, but {_explain_missing_nodes(root)}", driver_version=driver_version
        )
    devices, source = _ask_xpu_smi(cards, timeout_s)
    devices = devices or _name_by_pci(cards, nodes)
    return ProbeResult(
        available=True,
        reason=f"{len(devices)} XPU(s) by {source}; {describe_runtime()}",
        devices=devices,
        driver_version=driver_version,
    )


def read_driver_version(root: Path) -> str | None:
    """Return the version of the loaded kernel driver, or ``None`` if it is unknown or a placeholder."""
    match = _VERSION.search(read_text(root / "proc/kunlun/version") or "")
    return match[0] if match and match[0] != PLACEHOLDER_DRIVER_VERSION else None


def find_device_nodes(root: Path) -> tuple[str, ...]:
    """Return the names of the device nodes in the order of their numbers; ``xpuctrl`` is none of them."""
    names = (path.name for path in (root / "dev").glob("xpu*"))
    return tuple(sorted(filter(_DEVICE_NODE.fullmatch, names), key=lambda name: int(name.removeprefix("xpu"))))


def describe_runtime() -> str:
    """Say whether Kunlunxin's torch extension is installed, without importing it."""
    for name in RUNTIME_MODULES:
        # A module that is loaded already may have no spec, which find_spec answers with an error.
        if name in sys.modules or importlib.util.find_spec(name):
            return f"{name} is installed"
    return f"neither {' nor '.join(RUNTIME_MODULES)} is installed here: install Kunlunxin's torch to train"


def _is_kunlunxin(function: PciDevice) -> bool:
    return function.vendor_id == PCI_VENDOR_ID or (function.vendor_id, function.device_id) == P800_PCIE_ID


def _intel_hint() -> str:
    tool = find_xpu_smi()
    return f" ({tool} proves nothing: Intel's tool has the same name)" if tool else ""


def _explain_missing_nodes(root: Path) -> str:
    if any(os.path.isdir(root / "proc" / name) for name in ("kunlun", "xpu")):
        return (
            "there is no /dev/xpu0 although the kernel driver is loaded; start the container with --device=/dev/xpu0 "
            "(one for each device) --device=/dev/xpuctrl"
        )
    return "there is no /dev/xpu0 and no /proc/kunlun; install or load Kunlunxin's kernel driver"


def _ask_xpu_smi(cards: list[PciDevice], timeout_s: float) -> tuple[tuple[ProbedDevice, ...], str]:
    tool = find_xpu_smi()
    if tool is None:
        return (), "their device nodes (xpu-smi is not installed)"
    output = run_tool([tool, "-m"], timeout_s=timeout_s)
    if output.problem:
        return (), f"their device nodes ({output.problem})"
    addresses = {card.address for card in cards}
    devices = parse_machine_rows(output.stdout)
    if not devices or any(device.pci_bus_id not in addresses for device in devices):
        return (), f"their device nodes (the output of {tool} -m does not fit the PCI devices)"
    return devices, "xpu-smi -m"


def _name_by_pci(cards: list[PciDevice], nodes: tuple[str, ...]) -> tuple[ProbedDevice, ...]:
    products = sorted({PRODUCTS.get(card.device_id, f"Kunlunxin device {card.device_id:04x}") for card in cards})
    # Nodes are numbered apart from PCI addresses and from torch's devices, so a node gets no address.
    return tuple(ProbedDevice(index=index, name=" or ".join(products)) for index, _ in enumerate(nodes))
