"""Frozen dataclasses that core and plugins exchange.

Field names include the unit. ``None`` means *unknown* and is never replaced by 0. This module does not import torch;
hooks pass torch objects, such as a ``torch.device`` or a model, directly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Literal, TypeAlias

from chipperf.languages import Translated

# What hooks return is checked against these annotations at run time.
from chipperf.precisions import HalfType, Precision  # noqa: TC001

API_VERSION = "1.0"
"""Version of the hook specification. A plugin declares the version that it was written for."""


class Capability(str, Enum):
    """A feature that a vendor plugin declares. The contract suite checks each declared feature."""

    DISTRIBUTED = "distributed"
    TELEMETRY = "telemetry"
    BF16 = "bf16"
    FP16 = "fp16"
    TF32 = "tf32"
    DETERMINISTIC = "deterministic"
    MEMORY_RESERVED = "memory_reserved"
    MULTI_DEVICE = "multi_device"
    CHANNELS_LAST = "channels_last"
    UNIFIED_MEMORY = "unified_memory"
    UUID = "uuid"

    __str__ = str.__str__


@dataclass(frozen=True, slots=True, kw_only=True)
class Title(Translated):
    """A text of a report, in English and in Chinese. A report in another language shows the English text.

    Without Chinese it is one of core's own texts, which the translations of :mod:`chipperf.languages` have.
    """

    zh: str | None = None
    en: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownDevice:
    """A product of the vendor: its name as the runtime or management library reports it, its name in a report's
    tables, and its memory according to the data sheet.
    """

    name: str
    short_name: str
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VendorInfo:
    """Names, device type, capabilities and products of a vendor.

    Attributes:
        name: The entry point's name, ``[a-z][a-z0-9_]*``.
        title: The vendor's name in a report.
        report_title: Heading of a report's configuration section.
        device_type: ``torch.device`` type. Several vendors use ``cuda``.
        api_version: The :data:`API_VERSION` that the plugin was written for.
        visible_devices_env: Environment variables that restrict the visible devices, in order of precedence.
        capabilities: Features that the plugin implements in addition to the required hooks.
    """

    name: str
    title: Title
    report_title: Title
    device_type: str
    api_version: str = API_VERSION
    visible_devices_env: tuple[str, ...] = ()
    capabilities: frozenset[Capability] = frozenset()
    known_devices: tuple[KnownDevice, ...] = ()

    def short_name(self, device_name: str) -> str:
        """Return the short name of the product ``device_name``, or ``device_name`` if the product is unknown."""
        names = {device.name.casefold(): device.short_name for device in self.known_devices}
        return names.get(device_name.casefold(), device_name)


PluginDescription: TypeAlias = tuple[VendorInfo, tuple[str, ...]]
"""What is known of a vendor's plugin without a device: its info, and the required hooks that it lacks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbedDevice:
    """A device's physical identity, found without loading a runtime or creating a context."""

    index: int
    name: str
    uuid: str | None = None
    pci_bus_id: str | None = None
    total_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """The vendor's devices on this machine, in the order of the management library.

    Attributes:
        available: True if at least one device can be used.
        reason: If available, what was found. Otherwise why there is no device, and what to do.
        driver_version: Version of the kernel driver, if it can be read without a runtime.
    """

    available: bool
    reason: str
    devices: tuple[ProbedDevice, ...] = ()
    driver_version: str | None = None

    def __post_init__(self) -> None:
        if self.available != bool(self.devices):
            raise ValueError("ProbeResult.available must be True exactly if there are devices")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rank:
    """The ranks of a process in a job. The defaults describe a job of one process."""

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    local_world_size: int = 1
    node_rank: int = 0

    @property
    def is_main(self) -> bool:
        """True for global rank 0, the process that writes records."""
        return self.rank == 0

    @property
    def node_count(self) -> int:
        """Number of machines, if each has the same number of processes."""
        return max(1, self.world_size // self.local_world_size)

    @property
    def topology(self) -> str:
        """Number of machines x processes per machine, for example ``1x8``."""
        return f"{self.node_count}x{self.local_world_size}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentSettings:
    """Settings of a run, for the hook that returns the environment variables of its workers."""

    case: str
    precision: Precision
    deterministic: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentVariable:
    """A variable to set before a worker's interpreter starts, with the reason."""

    name: str
    value: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Knob:
    """A setting that changes numerics or speed, with its current value."""

    name: str
    value: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeInfo:
    """Versions of the vendor's stack.

    Attributes:
        torch: ``torch.__version__``.
        driver: Version of the kernel driver.
        sdk: Version of the vendor's SDK or toolkit.
        collectives: Name and version of the collective library.
        framework: Vendor's torch extension or build, as a report shows it.
        knobs: Current settings of the runtime, set by the plugin or by the user.
    """

    torch: str
    driver: str | None = None
    sdk: str | None = None
    collectives: str | None = None
    framework: str | None = None
    compiler: str | None = None
    knobs: tuple[Knob, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceInfo:
    """Identity of the device that a worker trains on. ``total_bytes`` is read from the device."""

    index: int
    name: str
    uuid: str | None = None
    pci_bus_id: str | None = None
    total_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryStats:
    """Memory of one device. A peak is the highest value since the last reset.

    Attributes:
        source: Source of the numbers, for example ``torch.cuda allocator`` or ``process RSS``.
        allocated_bytes: Memory that tensors use, or that the process uses; ``source`` says which.
        reserved_bytes: Memory that the allocator holds.
        used_bytes: Memory in use on the whole device, by all processes.
        total_bytes: Capacity of the device.
    """

    source: str
    allocated_bytes: int | None = None
    peak_allocated_bytes: int | None = None
    reserved_bytes: int | None = None
    peak_reserved_bytes: int | None = None
    used_bytes: int | None = None
    total_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DdpOptions:
    """Arguments of ``DistributedDataParallel`` that a vendor may choose. They change speed, not results."""

    bucket_cap_mb: int = 25
    gradient_as_bucket_view: bool = True
    broadcast_buffers: bool = False
    static_graph: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DistributedConfig:
    """How core initializes the process group.

    Attributes:
        backend: Name for ``torch.distributed``. A combination such as ``cpu:gloo,cuda:nccl`` is allowed.
        init_method: Address of the rendezvous. ``env://`` uses the launcher's environment variables.
        timeout_s: Time after which a collective counts as failed. Ranks wait for minutes while one evaluates.
    """

    backend: str
    init_method: str = "env://"
    timeout_s: float = 1800.0
    ddp: DdpOptions = DdpOptions()


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecisionPolicy:
    """How the device runs a requested precision.

    Attributes:
        effective: Arithmetic of matrix products on the hardware.
        autocast_dtype: Type for ``torch.autocast``; ``None`` runs without autocast.
        grad_scaler: True if gradients are scaled to avoid underflow in fp16.
        knobs: Every setting that affects the precision, with its current value.
    """

    requested: Precision
    effective: str
    autocast_dtype: HalfType | None = None
    grad_scaler: bool = False
    knobs: tuple[Knob, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderOptions:
    """A vendor's options of the data loader. ``None`` keeps core's default."""

    pin_memory: bool = False
    workers_per_rank: int | None = None
    start_method: Literal["fork", "spawn", "forkserver"] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseOverride:
    """A hyperparameter that a vendor sets for its devices, with the reason."""

    key: str
    value: bool | int | float | str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseOverrides:
    """A vendor's hyperparameters for one case and topology, with notes, for example on omitted overrides."""

    overrides: tuple[CaseOverride, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetrySample:
    """One telemetry reading of a device."""

    source: str
    power_w: float | None = None
    temperature_c: float | None = None
    utilization_percent: float | None = None
    memory_used_bytes: int | None = None
    clock_mhz: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCommand:
    """A call of a management tool whose output the plugin parses. The call must not change the device.

    Attributes:
        name: Name of the recording, for example ``acme-smi-query``.
        private_patterns: Regular expressions for private text in the output, such as serial numbers, which is replaced.
            UUIDs and the host's name are always replaced.
    """

    name: str
    argv: tuple[str, ...]
    private_patterns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PeakFlops:
    """Dense peak rate of matrix products, with the source of the number."""

    flops_per_s: float
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    """Observer event: every worker is ready and training starts. Observers may write files to ``directory``.

    A resumed run goes on after ``step`` optimizer steps. Events of its former sessions come again if they are of later
    steps, and may come again if they are not.
    """

    run_id: str
    directory: str
    case: str
    vendor: str
    precision: str
    world_size: int
    hyperparameters: Mapping[str, bool | int | float | str]
    step: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowFinished:
    """Observer event: a measurement window ended, with ``samples`` over all ranks in ``seconds``.

    ``loss`` is ``None`` if it is not finite. ``learning_rate`` is the rate of the optimizer's first parameter group in
    the last step.
    """

    run_id: str
    step: int
    epoch: int
    samples: int
    seconds: float
    loss: float | None
    learning_rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochFinished:
    """Observer event: an epoch's training steps are finished. ``memory`` contains the peaks of rank 0 since warm-up."""

    run_id: str
    epoch: int
    step: int
    mean_loss: float | None
    memory: MemoryStats


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationFinished:
    """Observer event: an evaluation is finished. ``epoch`` may be fractional.

    ``value`` is a fraction, or ``None`` if it is not defined for the data.
    """

    run_id: str
    epoch: float
    step: int
    metric: str
    value: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished:
    """Observer event: the run completed. ``record_path`` is the path of its record."""

    run_id: str
    record_path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFailed:
    """Observer event: the run failed."""

    run_id: str
    failure_class: str
    message: str


Event = RunStarted | WindowFinished | EpochFinished | EvaluationFinished | RunFinished | RunFailed
"""An event for observers. Each type of event has one hook."""
