"""Hooks of the Kunlunxin plugin.

The hooks that train (runtime, device, memory, collectives, precision, telemetry) are not implemented in this version;
binding the plugin to a run fails with the list of what is missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chipperf import CaseOverrides, KnownDevice, Title, VendorInfo, hookimpl

from chipperf_kunlunxin.configs import CONFIGS
from chipperf_kunlunxin.probe import probe
from chipperf_kunlunxin.profiles import choose_profile

if TYPE_CHECKING:
    from chipperf import ProbeResult, Rank

_GIB = 2**30
_MIB = 2**20


@hookimpl
def perf_vendor_info() -> VendorInfo:
    """Name Kunlunxin and its products; the device type is that of the installed stack."""
    profile = choose_profile()
    return VendorInfo(
        name="kunlunxin",
        title=Title(zh="昆仑芯", en="Kunlunxin"),
        report_title=Title(zh="昆仑芯XPU配置与运行信息参考", en="Kunlunxin XPU configuration and results"),
        device_type=profile.device_type,
        visible_devices_env=(profile.visible_devices_env,),
        known_devices=(
            KnownDevice(name="R300", short_name="R300", memory_bytes=32 * _GIB),
            KnownDevice(name="R200", short_name="R200", memory_bytes=16 * _GIB),
            # A card carries two of these devices.
            KnownDevice(name="K200", short_name="K200", memory_bytes=8064 * _MIB),
            KnownDevice(name="P800 OAM", short_name="P800", memory_bytes=96 * _GIB),
            KnownDevice(name="P800 PCIe", short_name="P800-PCIe", memory_bytes=96 * _GIB),
        ),
    )


@hookimpl
def perf_probe() -> ProbeResult:
    """Find Kunlunxin's PCI devices and driver, and ask xpu-smi about them."""
    return probe()


@hookimpl
def perf_case_overrides(case: str, rank: Rank) -> CaseOverrides:
    """Return FlagPerf's R300 values for the case and topology."""
    topology = f"{rank.node_count}x{rank.local_world_size}"
    no_row = f"FlagPerf has no Kunlunxin configuration of {case} on {topology}: the case's base values apply"
    return CONFIGS.get((case, topology), CaseOverrides(notes=(no_row,)))
