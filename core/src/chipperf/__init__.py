"""chipperf: the public interface for plugin authors.

A vendor or observer plugin imports from this module, from :mod:`chipperf.hardware` (probes and telemetry) and from
:mod:`chipperf.torchtools` (torch helpers). Everything else may change between minor versions.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from chipperf.errors import DataError, DeviceError, PerfError, PluginError, TrainingError, UnsupportedPrecision
from chipperf.plugin.types import (
    API_VERSION,
    Capability,
    CaseOverride,
    CaseOverrides,
    DdpOptions,
    DeviceInfo,
    DistributedConfig,
    EnvironmentSettings,
    EnvironmentVariable,
    EpochFinished,
    EvaluationFinished,
    Knob,
    KnownDevice,
    LoaderOptions,
    MemoryStats,
    PeakFlops,
    PrecisionPolicy,
    ProbedDevice,
    ProbeResult,
    Rank,
    RunFailed,
    RunFinished,
    RunStarted,
    RuntimeInfo,
    TelemetrySample,
    Title,
    ToolCommand,
    VendorInfo,
    WindowFinished,
)
from chipperf.precisions import Precision

if TYPE_CHECKING:
    from chipperf.plugin.hookspecs import hookimpl
    from chipperf.plugin.vendor_files import read_case_overrides, read_products, read_variables, read_vendor_info

__version__ = "0.1.0"

__all__ = [
    "API_VERSION",
    "Capability",
    "CaseOverride",
    "CaseOverrides",
    "DataError",
    "DdpOptions",
    "DeviceError",
    "DeviceInfo",
    "DistributedConfig",
    "EnvironmentSettings",
    "EnvironmentVariable",
    "EpochFinished",
    "EvaluationFinished",
    "Knob",
    "KnownDevice",
    "LoaderOptions",
    "MemoryStats",
    "PeakFlops",
    "PerfError",
    "PluginError",
    "Precision",
    "PrecisionPolicy",
    "ProbeResult",
    "ProbedDevice",
    "Rank",
    "RunFailed",
    "RunFinished",
    "RunStarted",
    "RuntimeInfo",
    "TelemetrySample",
    "Title",
    "ToolCommand",
    "TrainingError",
    "UnsupportedPrecision",
    "VendorInfo",
    "WindowFinished",
    "__version__",
    "hookimpl",
    "read_case_overrides",
    "read_products",
    "read_variables",
    "read_vendor_info",
]

_IMPORTED_ON_DEMAND = {
    "hookimpl": "chipperf.plugin.hookspecs",
    **dict.fromkeys(
        ("read_case_overrides", "read_products", "read_variables", "read_vendor_info"), "chipperf.plugin.vendor_files"
    ),
}
"""Only plugins need these. Every command imports this module."""


def __getattr__(name: str) -> Any:
    if name not in _IMPORTED_ON_DEMAND:
        raise AttributeError(f"module 'chipperf' has no attribute {name!r}")
    return getattr(import_module(_IMPORTED_ON_DEMAND[name]), name)
