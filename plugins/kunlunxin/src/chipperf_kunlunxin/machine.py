"""What a machine has of Kunlunxin: PCI ids, device nodes and driver; variables of the environment, modules, versions.

``variables.toml`` has the variables that are known. The plugin sets few itself; of the others, it reports those it
finds set.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from chipperf import Knob, PluginError, read_variables
from chipperf.hardware import PciDevice, distribution_version, find_pci_devices, read_text
from chipperf.torchtools import user_variables

from chipperf_kunlunxin.xpu_smi import driver_version

if TYPE_CHECKING:
    from collections.abc import Iterable

EVENT_TIMING: Final = "XPU_EVENT_KL3_ENABLE"

VARIABLES: Final = read_variables(Path(__file__).with_name("variables.toml"))

HAZARDS: Final = VARIABLES.meanings["hazards"]
"""Variables that must not be set, and what happens if they are."""

# A release may have variables of its own that are not listed here; they are recorded too.
_PREFIXES: Final = ("BKCL_", "FLAGCX_", "XACC", "XBLAS_", "XDNN_", "XMLIR_")

_FP32_TYPES: Final = (None, "", "float32")

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


def hazards_in_force() -> dict[str, str]:
    """Return a warning for each variable that is set and must not be, by the variable."""
    return {
        name: f"{name}={os.environ[name]} is set: {consequence}"
        for name, consequence in HAZARDS.items()
        if os.environ.get(name) not in (None, "", "0")
    }


def variables_in_force() -> tuple[Knob, ...]:
    """Return the variables that are set, whoever set them."""
    return user_variables(dict(sorted({**HAZARDS, **VARIABLES.meanings["reported"]}.items())), prefixes=_PREFIXES)


def product_type_knobs() -> tuple[Knob, ...]:
    """Return the type in which products of fp32 tensors are computed, as the variables have it."""
    return tuple(
        Knob(
            name=name,
            value=os.environ.get(name) or "not set",
            reason=f"type in which {products} of fp32 tensors are computed; not set leaves the library's choice",
        )
        for name, products in VARIABLES.meanings["product_types"].items()
    )


def effective_fp32() -> str:
    """Return what fp32 products are computed in: ``fp32``, unless a variable orders something narrower."""
    ordered = [
        f"{products} in {os.environ[name]}"
        for name, products in VARIABLES.meanings["product_types"].items()
        if os.environ.get(name) not in _FP32_TYPES
    ]
    if "amp" in os.environ.get("XACC_ARGS", "").split():
        ordered.append("mixed by the xacc compiler")
    return f"fp32, but {' and '.join(ordered)}" if ordered else "fp32"


def read_stack_versions(stated: object) -> dict[str, str | None]:
    """Read ``torch_xmlir.__version__`` into parts of ``RuntimeInfo``.

    Args:
        stated: In XPyTorch a mapping from parts to versions, in the R300's stack a string; ``None`` if missing.
    """
    if isinstance(stated, Mapping):
        parts = {"framework": ("XPyTorch", "XPYTORCH"), "compiler": ("XTDK", "XTDK"), "sdk": ("XRE", "XRE")}
        parts["collectives"] = ("XCCL", "XCCL")
        return {part: _named(name, stated.get(key)) for part, (name, key) in parts.items()}
    return {
        "framework": _named("xmlir", stated or distribution_version("xmlir")),
        "compiler": _named("xacc", distribution_version("xacc")),
    }


def torch_xmlir() -> Any:
    """Return Kunlunxin's torch extension, imported; it has no types."""
    return import_module(
        "torch_xmlir", "install Kunlunxin's own build of torch: upstream torch has no Kunlunxin devices"
    )


def import_module(name: str, remedy: str) -> Any:
    """Return a module of the vendor, imported.

    Raises:
        PluginError: It cannot be imported.
    """
    try:
        return importlib.import_module(name)
    # Whatever the vendor's module raises while it is imported, the run cannot go on.
    except Exception as error:
        raise PluginError(f"{name} cannot be imported: {type(error).__name__}: {error}", hint=remedy) from error


def _named(name: str, version: object) -> str | None:
    return f"{name} {version}" if version else None
