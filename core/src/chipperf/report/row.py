"""A row of the performance table: what each of its cells holds, computed from the row's record whenever it is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

from chipperf.documents.format import REASON_IN_MARKER
from chipperf.durations import format_duration
from chipperf.records.measures import headline, peak_source, used_peak
from chipperf.records.plausibility import outcome
from chipperf.records.schema import Missing, TimeToTarget
from chipperf.report.row_identity import fix_hp, row_label
from chipperf.report.tracing import note_read, source_of

if TYPE_CHECKING:
    from chipperf.cases.base import Case
    from chipperf.records.schema import Record, Text

NumberT = TypeVar("NumberT", int, float)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A row's quality against the case's target.

    Attributes:
        kind: ``converged`` if an evaluation met the target, ``no_target`` if the dataset has none.
        quality: Unrounded result, a fraction.
        target: Target of the run, a fraction; missing without one.
        source: Who declares the target: the case, or a dataset other than the case's own.
        reached: When the target was first met, if the record says so.
    """

    kind: Literal["converged", "below_target", "no_target"]
    quality: float
    target: float | Missing
    source: str
    reached: TimeToTarget | None
    projected: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A missing cell whose marker does not show its reason."""

    column: str
    missing: Missing


@dataclass(frozen=True, slots=True, kw_only=True)
class MemorySource:
    """Which peak is shown as used memory, and who measured it."""

    peak: Literal["device", "allocator"]
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of the performance table; what a run that did not complete measured is shown as failed.

    Attributes:
        record: The record behind the row.
        case: Case of the record.
        sha256: Digest of the record, see :func:`~chipperf.report.build.record_digest`.
        short_name_is_unique: False if another row has the same topology and precision.
    """

    record: Record
    case: Case
    sha256: str
    short_name_is_unique: bool

    @property
    def digest(self) -> str:
        """SHA-256 of the record."""
        source = source_of(self.record)
        if source:
            note_read(source)
        return self.sha256

    @property
    def name(self) -> str:
        """Short name, unique in the report, for example ``1x8 fp32``."""
        name = short_name(self.record)
        if self.short_name_is_unique:
            return name
        label = self.record.environment.row_label
        card = "" if isinstance(label, Missing) else f"{label} "
        changes = self.fix_hp
        return f"{card}{name}" if isinstance(changes, Missing) else f"{card}{name} {changes}"

    @property
    def card(self) -> Text:
        """The device's name in the row's label."""
        return row_label(self.record)

    @property
    def fix_hp(self) -> str | Missing:
        """Differences to the case's base, ``/`` if there are none; missing if an imported document does not say."""
        return fix_hp(self.record, self.case)

    @property
    def e2e_time_s(self) -> float | Missing:
        """Launcher's start to last exit, in seconds."""
        return completed_value(self.record, self.record.metrics.e2e_time_s)

    @property
    def p_whole(self) -> float | Missing:
        """Samples per second over the whole training."""
        return completed_value(self.record, self.record.metrics.p_whole)

    @property
    def p_train(self) -> float | Missing:
        """Samples per second without evaluation, median of windows."""
        return completed_value(self.record, headline(self.record.metrics.p_train))

    @property
    def p_core(self) -> float | Missing:
        """Samples per second from device-resident batches, median of windows."""
        return completed_value(self.record, headline(self.record.metrics.p_core))

    @property
    def quality(self) -> float | Missing:
        """Result as a fraction."""
        return completed_value(self.record, self.record.metrics.quality)

    @property
    def memory_used_bytes(self) -> int | Missing:
        """Peak of the device, or of the allocator where the device's is not known."""
        return completed_value(self.record, used_peak(self.record.metrics.memory))

    @property
    def memory_total_bytes(self) -> int | Missing:
        """Capacity of the device."""
        memory = self.record.metrics.memory
        return memory if isinstance(memory, Missing) else memory.total_bytes

    @property
    def memory_source(self) -> MemorySource | None:
        """Which of the two peaks the used memory is; ``None`` without one."""
        memory = self.record.metrics.memory
        if isinstance(memory, Missing) or isinstance(self.memory_used_bytes, Missing):
            return None
        peak = peak_source(memory)
        return MemorySource(peak=peak, source=memory.device_source if peak == "device" else memory.allocator_source)

    @property
    def verdict(self) -> Verdict | None:
        """Quality against target; ``None`` without a quality."""
        quality = self.quality
        return None if isinstance(quality, Missing) else _verdict(self.record, self.case, quality)

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """Missing cells with a reason that their marker does not show."""
        cells = {
            "e2e_time": self.e2e_time_s,
            "p_whole": self.p_whole,
            "p_train": self.p_train,
            "p_core": self.p_core,
            self.case.report.quality_column: self.quality,
            "mem": self.memory_used_bytes,
        }
        return tuple(
            Gap(column=column, missing=value)
            for column, value in cells.items()
            if isinstance(value, Missing) and value.reason and value.missing not in REASON_IN_MARKER
        )


def short_name(record: Record) -> str:
    """Return topology and precision, which name a row unless another one has the same."""
    return f"{record.topology.label} {record.precision.requested}"


def completed_value(record: Record, value: NumberT | Missing) -> NumberT | Missing:
    """Return a value of a run as it may be shown: that of a run that did not complete is missing as failed."""
    state = record.status.state
    if state == "completed" or (isinstance(value, Missing) and value.missing == "not_applicable"):
        return value
    failure = record.status.failure
    return Missing(missing="failed", reason=failure.failure_class if failure else state)


def is_own_dataset(record: Record, case: Case) -> bool:
    """Tell whether the run used the dataset that its case is defined on."""
    return record.dataset.name == case.base.dataset and not record.dataset.is_sample


def _verdict(record: Record, case: Case, quality: float) -> Verdict:
    target = record.case.target
    source = f"{record.case.name} {record.case.version}" if is_own_dataset(record, case) else record.dataset.name
    projection = record.metrics.projected_train_seconds
    projected = None if isinstance(projection, Missing) else format_duration(projection)
    if isinstance(target, Missing):
        return Verdict(
            kind="no_target", quality=quality, target=target, source=source, reached=None, projected=projected
        )
    time_to_target = record.metrics.time_to_target
    reached = time_to_target if isinstance(time_to_target, TimeToTarget) else None
    kind: Literal["converged", "below_target"] = "converged" if outcome(record) == "converged" else "below_target"
    return Verdict(kind=kind, quality=quality, target=target, source=source, reached=reached, projected=projected)
