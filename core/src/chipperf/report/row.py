"""A row of the performance table. Its cells are computed from the record on each read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

from chipperf.documents.format import REASON_IN_MARKER
from chipperf.durations import format_duration
from chipperf.records.columns import BY_NAME, columns_of, peak_source
from chipperf.records.convergence import convergence_outcome
from chipperf.records.schema import Missing, TimeToTarget
from chipperf.report.row_identity import fix_hp, row_label
from chipperf.report.tracing import note_read, record_digest, source_of

if TYPE_CHECKING:
    from chipperf.cases.base import Case, ReportProfile
    from chipperf.records.columns import Column
    from chipperf.records.convergence import Outcome
    from chipperf.records.schema import Record, Text

NumberT = TypeVar("NumberT", int, float)

_BY_FIELD = {column.field.removeprefix("metrics."): column for column in columns_of("report")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A row's quality compared with the case's target.

    Attributes:
        kind: ``converged`` if an evaluation met the target, ``no_target`` if the dataset has none.
        quality: Unrounded result, a fraction.
        target: Target of the run, a fraction; missing without one.
        source: Source of the target: the case, or a dataset other than the case's own.
        reached: Time when the target was first met, if known.
        projected: Training time of the whole schedule, if a budget ended the run.
    """

    kind: Outcome
    quality: float
    target: float | Missing
    source: str
    reached: TimeToTarget | None
    projected: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingCell:
    """A missing cell whose marker does not show its reason."""

    column: str
    missing: Missing


@dataclass(frozen=True, slots=True, kw_only=True)
class MemorySource:
    """The peak that is shown as used memory, and the source of its value."""

    peak: Literal["device", "allocator"]
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of the performance table. The values of a run that did not complete are shown as failed.

    ``short_name_is_unique`` is False if another row has the same topology and precision.
    """

    record: Record
    case: Case
    short_name_is_unique: bool

    @property
    def digest(self) -> str:
        """SHA-256 of the record."""
        source = source_of(self.record)
        if source:
            note_read(source)
        return record_digest(self.record)

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
        """Differences from the case's base, ``/`` without differences; missing if an imported document lacks it."""
        return fix_hp(self.record, self.case)

    def value(self, column: Column) -> float | Missing:
        """Return the value of a column as the row shows it."""
        return completed_value(self.record, column.value(self.record))

    if not TYPE_CHECKING:
        # Only for templates, where a column is an attribute. In code, the type checker must find a misspelled one.
        def __getattr__(self, name: str) -> float | Missing:
            """Return the value of a column by the name of its field, for example ``e2e_time_s``."""
            column = _BY_FIELD.get(name)
            if column is None:
                raise AttributeError(f"a row has no {name!r}", name=name, obj=self)
            return self.value(column)

    @property
    def memory_used_bytes(self) -> float | Missing:
        """Peak of the device, or of the allocator if the device's peak is unknown."""
        return self.value(BY_NAME["mem_peak"])

    @property
    def memory_total_bytes(self) -> int | Missing:
        """Capacity of the device."""
        memory = self.record.metrics.memory
        return memory if isinstance(memory, Missing) else memory.total_bytes

    @property
    def memory_source(self) -> MemorySource | None:
        """Source of the used memory; ``None`` without a peak."""
        memory = self.record.metrics.memory
        if isinstance(memory, Missing) or isinstance(self.memory_used_bytes, Missing):
            return None
        peak = peak_source(memory)
        return MemorySource(peak=peak, source=memory.device_source if peak == "device" else memory.allocator_source)

    @property
    def verdict(self) -> Verdict | None:
        """Quality compared with the target; ``None`` without a quality."""
        quality = self.value(BY_NAME["quality"])
        if isinstance(quality, Missing):
            return None
        # The provenance lists fields in the order of these reads.
        record = self.record
        target = record.case.target
        of_case = is_on_reference_dataset(record, self.case)
        source = f"{record.case.name} {record.case.version}" if of_case else record.dataset.name
        projection = record.metrics.projected_train_seconds
        reached = None if isinstance(target, Missing) else record.metrics.time_to_target
        return Verdict(
            kind=convergence_outcome(record),
            quality=quality,
            target=target,
            source=source,
            reached=reached if isinstance(reached, TimeToTarget) else None,
            projected=None if isinstance(projection, Missing) else format_duration(projection),
        )

    @property
    def gaps(self) -> tuple[MissingCell, ...]:
        """Missing cells whose marker does not show the reason."""
        return tuple(
            MissingCell(column=column_header(column, self.case.report), missing=value)
            for column in columns_of("report")
            if isinstance(value := self.value(column), Missing)
            and value.reason
            and value.missing not in REASON_IN_MARKER
        )


def column_header(column: Column, profile: ReportProfile) -> str:
    """Return the header of a column in a report. The case defines the header of the quality."""
    return profile.quality_column if column.name == "quality" else column.key


def short_name(record: Record) -> str:
    """Return topology and precision, which name a row if no other row has the same."""
    return f"{record.topology.label} {record.precision.requested}"


def completed_value(record: Record, value: NumberT | Missing) -> NumberT | Missing:
    """Return a value of a run, or a missing value of kind ``failed`` if the run did not complete."""
    state = record.status.state
    if state == "completed" or (isinstance(value, Missing) and value.missing == "not_applicable"):
        return value
    failure = record.status.failure
    return Missing(missing="failed", reason=failure.failure_class if failure else state)


def is_on_reference_dataset(record: Record, case: Case) -> bool:
    """Return whether the run used the dataset that its case is defined on."""
    return record.dataset.name == case.data.reference.name and not record.dataset.is_sample
