"""Kunlunxin's two incompatible software stacks.

The P800's is XPyTorch, which presents its devices as ``cuda`` and its collectives as ``nccl``. The R300's is torch with
``torch_xmlir``, device type ``xpu``, collectives ``xccl``; upstream torch gives these two names to Intel's devices, and
nothing here uses ``torch.xpu``.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from chipperf import Capability, DeviceError, DeviceInfo, Knob, MemoryStats
from chipperf.hardware import DeviceReading, find_reading, only, select_visible
from chipperf.torchtools import (
    CUDNN_TF32,
    MATMUL_PRECISION,
    read_memory,
    set_switch,
    switch_knobs,
    use_device,
    user_variables,
)

from chipperf_kunlunxin import machine
from chipperf_kunlunxin.machine import VARIABLES, torch_xmlir
from chipperf_kunlunxin.xpu_smi import identify_devices, layout_reader, normalize_uuid

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from chipperf import EnvironmentSettings, EnvironmentVariable, Rank
    from chipperf.hardware import DeviceReport

BACKEND_VARIABLE: Final = "PERF_KUNLUNXIN_BACKEND"
"""Overrides the stack's backend, for images in which another one works, for example ``cpu:gloo,cuda:flagcx``."""

TOOL_TIMEOUT_S: Final = 2.0

_FLOAT64: Final = Knob(name="float64", value="computed as float32", reason="the stack narrows float64 without a word")


class P800:
    """The current stack; the methods are the hooks of their names.

    Attributes:
        name: Name of the profile, and of its tables in ``variables.toml``.
        device_type: ``torch.device`` type.
        visible_devices_env: Environment variable that restricts the visible devices.
        keeps_visible_order: Whether torch numbers devices in that variable's order.
        capabilities: What the stack can do beyond the required hooks.
        backend: torch's name of its collectives.
        collectives: The library behind them, where the stack does not state it.
        pin_memory: Whether page-locked memory is known to work.
    """

    name: str = "p800"
    device_type: str = "cuda"
    visible_devices_env: str = "CUDA_VISIBLE_DEVICES"
    # CUDA_VISIBLE_DEVICES=6,2 was seen to give device 2 the lower number.
    keeps_visible_order: bool = False
    capabilities: frozenset[Capability] = frozenset(
        map(Capability, ("bf16", "distributed", "fp16", "memory_reserved", "multi_device", "telemetry", "uuid"))
    )
    # XPyTorch puts its own library behind the name.
    backend: str = "nccl"
    collectives: str | None = None
    # Copies from page-locked memory have been seen to be right.
    pin_memory: bool = True

    def environment(self, rank: Rank, settings: EnvironmentSettings) -> tuple[EnvironmentVariable, ...]:
        """Return what the stack and its collectives read when the interpreter starts, by the tables of the stack."""
        tables = {
            self.name: True,
            f"{self.name}-{settings.case}": True,
            f"{self.name}-devices": rank.world_size > 1,
            f"{self.name}-flagcx": rank.world_size > 1 and self.uses_flagcx(),
            f"{self.name}-machines": rank.node_count > 1,
        }
        applied = [VARIABLES.settings.get(table, ()) for table, applies in tables.items() if applies]
        return tuple(variable for table in applied for variable in table)

    def device_module(self) -> Any:
        """Return ``torch.cuda``, which XPyTorch replaces."""
        import torch

        return torch.cuda

    def device_init(self, rank: Rank) -> torch.device:
        """Make the rank's device current."""
        return use_device(
            self.device_module(), "cuda", rank, called="XPU", visible_devices_env=(self.visible_devices_env,)
        )

    def device_info(self, device: torch.device) -> DeviceInfo:
        """Return the device's identity by the tool, as far as the device can be found there."""
        reading = self.reading_of(device, identify_devices(timeout_s=TOOL_TIMEOUT_S))
        return DeviceInfo(
            index=device.index or 0,
            name=reading.name or machine.installed_product_name(),
            uuid=reading.uuid,
            pci_bus_id=reading.pci_bus_id,
            total_bytes=reading.memory_total_bytes,
        )

    def reading_of(self, device: torch.device, report: DeviceReport) -> DeviceReading:
        """Find the device by its UUID: torch calls every device ``GPU`` and gives it the PCI address 0."""
        properties = self.device_module().get_device_properties(device)
        uuid = normalize_uuid(str(getattr(properties, "uuid", None) or ""))
        found = find_reading(report.readings, uuid=uuid, pci_bus_id=None) or DeviceReading()
        return replace(found, uuid=uuid, memory_total_bytes=int(properties.total_memory))

    def synchronize(self, device: torch.device) -> None:
        """Wait for all of the device's streams."""
        self.device_module().synchronize(device)

    def memory_query(self, device: torch.device) -> MemoryStats:
        """Read the allocator's counters, which are unknown where the stack has none, and the device's use."""
        return read_memory(self.device_module(), device)

    def runtime_knobs(self) -> tuple[Knob, ...]:
        """Return what the stack does without a word, and the older stack's variable, said to break its import."""
        stray = user_variables({R300.visible_devices_env: f"not this stack's: use {self.visible_devices_env}"})
        return (_FLOAT64, *switch_knobs(VARIABLES.meanings["p800-runtime-switches"]), *stray)

    def precision_knobs(self) -> tuple[Knob, ...]:
        """Switch rounding of fp32 products off, and return all switches of precision as they are in force."""
        set_switch(MATMUL_PRECISION, "highest")
        set_switch(CUDNN_TF32, False)
        return switch_knobs(VARIABLES.meanings["p800-precision-switches"])

    def visible(self, readings: Sequence[DeviceReading]) -> tuple[DeviceReading, ...]:
        """Return the devices that :attr:`visible_devices_env` leaves, in the order in which torch numbers them.

        A device without a number of its own is named by its position.
        """
        value = os.environ.get(self.visible_devices_env)
        if value is None:
            return tuple(readings)
        numbered = list(enumerate(readings))
        chosen = select_visible(value, lambda entry: _find(numbered, entry), repetition_hides_all=False)
        ordered = chosen if self.keeps_visible_order else sorted(chosen, key=lambda found: found[0])
        return tuple(reading for _, reading in ordered)

    def chosen_backend(self) -> str:
        """Return the backend of :data:`BACKEND_VARIABLE`, or the stack's."""
        return os.environ.get(BACKEND_VARIABLE) or self.backend

    def uses_flagcx(self) -> bool:
        """Return True if the backend, alone or as part of a composite, is FlagCX."""
        return any(part.rpartition(":")[2] == "flagcx" for part in self.chosen_backend().split(","))


class R300(P800):
    """The stack of FlagPerf's R300 cases, where it differs from the current one."""

    name = "r300"
    device_type = "xpu"
    visible_devices_env = "XPU_VISIBLE_DEVICES"
    keeps_visible_order = True
    capabilities = frozenset({Capability.DISTRIBUTED, Capability.MULTI_DEVICE, Capability.TELEMETRY})
    backend = "xccl"
    collectives = "XCCL"
    # This stack is not known to have page-locked memory.
    pin_memory = False

    def device_module(self) -> Any:
        """Return the extension's own module."""
        return torch_xmlir().xpu

    def device_init(self, rank: Rank) -> torch.device:
        """Return the rank's device; the stack has no current device to set.

        Raises:
            DeviceError: There are fewer visible devices.
        """
        nodes = machine.find_device_nodes(machine.MACHINE_ROOT)
        count = len(self.visible([DeviceReading(device_id=machine.node_number(node)) for node in nodes]))
        if rank.local_rank >= count:
            raise DeviceError(
                f"local rank {rank.local_rank} has no device: {count} XPU(s) are visible",
                hint=f"start at most {count} processes, or check {self.visible_devices_env}",
            )
        device: torch.device = torch_xmlir().device(f"xpu:{rank.local_rank}")
        return device

    def reading_of(self, device: torch.device, report: DeviceReport) -> DeviceReading:
        """Find the device by its place: ``xpu:N`` is the N-th visible one, which nothing lets us check."""
        visible = self.visible(report.readings)
        index = device.index or 0
        return visible[index] if index < len(visible) else DeviceReading()

    def synchronize(self, device: torch.device) -> None:
        """Wait for the device of this process."""
        self.device_module().xpu_synchronize()

    def memory_query(self, device: torch.device) -> MemoryStats:
        """Read what the tool says: the stack has no allocator counters, so peaks are those of sampled telemetry."""
        report = layout_reader().read(timeout_s=TOOL_TIMEOUT_S)
        reading = self.reading_of(device, report)
        return MemoryStats(
            source=f"{report.source}, sampled device memory" if report.source else f"unknown: {report.problem}",
            used_bytes=reading.memory_used_bytes,
            total_bytes=reading.memory_total_bytes,
        )

    def runtime_knobs(self) -> tuple[Knob, ...]:
        """Return nothing: the stack is not known to have settings of its own."""
        return ()

    precision_knobs = runtime_knobs


STACKS: Final[dict[str, P800]] = {"r300": R300(), "p800": P800()}


def _find(numbered: Sequence[tuple[int, DeviceReading]], entry: str) -> tuple[int, DeviceReading] | None:
    uuid = entry.lower().removeprefix("gpu-")
    return only(
        (position, reading)
        for position, reading in numbered
        if entry == str(position if reading.device_id is None else reading.device_id)
        or (reading.uuid and uuid == reading.uuid)
    )
