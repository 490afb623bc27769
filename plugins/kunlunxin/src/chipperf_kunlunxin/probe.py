"""Finds Kunlunxin XPUs without torch and without Kunlunxin's torch extension.

The names ``xpu`` and ``xpu-smi`` belong to Intel as well, and the current stack presents its devices as ``cuda``. So a
device counts only if the kernel lists it under Kunlunxin's PCI ids and Kunlunxin's driver has made its node. The
extension is looked up but never imported: its import can write registers of the whole machine.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import TYPE_CHECKING, Final

from chipperf import PluginError, ProbedDevice, ProbeResult
from chipperf.hardware import DeviceReading, PciDevice, distribution_version, find_cards

from chipperf_kunlunxin import machine
from chipperf_kunlunxin.stacks import P800, STACKS
from chipperf_kunlunxin.xpu_smi import TOOL, identify_devices

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PROFILE_VARIABLE: Final = "PERF_KUNLUNXIN_PROFILE"

RUNTIME_MODULES: Final = ("torch_xmlir", "torch_xray")


def probe(root: Path | None = None, *, timeout_s: float = 2.0) -> ProbeResult:
    """Find the visible XPUs of the machine whose file system starts at ``root``.

    Args:
        root: Directory that holds ``sys``, ``proc`` and ``dev``; this machine's if not given.
        timeout_s: How long each of the two calls of ``xpu-smi`` may take.

    Returns:
        Kunlunxin's devices in the order of ``xpu-smi``, or of their device nodes where the tool says nothing, as far as
        the visible-devices variable leaves them; or what was looked for and what to do.
    """
    root = root or machine.MACHINE_ROOT
    tool = TOOL.find()
    hint = f" ({tool} proves nothing: Intel's tool has the same name)" if tool else ""
    cards, found = find_cards(
        root,
        machine.is_kunlunxin,
        called="Kunlunxin XPU",
        criterion=f"has vendor id 0x1d22 or is 2057:3686{hint}",
    )
    driver = machine.read_driver_version(root)
    nodes = machine.find_device_nodes(root)
    if not cards or not nodes:
        reason = f"{found}, but {_explain_missing_nodes(root)}" if cards else found
        return ProbeResult(available=False, reason=reason, driver_version=driver)
    report = identify_devices(timeout_s=timeout_s)
    driver = driver or report.driver_version
    problem = report.problem or _misfit(report.readings, cards)
    readings = _by_nodes(cards, nodes) if problem else report.readings
    source = f"their device nodes ({problem})" if problem else report.source
    stack = choose_stack()
    visible, name = stack.visible(readings), stack.visible_devices_env
    restriction = f"{name}={os.environ[name]}" if name in os.environ else ""
    if not visible:
        reason = f"{found}, but {restriction} leaves none of {len(readings)} visible; unset it, or name devices"
        return ProbeResult(available=False, reason=reason, driver_version=driver)
    remarks = (f"with {restriction}" if restriction else "", describe_runtime(), *machine.hazards_in_force().values())
    return ProbeResult(
        available=True,
        reason="; ".join((f"{len(visible)} XPU(s) by {source}", *filter(None, remarks))),
        devices=_probed(visible, cards),
        driver_version=driver,
    )


def choose_stack() -> P800:
    """Return the stack that ``PERF_KUNLUNXIN_PROFILE`` names, or else the one of the installed torch.

    The torch version is read from the metadata of its distribution. Without torch nothing can be trained, and the
    current stack is assumed.

    Raises:
        PluginError: The variable names no profile.
    """
    name = os.environ.get(PROFILE_VARIABLE) or _installed_profile()
    try:
        return STACKS[name]
    except KeyError as error:
        raise PluginError(
            f"{PROFILE_VARIABLE}={name} names no Kunlunxin profile", hint=f"use one of: {', '.join(STACKS)}"
        ) from error


def _installed_profile() -> str:
    version = distribution_version("torch")
    return "r300" if version is not None and version.startswith("1.") else "p800"


def describe_runtime() -> str:
    """Say whether Kunlunxin's torch extension is installed, without importing it."""
    for name in RUNTIME_MODULES:
        # A module that is loaded already may have no spec, which find_spec answers with an error.
        if name in sys.modules or importlib.util.find_spec(name):
            return f"{name} is installed"
    return f"neither {' nor '.join(RUNTIME_MODULES)} is installed here: install Kunlunxin's torch to train"


def _explain_missing_nodes(root: Path) -> str:
    if any(os.path.isdir(root / "proc" / name) for name in ("kunlun", "xpu")):
        return (
            "there is no /dev/xpu0 although the kernel driver is loaded; start the container with --device=/dev/xpu0 "
            "(one for each device) --device=/dev/xpuctrl"
        )
    return "there is no /dev/xpu0 and no /proc/kunlun; install or load Kunlunxin's kernel driver"


def _misfit(readings: Sequence[DeviceReading], cards: Sequence[PciDevice]) -> str:
    """Say why the tool's devices cannot be those that PCI lists; empty if they can."""
    addresses = {card.address for card in cards}
    strangers = [reading.pci_bus_id for reading in readings if reading.pci_bus_id not in addresses]
    return "the output of xpu-smi does not fit the PCI devices" if strangers else ""


def _by_nodes(cards: Sequence[PciDevice], nodes: Sequence[str]) -> tuple[DeviceReading, ...]:
    name = machine.product_name(cards)
    # Nodes are numbered apart from PCI addresses and from torch's devices, so a node gets no address.
    return tuple(DeviceReading(device_id=machine.node_number(node), name=name) for node in nodes)


def _probed(readings: Sequence[DeviceReading], cards: Sequence[PciDevice]) -> tuple[ProbedDevice, ...]:
    return tuple(
        ProbedDevice(
            index=index,
            name=reading.name or machine.product_name(cards),
            uuid=reading.uuid,
            pci_bus_id=reading.pci_bus_id,
            total_bytes=reading.memory_total_bytes,
        )
        for index, reading in enumerate(readings)
    )
