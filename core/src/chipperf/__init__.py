"""chipperf: the public interface for plugin authors.

A vendor or observer plugin imports from this module, from :mod:`chipperf.hardware` (probes and telemetry) and from
:mod:`chipperf.torchtools` (torch helpers). A program that reads records imports from :mod:`chipperf.records`. A package
of cases imports from this module, from ``base``, ``workload`` and ``workload_parts`` of :mod:`chipperf.cases`, and from
``dataset_check``, ``dataset_identity`` and ``generated_dataset`` of :mod:`chipperf.data`. Everything else may change
between minor versions.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from chipperf.errors import DataError as DataError
from chipperf.errors import DeviceError as DeviceError
from chipperf.errors import PerfError as PerfError
from chipperf.errors import PluginError as PluginError
from chipperf.errors import TrainingError as TrainingError
from chipperf.errors import UnsupportedPrecision as UnsupportedPrecision
from chipperf.plugin.types import API_VERSION as API_VERSION
from chipperf.plugin.types import Capability as Capability
from chipperf.plugin.types import CaseOverride as CaseOverride
from chipperf.plugin.types import CaseOverrides as CaseOverrides
from chipperf.plugin.types import DdpOptions as DdpOptions
from chipperf.plugin.types import DeviceInfo as DeviceInfo
from chipperf.plugin.types import DistributedConfig as DistributedConfig
from chipperf.plugin.types import EnvironmentSettings as EnvironmentSettings
from chipperf.plugin.types import EnvironmentVariable as EnvironmentVariable
from chipperf.plugin.types import EpochFinished as EpochFinished
from chipperf.plugin.types import EvaluationFinished as EvaluationFinished
from chipperf.plugin.types import Knob as Knob
from chipperf.plugin.types import KnownDevice as KnownDevice
from chipperf.plugin.types import LoaderOptions as LoaderOptions
from chipperf.plugin.types import MemoryStats as MemoryStats
from chipperf.plugin.types import PeakFlops as PeakFlops
from chipperf.plugin.types import PrecisionPolicy as PrecisionPolicy
from chipperf.plugin.types import ProbedDevice as ProbedDevice
from chipperf.plugin.types import ProbeResult as ProbeResult
from chipperf.plugin.types import Rank as Rank
from chipperf.plugin.types import RunFailed as RunFailed
from chipperf.plugin.types import RunFinished as RunFinished
from chipperf.plugin.types import RunStarted as RunStarted
from chipperf.plugin.types import RuntimeInfo as RuntimeInfo
from chipperf.plugin.types import TelemetrySample as TelemetrySample
from chipperf.plugin.types import Title as Title
from chipperf.plugin.types import ToolCommand as ToolCommand
from chipperf.plugin.types import VendorInfo as VendorInfo
from chipperf.plugin.types import WindowFinished as WindowFinished
from chipperf.precisions import Precision as Precision

if TYPE_CHECKING:
    from chipperf.plugin.hookspecs import hookimpl as hookimpl
    from chipperf.plugin.vendor_files import read_case_overrides as read_case_overrides
    from chipperf.plugin.vendor_files import read_products as read_products
    from chipperf.plugin.vendor_files import read_variables as read_variables
    from chipperf.plugin.vendor_files import read_vendor_info as read_vendor_info

__version__ = "0.1.0"

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
