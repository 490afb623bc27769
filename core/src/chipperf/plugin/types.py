"""Frozen dataclasses that cross the plugin boundary.

Units are part of the field names; ``None`` means *unknown* and is never replaced by 0. Nothing here imports torch:
a ``torch.device`` or a model crosses the boundary as itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Mapping

API_VERSION = "1.0"
"""Version of the hook specification; a plugin states the one it was written for."""

Precision = Literal["fp32", "tf32", "amp", "fp16", "bf16"]
"""Precisions a user can request.

``fp32``: IEEE single precision in every matrix product. ``tf32``: fp32 storage, TF32 products. ``amp``: fp16 autocast
with gradient scaling. ``fp16``: fp16 parameters and activations. ``bf16``: bf16 autocast, no gradient scaling.
"""

PRECISIONS: tuple[Precision, ...] = get_args(Precision)


class Capability(str, Enum):
    """What a vendor plugin declares it can do; the contract suite holds it to each."""

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
class Title:
    """A text a report shows, in Chinese and in English."""

    zh: str
    en: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownDevice:
    """A product of the vendor.

    Attributes:
        name: Product name as the runtime or management library reports it.
        short_name: Name used in a report's tables.
        memory_bytes: Device memory of this product by its data sheet.
    """

    name: str
    short_name: str
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VendorInfo:
    """Who a plugin speaks for and what it can do.

    Attributes:
        name: The entry point's name, ``[a-z][a-z0-9_]*``.
        title: The vendor's name in a report.
        report_title: Heading of a report's configuration section.
        api_version: Hook specification the plugin was written for, see :data:`API_VERSION`.
        device_type: ``torch.device`` type; several vendors share ``cuda``.
        visible_devices_env: Environment variables that restrict the visible devices, the one that wins first.
        capabilities: What the plugin implements beyond the required hooks.
        known_devices: Products of this vendor.
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
        """Return the report name of the product called ``device_name``, or that name itself if it is not known."""
        for device in self.known_devices:
            if device.name.casefold() == device_name.casefold():
                return device.short_name
        return device_name


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbedDevice:
    """A device's physical identity, found without a runtime or context."""

    index: int
    name: str
    uuid: str | None = None
    pci_bus_id: str | None = None
    total_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """Whether a vendor's devices are here.

    Attributes:
        available: True if at least one device can be used.
        reason: Why not, and what to do; what was found, if available.
        devices: Devices found, in the management library's order.
        driver_version: Kernel driver's version, if it can be read without a runtime.
    """

    available: bool
    reason: str
    devices: tuple[ProbedDevice, ...] = ()
    driver_version: str | None = None

    def __post_init__(self) -> None:
        if not self.reason.strip():
            raise ValueError("ProbeResult.reason must say what was found or why nothing was")
        if self.available != bool(self.devices):
            raise ValueError("ProbeResult.available must be True exactly if there are devices")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rank:
    """Place of a process in a job; the defaults are a job of one process."""

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    local_world_size: int = 1
    node_rank: int = 0

    @property
    def is_main(self) -> bool:
        """True on the one process of the job that writes records: global rank 0."""
        return self.rank == 0

    @property
    def node_count(self) -> int:
        """Number of machines, given the same number of processes on each."""
        return max(1, self.world_size // self.local_world_size)

    @property
    def topology(self) -> str:
        """Machines x processes per machine, for example ``1x8``."""
        return f"{self.node_count}x{self.local_world_size}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentSettings:
    """What a run is about to do, for hooks that prepare the environment of its workers."""

    case: str
    precision: Precision
    deterministic: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentVariable:
    """A variable to set before a worker's interpreter starts, and why."""

    name: str
    value: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Knob:
    """A setting that changes numerics or speed, as it is in force."""

    name: str
    value: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeInfo:
    """Versions of the vendor's stack; ``None`` is unknown.

    Attributes:
        torch: ``torch.__version__``.
        driver: Kernel driver.
        sdk: Vendor's SDK or toolkit.
        collectives: Collective library and its version.
        framework: Vendor's torch extension or build, as a report shows it.
        compiler: Training compiler.
        knobs: Settings of the runtime that are in force, whoever set them.
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
    """Identity of the device a worker trains on; ``total_bytes`` comes from the device, not from a brochure."""

    index: int
    name: str
    uuid: str | None = None
    pci_bus_id: str | None = None
    total_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryStats:
    """Memory of one device in bytes, read without changing anything.

    Attributes:
        source: Where the numbers come from, for example ``torch.cuda allocator`` or ``process RSS``.
        allocated_bytes: In use by tensors (or by the process, as ``source`` says).
        peak_allocated_bytes: Highest ``allocated_bytes`` since the last reset.
        reserved_bytes: Held by the allocator.
        peak_reserved_bytes: Highest ``reserved_bytes`` since the last reset.
        used_bytes: In use on the whole device, by everybody.
        total_bytes: Capacity of the device.
    """

    source: str
    allocated_bytes: int | None = None
    peak_allocated_bytes: int | None = None
    reserved_bytes: int | None = None
    peak_reserved_bytes: int | None = None
    used_bytes: int | None = None
    total_bytes: int | None = None

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if isinstance(value, int) and value < 0:
                raise ValueError(f"MemoryStats.{name} is negative: {value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DdpOptions:
    """Arguments of ``DistributedDataParallel`` a vendor may choose; they change speed, not results."""

    bucket_cap_mb: int = 25
    gradient_as_bucket_view: bool = True
    broadcast_buffers: bool = False
    static_graph: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DistributedConfig:
    """How core initialises the process group.

    Attributes:
        backend: Name for ``torch.distributed``; composites such as ``cpu:gloo,cuda:nccl`` are allowed.
        init_method: Rendezvous; ``env://`` uses what the launcher exported.
        timeout_s: Time after which a collective counts as failed.
        ddp: Options of the gradient synchronisation.
    """

    backend: str
    init_method: str = "env://"
    timeout_s: float = 1800.0
    ddp: DdpOptions = field(default_factory=DdpOptions)

    def __post_init__(self) -> None:
        if not (math.isfinite(self.timeout_s) and self.timeout_s > 0):
            raise ValueError(f"DistributedConfig.timeout_s must be positive, not {self.timeout_s}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecisionPolicy:
    """How a requested precision is carried out.

    Attributes:
        requested: What the user asked for.
        effective: What the hardware computes matrix products in.
        autocast_dtype: ``float16`` or ``bfloat16`` for ``torch.autocast``; ``None`` runs without autocast.
        grad_scaler: True if gradients are scaled against fp16 underflow.
        knobs: Every setting that takes part, as it is in force.
    """

    requested: Precision
    effective: str
    autocast_dtype: Literal["float16", "bfloat16"] | None = None
    grad_scaler: bool = False
    knobs: tuple[Knob, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderOptions:
    """What a vendor asks of the data loader; ``None`` leaves core's choice."""

    pin_memory: bool = False
    workers_per_rank: int | None = None
    start_method: Literal["fork", "spawn", "forkserver"] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseOverride:
    """A hyperparameter a vendor sets for its devices, and why."""

    key: str
    value: bool | int | float | str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseOverrides:
    """Hyperparameters of one case and topology, with remarks on what was deliberately left out."""

    overrides: tuple[CaseOverride, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetrySample:
    """One reading of a device; ``None`` is unknown."""

    source: str
    power_w: float | None = None
    temperature_c: float | None = None
    utilisation_percent: float | None = None
    memory_used_bytes: int | None = None
    clock_mhz: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCommand:
    """A harmless call of a management tool whose output the plugin parses.

    Attributes:
        name: Name of the recording, for example ``acme-smi-query``.
        argv: Program and arguments.
        private_patterns: Regular expressions of what must not leave the machine, such as serial numbers. UUIDs and the
            host's name are always replaced.
    """

    name: str
    argv: tuple[str, ...]
    private_patterns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PeakFlops:
    """Peak rate of matrix products, dense, and where the figure comes from."""

    flops_per_s: float
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    """Observer event: every worker is ready and training begins; ``directory`` is the run's, for more files of it."""

    run_id: str
    directory: str
    case: str
    vendor: str
    precision: str
    world_size: int
    hyperparameters: Mapping[str, bool | int | float | str]


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowFinished:
    """Observer event: a measurement window closed; ``samples`` were consumed by all ranks in ``seconds``.

    ``learning_rate`` is that of the last step, of the optimiser's first group of parameters.
    """

    run_id: str
    step: int
    epoch: int
    samples: int
    seconds: float
    loss: float
    learning_rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochFinished:
    """Observer event: an epoch's training steps are done; ``mean_loss`` is over its windows.

    ``memory`` has the main rank's peaks since warm-up.
    """

    run_id: str
    epoch: int
    step: int
    mean_loss: float
    memory: MemoryStats


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationFinished:
    """Observer event: an evaluation is done; ``value`` is a fraction, and so is ``epoch`` within an epoch."""

    run_id: str
    epoch: float
    step: int
    metric: str
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished:
    """Observer event: the run completed; ``record_path`` names its record."""

    run_id: str
    record_path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFailed:
    """Observer event: the run failed."""

    run_id: str
    failure_class: str
    message: str


Event = RunStarted | WindowFinished | EpochFinished | EvaluationFinished | RunFinished | RunFailed
"""What observers are told; each type has one hook."""
