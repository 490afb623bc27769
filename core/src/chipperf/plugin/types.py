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


_LEAST_OF_WHOLE = 15 / 16 * (1000 / 1024) ** 3
"""Share of a data sheet's memory that a whole card reports if ECC takes 1 byte in 16 and the sheet counts in 10**9."""


class Capability(str, Enum):
    """A feature that a vendor plugin declares [A12]. Core does without a feature that is not declared.

    Attributes:
        DISTRIBUTED: Several ranks train together [P1, P2, P3, P4, P7, P8, P11, P12].
        TELEMETRY: ``perf_telemetry`` reads the device while it trains [R1].
        BF16: Training with autocast to bf16, and in bf16, works [N3].
        FP16: Training with autocast to fp16 and scaled gradients, and in fp16, works [N3, N4].
        TF32: Products of fp32 can run as TF32 [N3].
        DETERMINISTIC: Two runs can give bit-equal results [S3, S5].
        MEMORY_RESERVED: ``perf_memory_query`` reports what the allocator holds beyond the tensors [M8].
        MULTI_DEVICE: One process can use several devices, each with its own memory and queue [M6, T5].
        CHANNELS_LAST: Convolutions run in the memory format channels-last [N6].
        UNIFIED_MEMORY: The device has no memory of its own but the host's [M1].
        UUID: Every device has a UUID, for probe, runtime and telemetry alike [B5, D7].
    """

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
    """A text of a report.

    Attributes:
        zh: Chinese text [A10]. Core's own texts have none here, but in the translations of :mod:`chipperf.languages`.
        en: English text, also for languages without a text of their own [A10].
    """

    zh: str | None = None
    en: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownDevice:
    """A product of the vendor.

    Attributes:
        name: Its name as the runtime or the management library reports it [A10].
        short_name: Its name in a report's tables [R4].
        memory_bytes: Its memory according to the data sheet [A10, D7].
    """

    name: str
    short_name: str
    memory_bytes: int | None = None

    def is_more_than(self, total_bytes: float) -> bool:
        """Return whether a whole card reports more than ``total_bytes``, as far as its memory is known."""
        return self.memory_bytes is not None and total_bytes < self.memory_bytes * _LEAST_OF_WHOLE

    def part(self, total_bytes: float) -> str | None:
        """Return what part of a card a device with so much memory is, ``None`` for a whole card."""
        return f"part with {total_bytes / 2**30:.1f} GiB" if self.is_more_than(total_bytes) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class VendorInfo:
    """Names, device type, capabilities and products of a vendor.

    Attributes:
        name: The entry point's name, ``[a-z][a-z0-9_]*`` [A2].
        title: The vendor's name in a report [R4].
        report_title: Heading of a report's configuration section [R3, R4].
        device_type: ``torch.device`` type, which several vendors may share [D1].
        api_version: The :data:`API_VERSION` that the plugin was written for, of core's major version and not of a later
            minor one [A11].
        visible_devices_env: Environment variables that restrict the visible devices, in order of precedence [B6].
        capabilities: Features that the plugin implements in addition to the required hooks [A12].
        known_devices: Products that it was written for [A10].
    """

    name: str
    title: Title
    report_title: Title
    device_type: str
    api_version: str = API_VERSION
    visible_devices_env: tuple[str, ...] = ()
    capabilities: frozenset[Capability] = frozenset()
    known_devices: tuple[KnownDevice, ...] = ()

    def product(self, device_name: str) -> KnownDevice | None:
        """Return the product ``device_name``, or ``None`` if it is unknown."""
        return next((each for each in self.known_devices if each.name.casefold() == device_name.casefold()), None)

    def short_name(self, device_name: str) -> str:
        """Return the short name of the product ``device_name``, or ``device_name`` if the product is unknown."""
        product = self.product(device_name)
        return product.short_name if product else device_name


PluginDescription: TypeAlias = tuple[VendorInfo, tuple[str, ...]]
"""What is known of a vendor's plugin without a device: its info, and the required hooks that it lacks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbedDevice:
    """A device's physical identity, found without loading a runtime or creating a context [B3].

    Attributes:
        index: Its place among the visible devices, from 0 without gaps [B5, B6].
        name: Product name, as the runtime reports it too [D7].
        uuid: Unique id, the same for the runtime [B5, D7].
        pci_bus_id: Address on the PCI bus, the same for the runtime [D7].
        total_bytes: Capacity [D7].
        part: What part of a card it is, for example ``slice 25%``, or ``None`` for a whole card [D7]. Core puts it
            into the name, so that it is never mistaken for the whole card.
    """

    index: int
    name: str
    uuid: str | None = None
    pci_bus_id: str | None = None
    total_bytes: int | None = None
    part: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """The vendor's devices on this machine.

    Attributes:
        available: True if at least one device can be used [B2].
        reason: What was found [B2]. Without a device: why there is none, and what to do [B2].
        devices: The visible devices, in the order of the runtime [B5, B6].
        driver_version: Version of the kernel driver, if it can be read without a runtime [B5].
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
    """A variable to set before a worker's interpreter starts.

    Attributes:
        name: Name of the variable [P10].
        value: Its text [P10].
        reason: What it does, for the record [A10].
    """

    name: str
    value: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Knob:
    """A setting that changes numerics or speed.

    Attributes:
        name: Name of the switch or variable [N2].
        value: Its current value, also if the user set it [N2].
        reason: What it changes [A10].
    """

    name: str
    value: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeInfo:
    """Versions of the vendor's stack.

    Attributes:
        torch: ``torch.__version__`` [D7].
        driver: Version of the kernel driver [R5].
        sdk: Version of the vendor's SDK or toolkit [R5].
        collectives: Name and version of the collective library [R5].
        framework: Vendor's torch extension or build, as a report shows it [R5].
        compiler: Name and version of the vendor's compiler of kernels [R5].
        knobs: Current settings of the runtime, set by the plugin or by the user [N2].
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
    """Identity of the device that a worker trains on.

    Attributes:
        index: Its index for torch, whatever its number in the machine [B6, D7].
        name: Product name [D7, D8].
        uuid: Unique id, as the probe finds it [D7].
        pci_bus_id: Address on the PCI bus, as the probe finds it [D7].
        total_bytes: Capacity, as the device reports it [D7, M1].
        part: What part of a card the device is, as the probe finds it [D7].
    """

    index: int
    name: str
    uuid: str | None = None
    pci_bus_id: str | None = None
    total_bytes: int | None = None
    part: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryStats:
    """Memory of one device, and of no other [M6]. What is unknown is ``None``, not 0 [M8].

    Attributes:
        source: Source of the numbers, for example ``torch.cuda allocator`` or ``process RSS`` [R5].
        allocated_bytes: Memory that tensors use, or that the process uses; ``source`` says which [M2, M7].
        peak_allocated_bytes: Highest value of it since the last reset [M3].
        reserved_bytes: Memory that the allocator holds, with ``memory_reserved`` [M8].
        peak_reserved_bytes: Highest value of it since the last reset [M8].
        used_bytes: Memory in use on the whole device, by all processes [M2].
        total_bytes: Capacity of the device [M1].
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
    """Arguments of ``DistributedDataParallel`` that a vendor may choose; they change speed, not results [P4].

    Attributes:
        bucket_cap_mb: Gradients are reduced in buckets of this many MiB [P4].
        gradient_as_bucket_view: Gradients are views of the buckets [P4].
        broadcast_buffers: Buffers are those of rank 0 in every step [P4].
    """

    bucket_cap_mb: int = 25
    gradient_as_bucket_view: bool = True
    broadcast_buffers: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DistributedConfig:
    """How core initializes the process group.

    Attributes:
        backend: Name for ``torch.distributed``, or a combination such as ``cpu:gloo,cuda:nccl`` [P1].
        init_method: Address of the rendezvous; ``env://`` uses the launcher's environment variables [P1, P9].
        timeout_s: Time after which a collective counts as failed: minutes, in which one rank evaluates [P1, P8, P11].
        ddp: Options of ``DistributedDataParallel`` [P4].
    """

    backend: str
    init_method: str = "env://"
    timeout_s: float = 1800.0
    ddp: DdpOptions = DdpOptions()


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecisionPolicy:
    """How the device runs a requested precision.

    Attributes:
        requested: The precision that the hook was asked for [N3].
        effective: Arithmetic of matrix products on the hardware [N1, N3].
        autocast_dtype: Type for ``torch.autocast``; ``None`` runs without autocast [N3].
        grad_scaler: True if gradients are scaled to avoid underflow in fp16 [N4].
        knobs: Every setting that affects the precision, with its current value [N2].
    """

    requested: Precision
    effective: str
    autocast_dtype: HalfType | None = None
    grad_scaler: bool = False
    knobs: tuple[Knob, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderOptions:
    """A vendor's options of the data loader. Core's default takes the place of ``None``.

    Attributes:
        pin_memory: Batches are in memory from which the device copies by itself [R5].
        workers_per_rank: Number of loader processes for each rank [R5].
        start_method: How these processes start [R5].
    """

    pin_memory: bool = False
    workers_per_rank: int | None = None
    start_method: Literal["fork", "spawn", "forkserver"] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseOverride:
    """A hyperparameter that a vendor sets for its devices.

    Attributes:
        key: A hyperparameter of the case that is not locked [C1].
        value: Its value, of the hyperparameter's type [C3].
        reason: Why this device needs it [C2].
    """

    key: str
    value: bool | int | float | str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseOverrides:
    """A vendor's hyperparameters for one case and topology.

    Attributes:
        overrides: At most one for each key [C2].
        notes: Remarks for the user, for example on omitted overrides [R3].
    """

    overrides: tuple[CaseOverride, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetrySample:
    """One telemetry reading of a device; unknown values are ``None``, not 0 [R1].

    Attributes:
        source: Library or tool that was read [R1].
        power_w: Power of the device [R1].
        temperature_c: Temperature of the device [R1].
        utilization_percent: Share of time in which the device computed [R1].
        memory_used_bytes: Memory in use on the device, by all processes [R1].
        clock_mhz: Clock of the compute units [R1].
    """

    source: str
    power_w: float | None = None
    temperature_c: float | None = None
    utilization_percent: float | None = None
    memory_used_bytes: int | None = None
    clock_mhz: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCommand:
    """A call of a management tool that the plugin parses or that shows its sensors; it changes no device [A10].

    Attributes:
        name: Name of the recording, for example ``acme-smi-query`` [A10].
        argv: The tool and its arguments [A10].
        private_patterns: Regular expressions for private text in the output, such as serial numbers [A10]. They match
            no memory, reading, time or version [A10]. Core replaces every match, UUIDs and the host's name.
    """

    name: str
    argv: tuple[str, ...]
    private_patterns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PeakFlops:
    """Dense peak rate of matrix products.

    Attributes:
        flops_per_s: Floating-point operations per second; a multiplication and an addition are two [A10].
        source: Document that states the rate [A10].
    """

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
