"""The R300's stack: torch with ``torch_xmlir``, device type ``xpu``, collectives ``xccl``.

Upstream torch gives the names ``xpu`` and ``xccl`` to Intel's devices; nothing here uses ``torch.xpu``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from chipperf import Capability, DeviceError, DeviceInfo, EnvironmentVariable, MemoryStats
from chipperf.hardware import DeviceReading

from chipperf_kunlunxin import machine
from chipperf_kunlunxin.software import torch_xmlir
from chipperf_kunlunxin.stack import TOOL_TIMEOUT_S, Stack
from chipperf_kunlunxin.xpu_smi import Survey, identify_devices, survey_devices

if TYPE_CHECKING:
    import torch
    from chipperf import EnvironmentSettings, Rank

# All of the chip's L3, which FlagPerf's R300 cases give to the operators.
_L3_BYTES: Final = 63 * 2**20

_XACC_REASON = "FlagPerf trains this case on the R300 with the xacc compiler"

_CASE_ENVIRONMENT: Final[dict[str, tuple[EnvironmentVariable, ...]]] = {
    "mobilenetv2": (EnvironmentVariable(name="XACC_ENABLE", value="1", reason=_XACC_REASON),),
    "detr": (
        # The two cases spell the switch differently; which spelling a release of xacc reads is not documented.
        EnvironmentVariable(name="XACC", value="1", reason=_XACC_REASON),
        EnvironmentVariable(
            name="OMP_NUM_THREADS", value="1", reason="FlagPerf's R300 configuration: one host thread per rank"
        ),
    ),
}
"""Environment variables by case name, those that depend on the case alone."""


class R300(Stack):
    """The stack of FlagPerf's R300 cases."""

    device_type = "xpu"
    visible_devices_env = "XPU_VISIBLE_DEVICES"
    keeps_visible_order = True
    capabilities = frozenset({Capability.DISTRIBUTED, Capability.MULTI_DEVICE, Capability.TELEMETRY})
    backend = "xccl"
    collectives = "XCCL"
    # This stack is not known to have page-locked memory.
    pin_memory = False
    who = "chipperf on the R300"
    refusals = {
        "tf32": "the R300 has no TF32",
        "bf16": "the R300's autocast knows fp16 only",
        "amp": "its gradient scaler is Kunlunxin's own, with which no training has been published",
        "fp16": "training with fp16 parameters has not been shown to work: FlagPerf runs fp32 when it is asked for",
    }

    def environment(self, rank: Rank, settings: EnvironmentSettings) -> tuple[EnvironmentVariable, ...]:
        """Return FlagPerf's settings for the case, and those of the collectives if there are several devices."""
        variables = [
            EnvironmentVariable(
                name="XMLIR_D_XPU_L3_SIZE",
                value=str(_L3_BYTES),
                reason="operators use the chip's 63 MiB of L3 as scratch",
            ),
            *_CASE_ENVIRONMENT.get(settings.case, ()),
        ]
        if rank.world_size > 1:
            variables += [
                EnvironmentVariable(
                    name="BKCL_PCIE_RING", value="1", reason="ring over PCIe, as in FlagPerf's R300 configurations"
                ),
                EnvironmentVariable(
                    name="BKCL_TIMEOUT", value="1800", reason="a collective that takes 30 minutes has failed"
                ),
            ]
        return tuple(variables)

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

    def device_info(self, device: torch.device) -> DeviceInfo:
        """Identify the device by the tool: ``xpu:N`` is the N-th visible one, which nothing lets us check."""
        reading = self._reading_of(device, identify_devices(timeout_s=TOOL_TIMEOUT_S)[0])
        return DeviceInfo(
            index=device.index or 0,
            name=reading.name or machine.installed_product_name(),
            uuid=reading.uuid,
            pci_bus_id=reading.pci_bus_id,
            total_bytes=reading.memory_total_bytes,
        )

    def synchronize(self, device: torch.device) -> None:
        """Wait for the device of this process."""
        self.device_module().xpu_synchronize()

    def memory_query(self, device: torch.device) -> MemoryStats:
        """Read what the tool says: the stack has no allocator counters, so peaks are those of sampled telemetry."""
        survey = survey_devices(timeout_s=TOOL_TIMEOUT_S)
        reading = self._reading_of(device, survey)
        return MemoryStats(
            source=f"{survey.source}, sampled device memory" if survey.source else f"unknown: {survey.problem}",
            used_bytes=reading.memory_used_bytes,
            total_bytes=reading.memory_total_bytes,
        )

    def memory_reset_peak(self, device: torch.device) -> None:
        """Do nothing: there is no peak counter."""

    def device_module(self) -> Any:
        """Return the extension's own module."""
        return torch_xmlir().xpu

    def _reading_of(self, device: torch.device, survey: Survey) -> DeviceReading:
        visible = self.visible(survey.readings)
        index = device.index or 0
        return visible[index] if index < len(visible) else DeviceReading()
