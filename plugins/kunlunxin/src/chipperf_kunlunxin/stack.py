"""What Kunlunxin's two incompatible software stacks have in common: visible devices and collectives."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, ClassVar, Final

from chipperf.hardware import only, select_visible

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from chipperf import Capability, Knob
    from chipperf.hardware import DeviceReading

BACKEND_VARIABLE: Final = "PERF_KUNLUNXIN_BACKEND"
"""Overrides the stack's backend, for images in which another one works, for example ``cpu:gloo,cuda:flagcx``."""

TOOL_TIMEOUT_S: Final = 2.0


class Stack:
    """One stack: what it is; the methods of its subclasses are the hooks of their names.

    Attributes:
        device_type: ``torch.device`` type.
        visible_devices_env: Environment variable that restricts the visible devices.
        keeps_visible_order: Whether torch numbers devices in that variable's order.
        capabilities: What the stack can do beyond the required hooks.
        backend: torch's name of its collectives.
        collectives: The library behind them, where the stack does not state it.
        pin_memory: Whether page-locked memory is known to work.
        who: What a refused precision is refused by.
        refusals: Why precisions are refused.
    """

    device_type: ClassVar[str]
    visible_devices_env: ClassVar[str]
    keeps_visible_order: ClassVar[bool]
    capabilities: ClassVar[frozenset[Capability]]
    backend: ClassVar[str]
    collectives: ClassVar[str | None] = None
    pin_memory: ClassVar[bool]
    who: ClassVar[str]
    refusals: ClassVar[Mapping[str, str]]

    def runtime_knobs(self) -> tuple[Knob, ...]:
        """Return the stack's own settings, once torch is imported."""
        return ()

    def precision_knobs(self) -> tuple[Knob, ...]:
        """Set the switches that every precision needs, and return them as they are in force."""
        return ()

    def visible(self, readings: Sequence[DeviceReading]) -> tuple[DeviceReading, ...]:
        """Return the devices that :attr:`visible_devices_env` leaves, in the order in which torch numbers them.

        A device without a number of its own is named by its position.
        """
        value = os.environ.get(self.visible_devices_env)
        if value is None:
            return tuple(readings)
        numbered = list(enumerate(readings))
        chosen = select_visible(value, lambda entry: _find(numbered, entry), repetition_hides_all=False)
        return tuple(reading for _, reading in (chosen if self.keeps_visible_order else sorted(chosen, key=_position)))

    def chosen_backend(self) -> str:
        """Return the backend of :data:`BACKEND_VARIABLE`, or the stack's."""
        return os.environ.get(BACKEND_VARIABLE) or self.backend

    def uses_flagcx(self) -> bool:
        """Return True if the backend, alone or as part of a composite, is FlagCX."""
        return any(part.rpartition(":")[2] == "flagcx" for part in self.chosen_backend().split(","))


def _find(numbered: Sequence[tuple[int, DeviceReading]], entry: str) -> tuple[int, DeviceReading] | None:
    uuid = entry.lower().removeprefix("gpu-")
    return only(
        (position, reading)
        for position, reading in numbered
        if entry == str(position if reading.device_id is None else reading.device_id)
        or (reading.uuid and uuid == reading.uuid)
    )


def _position(numbered: tuple[int, DeviceReading]) -> int:
    return numbered[0]
