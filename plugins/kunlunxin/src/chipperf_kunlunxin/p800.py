"""The P800's stack: XPyTorch, which presents its devices as ``cuda`` and its collectives as ``nccl``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from chipperf import Capability, DeviceInfo, EnvironmentVariable, Knob
from chipperf.hardware import DeviceReading
from chipperf.torchtools import (
    CUDNN_BENCHMARK,
    CUDNN_DETERMINISTIC,
    CUDNN_TF32,
    DETERMINISTIC_ALGORITHMS,
    MATMUL_PRECISION,
    read_memory,
    set_switch,
    switch_knobs,
    use_device,
)

from chipperf_kunlunxin import machine
from chipperf_kunlunxin.stack import TOOL_TIMEOUT_S, Stack
from chipperf_kunlunxin.xpu_smi import find_reading, identify_devices
from chipperf_kunlunxin.xpu_smi_output import normalize_uuid

if TYPE_CHECKING:
    import torch
    from chipperf import EnvironmentSettings, MemoryStats, Rank

# Kunlunxin's older variable is reported to break the import of XPyTorch.
_STRAY_VARIABLE: Final = "XPU_VISIBLE_DEVICES"

_FLOAT64: Final = Knob(name="float64", value="computed as float32", reason="the stack narrows float64 without a word")
_RUNTIME_SWITCHES: Final = {
    "cudnn.enabled": "whether torch asks cuDNN for convolutions; XPyTorch is said to force False",
    CUDNN_BENCHMARK: "choice of convolution algorithms; without cuDNN it has no known effect",
}
_PRECISION_SWITCHES: Final = {
    MATMUL_PRECISION: "fp32 products are not to be rounded; XPyTorch is not known to read it",
    CUDNN_TF32: "fp32 convolutions are not to be rounded; XPyTorch is not known to read it",
    CUDNN_DETERMINISTIC: "as the run asks; without cuDNN it has no known effect",
    DETERMINISTIC_ALGORITHMS: "as the run asks; operators without such an algorithm stop the run",
}


class P800(Stack):
    """The current stack."""

    device_type = "cuda"
    visible_devices_env = "CUDA_VISIBLE_DEVICES"
    # CUDA_VISIBLE_DEVICES=6,2 was seen to give device 2 the lower number.
    keeps_visible_order = False
    capabilities = frozenset(
        {
            Capability.BF16,
            Capability.DISTRIBUTED,
            Capability.FP16,
            Capability.MEMORY_RESERVED,
            Capability.MULTI_DEVICE,
            Capability.TELEMETRY,
            Capability.UUID,
        }
    )
    # XPyTorch puts its own library behind the name.
    backend = "nccl"
    # Copies from page-locked memory have been seen to be right.
    pin_memory = True
    who = "chipperf on the P800"
    refusals = {"tf32": "the P800's torch has no TF32 mode"}

    def environment(self, rank: Rank, settings: EnvironmentSettings) -> tuple[EnvironmentVariable, ...]:
        """Return what XPyTorch and its collectives read when the interpreter starts."""
        variables = [
            EnvironmentVariable(
                name="CUDART_DUMMY_REGISTER",
                value="1",
                reason="XPyTorch's installation needs it before torch is imported",
            )
        ]
        if rank.world_size > 1 and self.uses_flagcx():
            variables.append(
                EnvironmentVariable(name="FLAGCX_ADAPTOR", value="klx", reason="FlagCX drives Kunlunxin's devices")
            )
        if rank.node_count > 1:
            variables.append(
                EnvironmentVariable(name="BKCL_ENABLE_XDR", value="1", reason="device-direct RDMA between machines")
            )
        return tuple(variables)

    def device_init(self, rank: Rank) -> torch.device:
        """Make the rank's device current, if there is one: a wrong number makes all later calls of a process fail."""
        return use_device(
            self.device_module(), "cuda", rank, called="XPU", visible_devices_env=(self.visible_devices_env,)
        )

    def device_info(self, device: torch.device) -> DeviceInfo:
        """Identify the device by its UUID: torch calls every device ``GPU`` and gives it the PCI address 0."""
        properties = self.device_module().get_device_properties(device)
        uuid = normalize_uuid(str(getattr(properties, "uuid", None) or ""))
        survey, _ = identify_devices(timeout_s=TOOL_TIMEOUT_S)
        reading = find_reading(survey.readings, uuid=uuid, pci_bus_id=None) or DeviceReading()
        return DeviceInfo(
            index=device.index or 0,
            name=reading.name or machine.installed_product_name(),
            uuid=uuid,
            pci_bus_id=reading.pci_bus_id,
            total_bytes=int(properties.total_memory),
        )

    def synchronize(self, device: torch.device) -> None:
        """Wait for all of the device's streams."""
        self.device_module().synchronize(device)

    def memory_query(self, device: torch.device) -> MemoryStats:
        """Read the allocator's counters, which are unknown where the stack has none, and the device's use."""
        return read_memory(self.device_module(), device)

    def memory_reset_peak(self, device: torch.device) -> None:
        """Set the allocator's peaks back; XPyTorch may have taken the function out of ``torch.cuda``."""
        reset = getattr(self.device_module(), "reset_peak_memory_stats", None)
        if reset is not None:
            reset(device)

    def device_module(self) -> Any:
        """Return ``torch.cuda``, which XPyTorch replaces."""
        import torch

        return torch.cuda

    def runtime_knobs(self) -> tuple[Knob, ...]:
        """Return what the stack does without a word, and the variable of the older stack if it is set."""
        stray = os.environ.get(_STRAY_VARIABLE)
        reason = f"not this stack's: use {self.visible_devices_env}"
        strays = () if stray is None else (Knob(name=_STRAY_VARIABLE, value=stray, reason=reason),)
        return (_FLOAT64, *switch_knobs(_RUNTIME_SWITCHES), *strays)

    def precision_knobs(self) -> tuple[Knob, ...]:
        """Switch rounding of fp32 products off."""
        set_switch(MATMUL_PRECISION, "highest")
        set_switch(CUDNN_TF32, False)
        return switch_knobs(_PRECISION_SWITCHES)
