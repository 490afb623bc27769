"""Finds MetaX GPUs without torch.

MetaX's torch presents its devices as ``cuda``, so ``torch.cuda`` says nothing about the vendor. A GPU counts only if
the kernel lists it under MetaX's PCI vendor id and MetaX's driver has made its device node.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from chipperf import ProbedDevice, ProbeResult
from chipperf.hardware import PciDevice, distribution_version, find_pci_devices, read_text, run_tool

from chipperf_metax.mx_smi import DeviceList, find_mx_smi, parse_list

PCI_VENDOR_ID = 0x9999
_MACA_BUILD = re.compile(r"\+(?:metax|mc)\d")


def probe(root: Path = Path("/"), *, timeout_s: float = 5.0) -> ProbeResult:
    """Find the GPUs of the machine whose file system starts at ``root``.

    Args:
        root: Directory that holds ``sys`` and ``dev``.
        timeout_s: How long ``mx-smi`` may take.

    Returns:
        MetaX's GPUs in the order of ``mx-smi``, or of their PCI addresses where the tool says nothing; or what was
        looked for and what to do.
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
    if not os.path.exists(root / "dev/mxcd"):
        return ProbeResult(
            available=False, reason=f"{found}, but {_explain_missing_node(root)}", driver_version=driver_version
        )
    listed, source = _ask_mx_smi(timeout_s)
    if listed.unavailable and not listed.devices:
        reason = f"{found}, but mx-smi -L calls all of them unavailable ({'; '.join(listed.unavailable)}); check dmesg"
        return ProbeResult(available=False, reason=reason, driver_version=driver_version)
    devices = listed.devices or _name_by_pci(cards)
    faults = "".join(f"; {fault}" for fault in listed.unavailable)
    return ProbeResult(
        available=True,
        reason=f"{len(devices)} GPU(s) by {source}{faults}; {describe_torch_build()}",
        devices=devices,
        driver_version=driver_version,
    )


def describe_torch_build() -> str:
    """Say whether the installed torch is MetaX's, from the metadata of its distribution."""
    version = distribution_version("torch")
    if version is None:
        return "torch is not installed here: install MetaX's build to train"
    if _MACA_BUILD.search(version):
        return f"torch {version}"
    return f"torch {version} is not a MetaX build (+metax or +mc): install MetaX's to train"


def _explain_missing_node(root: Path) -> str:
    if os.path.isdir(root / "sys/module/metax"):
        return (
            "there is no /dev/mxcd although the kernel module metax is loaded; start the container with "
            "--device=/dev/mxcd --device=/dev/dri"
        )
    return "there is no /dev/mxcd and the kernel module metax is not loaded; install or load MetaX's driver"


def _ask_mx_smi(timeout_s: float) -> tuple[DeviceList, str]:
    nothing = DeviceList(devices=(), unavailable=())
    tool = find_mx_smi()
    if tool is None:
        return nothing, "PCI alone (mx-smi is not installed)"
    output = run_tool([tool, "-L"], timeout_s=timeout_s)
    if output.problem:
        return nothing, f"PCI alone ({output.problem})"
    listed = parse_list(output.stdout)
    if not (listed.devices or listed.unavailable):
        return nothing, "PCI alone (the output of mx-smi -L is not understood)"
    return listed, "mx-smi -L"


def _name_by_pci(cards: list[PciDevice]) -> tuple[ProbedDevice, ...]:
    return tuple(
        ProbedDevice(index=index, name=f"MetaX device {card.device_id:04x}", pci_bus_id=card.address)
        for index, card in enumerate(cards)
    )
