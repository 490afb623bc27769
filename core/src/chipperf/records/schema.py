"""Schema of ``record.json``: the measurements of a run and the facts needed to trust them.

An absent value is a :class:`Missing` with the reason, never blank and never 0. Times are seconds, memory is bytes,
rates are samples per second and qualities are fractions. ``docs/record.schema.json`` is this module exported as JSON
Schema.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from chipperf.languages import Translated

SCHEMA_VERSION = 2
"""Version of the record's fields. :mod:`chipperf.records.upgrade` reads earlier versions."""

METRICS_VERSION = 1
"""Version of the metric definitions in ``docs/metrics.md``. A table never mixes versions."""

MetricsDefinition = Literal["chipperf", "flagperf", "mlperf"]
"""The definitions that values follow: ``docs/metrics.md``, FlagPerf's code, as in hand-written reports, or MLPerf."""

MINIMUM_WINDOWS = 5
"""Minimum number of windows for a throughput; with fewer, the median and its spread are not meaningful."""

LEAST_COVERAGE = 0.95
"""Fraction of the training that must have readings of a device; of less, no value is stated."""

MissingKind = Literal["not_run", "withheld", "failed", "not_applicable", "unknown"]


class StrictModel(BaseModel):
    """A frozen model that refuses unknown fields and numbers that are not finite."""

    # Built at their first use: many commands import dozens of models and validate none.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)


class Missing(StrictModel):
    """The reason why a value is absent."""

    missing: MissingKind
    reason: str = ""


UNKNOWN_NAME = "unknown"
"""Text for an unknown name that a record requires."""

Number = FiniteFloat | Missing
Text = str | Missing
Bytes = Annotated[int, Field(ge=0)] | Missing
Setting = bool | int | float | str

UNKNOWN = Missing(missing="unknown")
NOT_REACHED = Missing(missing="not_run", reason="the run did not come this far")

_NO_ITEMS: list[Any] = []
"""Default of a list that a file must state, see :func:`fields_a_file_states`."""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Failure(StrictModel):
    """Why a run did not complete."""

    failure_class: str
    message: str
    rank: int | None = None
    hint: str | None = None


class Status(StrictModel):
    """State of a run. ``running`` in a record whose process is gone means that the run was killed."""

    state: Literal["running", "completed", "failed", "interrupted", "killed"]
    failure: Failure | None = None


class Distribution(StrictModel):
    """An installed Python distribution."""

    name: str
    version: str


class Titles(StrictModel, Translated):
    """A text in Chinese and in English."""

    zh: str
    en: str


class Vendor(StrictModel):
    """The plugin that ran."""

    name: str
    title: Titles
    report_title: Titles
    device_type: str
    api_version: str
    plugin: Distribution


class CaseRecord(StrictModel):
    """The case that ran. With ``lower_is_better``, as for a loss, quality and target may exceed 1."""

    name: str
    version: str
    preset: str
    metric: str
    target: float | Missing
    lower_is_better: bool = False


class Topology(StrictModel):
    """Machines and processes; one process drives one device."""

    nnodes: Annotated[int, Field(ge=1)]
    nproc_per_node: Annotated[int, Field(ge=1)]

    @property
    def world_size(self) -> int:
        """Number of processes in the job."""
        return self.nnodes * self.nproc_per_node

    @property
    def label(self) -> str:
        """Machines x devices per machine, for example ``1x8``."""
        return f"{self.nnodes}x{self.nproc_per_node}"


class KnobRecord(StrictModel):
    """A setting in force that changes numerics or speed."""

    name: str
    value: str
    reason: str
    origin: Literal["vendor", "user", "core"]


class PrecisionRecord(StrictModel):
    """Requested, declared and measured precision.

    The vendor declares ``effective``. The measured fields name the arithmetic that the results of products show, the
    narrowest of all devices; ``measured_products`` has it for each product and pass. See
    :mod:`chipperf.train.effective_precision`.
    """

    requested: str
    effective: Text
    measured_matmul: Text = Missing(missing="not_run")
    measured_convolution: Text = Missing(missing="not_run")
    measured_products: dict[str, str] = {}
    autocast_dtype: str | None
    grad_scaler: bool


class HyperparameterChange(StrictModel):
    """A difference from the case's base value; ``fix_hp`` is computed from these."""

    key: str
    base: Setting | Missing
    value: Setting
    origin: Literal["preset", "vendor", "file", "command line"]
    reason: str = ""


class HyperparametersRecord(StrictModel):
    """Values in force and their differences from the base.

    ``samples_per_item`` is the number of samples in one of the ``batch_size`` items of a batch: 1, or the tokens of a
    sequence.
    """

    values: dict[str, Setting]
    changes: list[HyperparameterChange] | Missing
    notes: list[str] = []
    samples_per_item: Annotated[int, Field(ge=1)] = 1
    global_batch_size: int | Missing


class Limits(StrictModel):
    """Limits by which the user shortened the run; ``None`` is no limit."""

    max_epochs: int | None = None
    max_steps: int | None = None
    budget_s: Annotated[FiniteFloat, Field(gt=0)] | None = None

    @property
    def shortened(self) -> bool:
        """True if a limit keeps the run from its full schedule."""
        return (self.max_epochs, self.max_steps, self.budget_s) != (None, None, None)


class Dataset(StrictModel):
    """Identity of the data, without paths."""

    name: str
    version: Text = UNKNOWN
    fingerprint: Text = UNKNOWN
    fingerprint_method: str
    train_samples: int | Missing = UNKNOWN
    eval_samples: int | Missing = UNKNOWN
    classes: int | Missing = UNKNOWN
    is_sample: bool


class Loader(StrictModel):
    """Settings of the input pipeline."""

    workers: int
    prefetch_factor: int | None
    pin_memory: bool
    persistent_workers: bool
    start_method: str | None
    decoder: str
    resize: str


class Card(StrictModel):
    """One accelerator, or the ``part`` of one. ``uuid`` and ``pci_bus_id`` identify it in the management library."""

    rank: int
    name: str
    uuid: Text
    pci_bus_id: Text
    total_bytes: Bytes
    part: str | None = None


CONTAINER_ENGINES: Final = {"docker": ".dockerenv", "podman": "run/.containerenv"}
"""Engines whose containers can be detected, by the file that each puts into them."""


class Environment(StrictModel):
    """The machine and its software. ``stated`` names the fields that the user stated."""

    stated: list[str] = []

    machine: Text = UNKNOWN
    cpu: Text = UNKNOWN
    cpu_cores: int | Missing = UNKNOWN
    memory_bytes: Bytes = UNKNOWN
    card_title: Text = UNKNOWN
    card_short_name: Text = UNKNOWN
    row_label: Text = UNKNOWN
    cards: list[Card] = _NO_ITEMS
    network: Text = UNKNOWN
    os: Text = UNKNOWN
    kernel: Text = UNKNOWN
    driver: Text = UNKNOWN
    container: Text = UNKNOWN
    framework: Text = UNKNOWN
    compiler: Text = UNKNOWN
    dependencies: Text = UNKNOWN
    python: Text = UNKNOWN
    torch: Text = UNKNOWN
    sdk: Text = UNKNOWN
    collectives: Text = UNKNOWN
    distributions: list[Distribution] = _NO_ITEMS


class Window(StrictModel):
    """One measurement window: samples consumed by all ranks, and the slowest rank's time."""

    epoch: int
    first_step: int
    steps: int
    samples: int
    seconds: FiniteFloat
    loss: FiniteFloat | None = None

    @property
    def samples_per_s(self) -> float:
        """Throughput of the window."""
        return self.samples / self.seconds


class Throughput(StrictModel):
    """Median of windows with its spread. ``mean_of_totals``, total samples over total time, is a cross-check."""

    median: FiniteFloat
    iqr: FiniteFloat
    mean_of_totals: FiniteFloat
    windows: list[Window]

    @property
    def timed_windows(self) -> list[Window]:
        """The windows with a rate. In an edited record, some windows may have a time of 0."""
        return [window for window in self.windows if window.seconds > 0]


class Spread(StrictModel):
    """Percentiles over steps, in seconds."""

    p50_s: FiniteFloat
    p90_s: FiniteFloat
    p99_s: FiniteFloat
    cv: FiniteFloat


class StepBreakdown(StrictModel):
    """Times of a diagnostic pass with a synchronization after every phase. No headline number contains them."""

    step: Spread
    h2d_s: FiniteFloat
    forward_s: FiniteFloat
    backward_s: FiniteFloat
    optimizer_s: FiniteFloat
    steps: int
    slowdown: FiniteFloat


class EvaluationPoint(StrictModel):
    """One point of the convergence curve.

    ``epoch`` is the number of completed epochs, with a fraction within an epoch. ``details`` are further figures of the
    case, by name, as fractions.
    """

    epoch: int | FiniteFloat
    step: int
    value: Number
    elapsed_s: FiniteFloat
    samples: int | Missing
    details: dict[str, FiniteFloat] = Field(default_factory=dict)


class TimeToTarget(StrictModel):
    """Training time, with evaluations, until the first evaluation that met the target."""

    seconds: FiniteFloat
    epoch: int | FiniteFloat


class Memory(StrictModel):
    """Peak memory over ranks, each with its source."""

    allocated_peak_bytes: Bytes
    reserved_peak_bytes: Bytes
    device_peak_bytes: Bytes
    total_bytes: Bytes
    allocator_source: str
    device_source: str


class Span(StrictModel):
    """A phase of the job; ``start_s`` counts from the launcher's start."""

    name: str
    start_s: FiniteFloat
    seconds: FiniteFloat


class Power(StrictModel):
    """Telemetry of all devices over the training region.

    ``coverage`` is the fraction of the training in which every value was read on every device, and ``longest_gap_s``
    the longest time between two readings.
    """

    samples: int
    mean_w: Number
    max_w: Number
    energy_j: Number
    mean_temperature_c: Number
    max_temperature_c: Number
    mean_utilization_percent: Number
    used_peak_bytes: Bytes
    source: str
    coverage: Number = UNKNOWN
    longest_gap_s: Number = UNKNOWN


class RankStep(StrictModel):
    """Medians of one rank's own part of a step, without waiting for other ranks, and the rank's card."""

    rank: Annotated[int, Field(ge=0)]
    step_s: FiniteFloat
    data_wait_s: Number
    card: str


class SkippedSteps(StrictModel):
    """Optimizer steps that the gradient scaler skipped, in total and by epoch; epochs that are not listed have none."""

    steps: int
    by_epoch: dict[int, int] = {}


_NOT_COUNTED = Missing(missing="unknown", reason="not counted")


class Metrics(StrictModel):
    """The measured values; ``docs/metrics.md`` defines them.

    ``forward_flops`` is the number of operations of one sample's forward pass as it ran, ``gradient_bytes`` the size of
    all gradients of the model.
    """

    e2e_time_s: Number = NOT_REACHED
    p_whole: Number = NOT_REACHED
    p_train: Throughput | Number = NOT_REACHED
    p_core: Throughput | Number = NOT_REACHED
    data_stall: Number = NOT_REACHED
    data_wait: Spread | Missing = NOT_REACHED
    step_breakdown: StepBreakdown | Missing = NOT_REACHED
    quality: Number = NOT_REACHED
    best_quality: Number = NOT_REACHED
    time_to_target: TimeToTarget | Missing = NOT_REACHED
    projected_train_seconds: Number = Missing(missing="not_applicable", reason="no budget ended the run")
    memory: Memory | Missing = NOT_REACHED
    power: Power | Missing = NOT_REACHED
    train_samples: int | Missing = NOT_REACHED
    train_seconds: Number = NOT_REACHED
    epochs: Number = NOT_REACHED
    steps: int | Missing = NOT_REACHED
    spans: list[Span] = _NO_ITEMS
    curve: list[EvaluationPoint] = _NO_ITEMS
    restart_windows: list[Window] = []
    rank_steps: list[RankStep] = []
    skipped_steps: SkippedSteps | Missing = _NOT_COUNTED
    forward_flops: Number = _NOT_COUNTED
    gradient_bytes: Bytes = _NOT_COUNTED


class NodeResult(StrictModel):
    """Values of one machine of several: its launcher's end-to-end time, and telemetry of its devices.

    ``node_rank`` counts machines from 0. The ranks of machine N start at N times ``nproc_per_node``.
    """

    node_rank: Annotated[int, Field(ge=0)]
    machine: Text
    cpu: Text
    e2e_time_s: Number
    power: Power | Missing


class Interruption(StrictModel):
    """An interruption of a run that was continued.

    The stopped processes had run for ``session_seconds``; then nothing ran for ``gap_seconds``. The run was continued
    after optimizer step ``step``. ``lost_steps``, if known from the progress, were repeated.
    """

    stopped_at: datetime
    session_seconds: FiniteFloat
    cause: Failure
    resumed_at: datetime
    gap_seconds: FiniteFloat
    step: Annotated[int, Field(ge=0)]
    lost_steps: Annotated[int, Field(ge=0)] | Missing


LIMITS_NAME = "limits.json"
"""Name of the file of a machine's measured limits. A run keeps a copy of those that it is shown beside."""

EVIDENCE = ("events.jsonl", LIMITS_NAME, "telemetry-node*.jsonl", "logs/*.log")
"""Patterns of the files of a run's directory that witness its record."""

EvidenceFile = Annotated[
    str, Field(pattern=r"^(events\.jsonl|limits\.json|telemetry-node\d+\.jsonl|logs/[\w-]+\.log)$")
]


class LimitsOfRun(StrictModel):
    """Measured limits of the machine and day of a run, see :mod:`chipperf.records.machine_limits`.

    ``sha256`` is the digest of their file, ``cards`` the number of the run's cards that have limits. Products and the
    data sheet's peak are those of all these cards together, at the effective precision; the bus is that of the ranks.
    """

    limits_id: str
    sha256: Sha256
    created_at: datetime
    cards: Annotated[int, Field(ge=0)]
    products_flops_per_s: Number
    peak_flops_per_s: Number
    peak_source: str = ""
    bus_bytes_per_s: Number

    @property
    def matches(self) -> bool:
        """True if these are limits of the run's cards."""
        return self.cards > 0


class WithheldRatio(StrictModel):
    """The ratio of a withheld number to the same number of another run, with four significant digits."""

    run_id: str
    value: FiniteFloat


class Commitment(StrictModel):
    """A field with a withheld value, and the digest that proves the value when it is revealed.

    ``field`` is a JSONPath. :mod:`chipperf.records.withholding` defines ``sha256``. A withheld list is empty.
    """

    field: str
    reason: str
    sha256: Sha256
    ratio: WithheldRatio | None = None


class Record(StrictModel):
    """One run, or one row of an imported report.

    ``remarks`` is the content of an imported document that has no other field, in its order. ``evidence`` has the
    SHA-256 of the run's events, telemetry and logs when it ended, as far as they were on its first machine.
    ``machine_limits`` are the measured limits of its cards. ``withheld`` lists the fields that ``perf withhold``
    removed.
    """

    schema_version: Literal[2] = 2
    metrics_version: int = METRICS_VERSION
    metrics_definition: MetricsDefinition = "chipperf"
    kind: Literal["measured", "simulated", "imported"]
    run_id: str
    chipperf_version: str
    created_at: datetime
    status: Status
    vendor: Vendor
    case: CaseRecord
    topology: Topology
    precision: PrecisionRecord
    hyperparameters: HyperparametersRecord
    limits: Limits
    seed: int | Missing
    dataset: Dataset
    loader: Loader | Missing
    environment: Environment
    knobs: list[KnobRecord]
    metrics: Metrics
    nodes: list[NodeResult] = []
    interruptions: list[Interruption] = []
    disabled_observers: list[str] = []
    warnings: list[str] = []
    remarks: list[str] = []
    evidence: dict[EvidenceFile, Sha256] | Missing = UNKNOWN
    machine_limits: LimitsOfRun | Missing = Missing(missing="not_run", reason="no limits of this machine and day")
    withheld: list[Commitment] = []


def all_missing(model: type[BaseModel], missing: Missing) -> dict[str, Missing]:
    """Return ``missing`` for every field of a model whose default is a missing value."""
    return {name: missing for name, field in model.model_fields.items() if isinstance(field.default, Missing)}


def fields_a_file_states(model: type[BaseModel]) -> list[str]:
    """Return the fields that a record's file must state even if they have a default, so that no value is hidden.

    The other fields are newer than some existing files.
    """
    defaults = (UNKNOWN, NOT_REACHED, _NO_ITEMS)
    return [
        name
        for name, field in model.model_fields.items()
        if field.is_required() or any(field.default is default for default in defaults)
    ]


def unstated_field(record: Record) -> str | None:
    """Return the first field that a file must state and the record was made without, or ``None``."""
    parts = (("dataset", record.dataset), ("environment", record.environment), ("metrics", record.metrics))
    for place, part in parts:
        for name in fields_a_file_states(type(part)):
            if name not in part.model_fields_set:
                return f"{place}.{name}"
    return None


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a record's file."""
    schema = Record.model_json_schema()
    for part in (Dataset, Environment, Metrics):
        described = schema["$defs"][part.__name__]
        described["required"] = fields_a_file_states(part)
        for name in described["required"]:
            described["properties"][name].pop("default", None)
    return schema
