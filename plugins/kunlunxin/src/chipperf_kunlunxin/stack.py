"""What Kunlunxin's two incompatible software stacks have in common."""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Final

from chipperf import DistributedConfig, LoaderOptions, PluginError, RuntimeInfo
from chipperf.hardware import only, select_visible
from chipperf.torchtools import (
    convert_parameters,
    precision_policy,
    require_precision,
    restore_switches,
    set_determinism,
)

from chipperf_kunlunxin import machine
from chipperf_kunlunxin.software import (
    EVENT_TIMING,
    HAZARDS,
    effective_fp32,
    event_timing_enabled,
    hazards_in_force,
    import_module,
    product_type_knobs,
    read_stack_versions,
    torch_xmlir,
    variables_in_force,
)
from chipperf_kunlunxin.xpu_smi import query_devices

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch
    from chipperf import (
        Capability,
        DeviceInfo,
        EnvironmentSettings,
        EnvironmentVariable,
        Knob,
        MemoryStats,
        Precision,
        PrecisionPolicy,
        Rank,
    )
    from chipperf.hardware import DeviceReading

BACKEND_VARIABLE: Final = "PERF_KUNLUNXIN_BACKEND"
"""Overrides the stack's backend, for images in which another one works, for example ``cpu:gloo,cuda:flagcx``."""

TOOL_TIMEOUT_S: Final = 2.0

logger = logging.getLogger(__name__)


class Stack(ABC):
    """One stack; each method is the hook of its name.

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

    @abstractmethod
    def environment(self, rank: Rank, settings: EnvironmentSettings) -> tuple[EnvironmentVariable, ...]:
        """Return what the stack and its collectives read when the interpreter starts."""

    @abstractmethod
    def device_init(self, rank: Rank) -> torch.device:
        """Make the rank's device ready and return it."""

    @abstractmethod
    def device_info(self, device: torch.device) -> DeviceInfo:
        """Identify the device."""

    @abstractmethod
    def synchronize(self, device: torch.device) -> None:
        """Wait for all queued work of the device."""

    @abstractmethod
    def memory_query(self, device: torch.device) -> MemoryStats:
        """Read the device's memory."""

    @abstractmethod
    def memory_reset_peak(self, device: torch.device) -> None:
        """Set the allocator's peaks back, where there are any."""

    @abstractmethod
    def device_module(self) -> Any:
        """Return the module with ``manual_seed_all`` and ``empty_cache``."""

    def runtime_knobs(self) -> tuple[Knob, ...]:
        """Return the stack's own settings, once torch is imported."""
        return ()

    def precision_knobs(self) -> tuple[Knob, ...]:
        """Set the switches that every precision needs, and return them as they are in force."""
        return ()

    def load_runtime(self) -> RuntimeInfo:
        """Import torch, the extension and the collective backend's module, and warn of variables that do harm.

        Raises:
            PluginError: A module cannot be imported.
        """
        for hazard in hazards_in_force():
            logger.warning("%s", hazard)
        import torch

        extension = torch_xmlir()
        if self.uses_flagcx():
            import_module("flagcx", "install FlagCX, or choose another backend")
        versions = read_stack_versions(getattr(extension, "__version__", None))
        driver = machine.read_driver_version(machine.MACHINE_ROOT)
        return RuntimeInfo(
            torch=torch.__version__,
            driver=driver or query_devices(timeout_s=TOOL_TIMEOUT_S).driver_version,
            sdk=versions.sdk,
            collectives=versions.collectives or self.collectives,
            framework=versions.framework,
            compiler=versions.compiler,
            knobs=(*variables_in_force(), *self.runtime_knobs()),
        )

    def distributed_setup(self) -> DistributedConfig:
        """Use the stack's backend, or the one of :data:`BACKEND_VARIABLE`.

        Raises:
            PluginError: ``XPU_EVENT_KL3_ENABLE`` is set, which hangs collectives.
        """
        if event_timing_enabled():
            raise PluginError(
                f"{EVENT_TIMING}={os.environ[EVENT_TIMING]} is set: {HAZARDS[EVENT_TIMING]}",
                hint=f"unset {EVENT_TIMING} and start the run again",
            )
        return DistributedConfig(backend=self.chosen_backend())

    def seed(self, seed: int, deterministic: bool) -> None:
        """Seed all devices; that torch's switches make the stack's kernels deterministic is not known."""
        self.device_module().manual_seed_all(seed)
        set_determinism(deterministic, cudnn=self.device_type == "cuda")

    def precision(self, requested: Precision) -> PrecisionPolicy:
        """Set the stack up for a precision, and say in what its products are computed.

        Raises:
            UnsupportedPrecision: The stack does not run it.
        """
        require_precision(requested, self.capabilities, who=self.who, reasons=self.refusals)
        knobs = (*product_type_knobs(), *self.precision_knobs())
        return precision_policy(requested, knobs=knobs, effective=effective_fp32() if requested == "fp32" else None)

    def prepare_model(self, model: torch.nn.Module, requested: Precision) -> torch.nn.Module:
        """Convert parameters for fp16; leave the model alone otherwise."""
        return convert_parameters(model, requested)

    def loader_options(self) -> LoaderOptions:
        """Ask for page-locked memory where it is known to work."""
        return LoaderOptions(pin_memory=self.pin_memory)

    def device_teardown(self) -> None:
        """Give cached memory back and restore torch's switches."""
        empty_cache = getattr(self.device_module(), "empty_cache", None)
        if empty_cache is not None:
            empty_cache()
        restore_switches()

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
