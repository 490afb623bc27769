"""Kunlunxin's two incompatible software stacks: the choice between them, their variables, modules and versions.

The P800's is XPyTorch, which presents its devices as ``cuda`` and its collectives as ``nccl``. The R300's is torch with
``torch_xmlir``, device type ``xpu``, collectives ``xccl``; upstream torch gives these two names to Intel's devices, and
nothing here uses ``torch.xpu``.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from chipperf import Capability, Knob, PluginError, read_variables
from chipperf.hardware import DeviceReading, distribution_version, only, select_visible

if TYPE_CHECKING:
    from collections.abc import Sequence

PROFILE_VARIABLE: Final = "PERF_KUNLUNXIN_PROFILE"

BACKEND_VARIABLE: Final = "PERF_KUNLUNXIN_BACKEND"
"""Overrides the stack's backend, for images in which another one works, for example ``cpu:gloo,cuda:flagcx``."""

VARIABLES: Final = read_variables(Path(__file__).with_name("variables.toml"))

HAZARDS: Final = VARIABLES.meanings["hazards"]
"""Variables that must not be set, and what happens if they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """A stack.

    Attributes:
        name: Name of the profile, and of its tables in ``variables.toml``.
        keeps_visible_order: Whether torch numbers devices in the order of ``visible_devices_env``.
        capabilities: What the stack can do beyond the required hooks.
        backend: torch's name of its collectives.
    """

    name: str
    device_type: str
    visible_devices_env: str
    keeps_visible_order: bool
    capabilities: frozenset[Capability]
    backend: str

    def visible(self, readings: Sequence[DeviceReading]) -> tuple[DeviceReading, ...]:
        """Return the devices that :attr:`visible_devices_env` leaves, in the order in which torch numbers them.

        A device without a number of its own is named by its position.
        """
        value = os.environ.get(self.visible_devices_env)
        if value is None:
            return tuple(readings)

        def find(entry: str) -> tuple[int, DeviceReading] | None:
            uuid = entry.lower().removeprefix("gpu-")
            return only(
                (position, reading)
                for position, reading in enumerate(readings)
                if entry == str(position if reading.device_id is None else reading.device_id)
                or (reading.uuid and uuid == reading.uuid)
            )

        chosen = select_visible(value, find, repetition_hides_all=False)
        ordered = chosen if self.keeps_visible_order else sorted(chosen, key=lambda found: found[0])
        return tuple(reading for _, reading in ordered)

    def chosen_backend(self) -> str:
        """Return the backend of :data:`BACKEND_VARIABLE`, or the stack's."""
        return os.environ.get(BACKEND_VARIABLE) or self.backend

    def uses_flagcx(self) -> bool:
        """Return True if the backend, alone or as part of a composite, is FlagCX."""
        return any(part.rpartition(":")[2] == "flagcx" for part in self.chosen_backend().split(","))


P800: Final = Stack(
    name="p800",
    device_type="cuda",
    visible_devices_env="CUDA_VISIBLE_DEVICES",
    # CUDA_VISIBLE_DEVICES=6,2 was seen to give device 2 the lower number.
    keeps_visible_order=False,
    capabilities=frozenset(
        map(Capability, ("bf16", "distributed", "fp16", "memory_reserved", "multi_device", "telemetry", "uuid"))
    ),
    # XPyTorch puts its own library behind the name.
    backend="nccl",
)
R300: Final = Stack(
    name="r300",
    device_type="xpu",
    visible_devices_env="XPU_VISIBLE_DEVICES",
    keeps_visible_order=True,
    capabilities=frozenset({Capability.DISTRIBUTED, Capability.MULTI_DEVICE, Capability.TELEMETRY}),
    backend="xccl",
)
STACKS: Final = {"r300": R300, "p800": P800}


def choose_stack() -> Stack:
    """Return the stack that ``PERF_KUNLUNXIN_PROFILE`` names, or else the one of the installed torch.

    The torch version is read from the metadata of its distribution. Without torch, the current stack is assumed.
    """
    installed = R300 if (distribution_version("torch") or "").startswith("1.") else P800
    name = os.environ.get(PROFILE_VARIABLE) or installed.name
    if name not in STACKS:
        raise PluginError(
            f"{PROFILE_VARIABLE}={name} names no Kunlunxin profile", hint=f"use one of: {', '.join(STACKS)}"
        )
    return STACKS[name]


def hazards_in_force() -> dict[str, str]:
    """Return a warning for each variable that is set and must not be, by the variable."""
    return {
        name: f"{name}={os.environ[name]} is set: {consequence}"
        for name, consequence in HAZARDS.items()
        if os.environ.get(name) not in (None, "", "0")
    }


def fp32_products() -> tuple[tuple[Knob, ...], str]:
    """Return the types in which products of fp32 tensors are computed, as variables order it, and both in words."""
    knobs, ordered = [], []
    for name, products in VARIABLES.meanings["product_types"].items():
        value = os.environ.get(name) or "not set"
        reason = f"type in which {products} of fp32 tensors are computed; not set leaves the library's choice"
        knobs.append(Knob(name=name, value=value, reason=reason))
        if value not in ("not set", "float32"):
            ordered.append(f"{products} in {value}")
    if "amp" in os.environ.get("XACC_ARGS", "").split():
        ordered.append("mixed by the xacc compiler")
    return tuple(knobs), f"fp32, but {' and '.join(ordered)}" if ordered else "fp32"


def read_stack_versions(stated: object) -> dict[str, str | None]:
    """Read ``torch_xmlir.__version__``, a mapping in XPyTorch and a string elsewhere, into parts of ``RuntimeInfo``."""
    if isinstance(stated, Mapping):
        names = {"framework": "XPyTorch", "compiler": "XTDK", "sdk": "XRE", "collectives": "XCCL"}
        versions = {part: stated.get(name.upper()) for part, name in names.items()}
    else:
        names = {"framework": "xmlir", "compiler": "xacc"}
        versions = {"framework": stated or distribution_version("xmlir"), "compiler": distribution_version("xacc")}
    return {part: f"{names[part]} {version}" if version else None for part, version in versions.items()}


def torch_xmlir() -> Any:
    """Return Kunlunxin's torch extension, imported; it has no types."""
    remedy = "install Kunlunxin's own build of torch: upstream torch has no Kunlunxin devices"
    return import_module("torch_xmlir", remedy)


def import_module(name: str, remedy: str) -> Any:
    """Return a module of the vendor, imported; a ``PluginError`` with ``remedy`` says why it cannot be."""
    try:
        return importlib.import_module(name)
    # Whatever the vendor's module raises while it is imported, the run cannot go on.
    except Exception as error:
        raise PluginError(f"{name} cannot be imported: {type(error).__name__}: {error}", hint=remedy) from error
