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
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from chipperf import ProbedDevice, ProbeResult
from chipperf.hardware import DeviceReading, PciDevice, probe_cards, read_text

from chipperf_kunlunxin.stacks import choose_stack, hazards_in_force
from chipperf_kunlunxin.xpu_smi import TOOL, DeviceReader, driver_version

if TYPE_CHECKING:
    from collections.abc import Iterable

MACHINE_ROOT = Path("/")
"""Directory that holds ``sys``, ``proc`` and ``dev``."""

RUNTIME_MODULES: Final = ("torch_xmlir", "torch_xray")

_PRODUCTS: Final = {0x3684: "Kunlun 1", 0x3685: "Kunlun 2", 0x3686: "P800 PCIe", 0x3688: "P800 OAM"}


def probe(root: Path | None = None, *, timeout_s: float = 20.0) -> ProbeResult:
    """Find the visible XPUs of the machine whose file system starts at ``root``, or of this machine.

    Their order is that of ``xpu-smi``, or of their device nodes where the tool says nothing. Each of the tool's two
    calls may take ``timeout_s`` seconds: the first may have to wait until the driver has started all cards.
    """
    machine = root or MACHINE_ROOT
    driver = read_driver_version(machine)

    def examine(cards: tuple[PciDevice, ...]) -> ProbeResult | str:
        nodes = find_device_nodes(machine)
        if not nodes:
            return _explain_missing_nodes(machine)
        report = DeviceReader(timeout_s=timeout_s).read()
        readings, source, problem = report.readings, report.source, report.problem
        if {reading.pci_bus_id for reading in readings} - {card.address for card in cards}:
            readings, problem = (), "the output of xpu-smi does not fit the PCI devices"
        # In a container that was given some of the devices, the tool may list all of the machine's.
        given = tuple(replace(each, device_id=None) for each in readings if each.node in nodes)
        if len(given) == len(nodes) < len(readings):
            readings = given
        source += f" ({problem})" if problem else ""
        if not readings:
            # Nodes are numbered apart from PCI addresses and from torch's devices, so a node gets no address.
            readings, source = tuple(DeviceReading(device_id=node) for node in nodes), f"their device nodes ({problem})"
        stack = choose_stack()
        visible, name = stack.visible(readings), stack.visible_devices_env
        restriction = f"{name}={os.environ[name]}" if name in os.environ else ""
        if not visible:
            return f"{restriction} leaves none of {len(readings)} visible; unset it, or name devices"
        remarks = [f"with {restriction}"] if restriction else []
        remarks += [describe_runtime(), *hazards_in_force().values()]
        remarks += [f"the tool lists {len(readings)}, and /dev {len(nodes)}"] if len(readings) != len(nodes) else []
        identities = (reading.identity(index, product_name(cards)) for index, reading in enumerate(visible))
        return ProbeResult(
            available=True,
            reason="; ".join((f"{len(visible)} XPU(s) by {source}", *remarks)),
            devices=tuple(ProbedDevice(**identity) for identity in identities),
            driver_version=driver or report.driver_version,
        )

    tool = TOOL.find()
    hint = f" ({tool} proves nothing: Intel's tool has the same name)" if tool else ""
    return probe_cards(
        machine,
        is_kunlunxin,
        examine,
        called="Kunlunxin XPU",
        criterion=f"has vendor id 0x1d22 or is 2057:3686{hint}",
        driver_version=driver,
    )


def is_kunlunxin(function: PciDevice) -> bool:
    """Return True if a PCI function is a Kunlunxin device."""
    # The PCIe version of the P800 carries another company's vendor id, so only this one device of it counts.
    return function.vendor_id == 0x1D22 or (function.vendor_id, function.device_id) == (0x2057, 0x3686)


def product_name(cards: Iterable[PciDevice]) -> str:
    """Return the product that PCI ids tell; with several kinds of card, all of them."""
    names = {_PRODUCTS.get(card.device_id, f"device {card.device_id:04x}") for card in cards}
    return " or ".join(sorted(names)) or "unidentified XPU"


def find_device_nodes(root: Path) -> tuple[int, ...]:
    """Return the numbers of the device nodes in their order; ``xpuctrl`` is none of them."""
    numbers = (path.name.removeprefix("xpu") for path in (root / "dev").glob("xpu*"))
    return tuple(sorted(int(number) for number in numbers if number.isdecimal()))


def read_driver_version(root: Path) -> str | None:
    """Return the version of the loaded kernel driver, or ``None`` if it is unknown or a placeholder."""
    match = re.search(r"\b\d+\.\d+(?:\.\d+)*\b", read_text(root / "proc/kunlun/version") or "")
    return driver_version(match[0]) if match else None


def describe_runtime() -> str:
    """Say whether Kunlunxin's torch extension is installed, without importing it."""
    for name in RUNTIME_MODULES:
        # A module that is loaded already may have no spec, which find_spec answers with an error.
        if name in sys.modules or importlib.util.find_spec(name):
            return f"{name} is installed"
    if importlib.util.find_spec("torch_xpu"):
        return "torch_xpu is installed, a stack that is not supported yet: install XPyTorch to train"
    return f"neither {' nor '.join(RUNTIME_MODULES)} is installed here: install Kunlunxin's torch to train"


def _explain_missing_nodes(root: Path) -> str:
    if any(os.path.isdir(root / "proc" / name) for name in ("kunlun", "xpu")):
        return (
            "there is no /dev/xpu0 although the kernel driver is loaded; start the container with --device=/dev/xpu0 "
            "(one for each device) --device=/dev/xpuctrl"
        )
    return "there is no /dev/xpu0 and no /proc/kunlun; install or load Kunlunxin's kernel driver"
