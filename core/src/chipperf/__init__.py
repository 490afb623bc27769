"""chipperf: the public interface for plugin authors.

A vendor or observer plugin imports from this module, from :mod:`chipperf.hardware` (probes and telemetry) and from
:mod:`chipperf.torchtools` (torch helpers). Everything else may change between minor versions.
"""

from chipperf.errors import DataError, DeviceError, PerfError, PluginError, TrainingError, UnsupportedPrecision
from chipperf.plugin.hookspecs import hookimpl
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
from chipperf.plugin.vendor_files import read_case_overrides, read_products, read_variables, read_vendor_info
from chipperf.precisions import Precision

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
