"""Hooks of the MetaX plugin.

The hooks that train (runtime, device, memory, collectives, precision, telemetry) are not implemented in this version;
binding the plugin to a run fails with the list of what is missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chipperf import CaseOverrides, KnownDevice, Title, VendorInfo, hookimpl

from chipperf_metax.configs import CONFIGS
from chipperf_metax.probe import probe

if TYPE_CHECKING:
    from chipperf import ProbeResult, Rank

_GIB = 2**30

_INFO = VendorInfo(
    name="metax",
    title=Title(zh="沐曦", en="MetaX"),
    report_title=Title(zh="沐曦集成电路 C500 GPU配置与运行信息参考", en="MetaX C500 GPU configuration and results"),
    device_type="cuda",
    # MetaX's torch reads CUDA_VISIBLE_DEVICES only if the first one is not set.
    visible_devices_env=("MACA_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"),
    known_devices=(
        # torch names the board "MetaX C500"; mx-smi, older software and published reports name its chip, MXC500.
        KnownDevice(name="MXC500", short_name="MXC500", memory_bytes=64 * _GIB),
        KnownDevice(name="MetaX C500", short_name="MXC500", memory_bytes=64 * _GIB),
        KnownDevice(name="MetaX C550", short_name="C550", memory_bytes=64 * _GIB),
    ),
)


@hookimpl
def perf_vendor_info() -> VendorInfo:
    """Name MetaX and its products."""
    return _INFO


@hookimpl
def perf_probe() -> ProbeResult:
    """Find MetaX's PCI devices and driver, and ask mx-smi about them."""
    return probe()


@hookimpl
def perf_case_overrides(case: str, rank: Rank) -> CaseOverrides:
    """Return FlagPerf's C500 values for the case and topology."""
    topology = f"{rank.node_count}x{rank.local_world_size}"
    no_row = f"FlagPerf has no MetaX configuration of {case} on {topology}: the case's base values apply"
    return CONFIGS.get((case, topology), CaseOverrides(notes=(no_row,)))
