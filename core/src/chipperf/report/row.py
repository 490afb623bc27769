"""Rows of the performance table: their cells, computed from the record on each read, and the runs that share a row."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import timezone
from typing import TYPE_CHECKING, Final, Literal

from chipperf.cases.base import Role
from chipperf.documents.format import NOT_APPLICABLE, REASON_IN_MARKER, setting, text_or_marker
from chipperf.durations import format_duration
from chipperf.records.columns import BY_NAME, columns_of, completed_value
from chipperf.records.convergence import convergence_outcome
from chipperf.records.memory_peak import peak_source
from chipperf.records.schema import UNKNOWN, Missing, TimeToTarget
from chipperf.report.tracing import record_digest

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence
    from datetime import datetime
    from typing import TypeGuard

    from chipperf.cases.base import Case, ReportProfile
    from chipperf.records.columns import Column
    from chipperf.records.convergence import Outcome
    from chipperf.records.schema import Record, Text

SHORT_KEYS = {"batch_size": "bs"}
"""Short names of keys in ``fix_hp``."""

_FIRST_KEYS = ("batch_size", "lr")
_MOST_CHANGES: Final = 4
_LONGEST_CHANGES: Final = 36
"""Largest number of hyperparameter changes in a cell, and of their characters. No line breaks within them, so that
more would push the columns behind them out of the page."""
_BY_FIELD = {column.field.removeprefix("metrics."): column for column in columns_of("report")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A row's quality compared with the case's target, both unrounded fractions.

    ``source`` of the target is the case, or a dataset other than the case's own. ``reached`` is the time when the
    target was first met, if known, and ``projected`` the time of the whole schedule, if a budget ended the run.
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
    """One row of the performance table. The values of a run that did not complete are shown as failed."""

    record: Record
    case: Case
    short_name_is_unique: bool
    numbers_of_changes: Mapping[str, int]
    layout: int

    @property
    def digest(self) -> str:
        """SHA-256 of the record."""
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
        if self.layout > 2 and self.note_of_changes:
            return f"{card}{name} fix_hp {self.note_of_changes}"
        return f"{card}{name}" if isinstance(changes, Missing) else f"{card}{name} {changes}"

    @property
    def card(self) -> Text:
        """The device's name in the row's label."""
        return row_label(self.record)

    @property
    def fix_hp(self) -> str | Missing:
        """Differences from the case's base, ``/`` without differences; missing if an imported document lacks it."""
        return fix_hp(self.record, self.case)

    @property
    def note_of_changes(self) -> int | None:
        """Number of the note with ``fix_hp``, or ``None`` if its cell has room for it."""
        changes = self.fix_hp
        return None if isinstance(changes, Missing) else self.numbers_of_changes.get(changes)

    def value(self, column: Column) -> float | Missing:
        """Return the value of a column as the row shows it."""
        return completed_value(self.record, column.value(self.record))

    def shown(self, column: Column, *, with_cause: bool = True) -> float | Missing:
        """Return the value of a column as its cell shows it: the cause of a run's failure only where it has room."""
        value = self.value(column)
        if with_cause or self.record.status.state == "completed" or not isinstance(value, Missing):
            return value
        return Missing(missing="failed") if value.missing == "failed" else value

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
            kind=convergence_outcome(record, needs_named_dataset=self.layout > 1),
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


def is_long(changes: str | Missing) -> TypeGuard[str]:
    """Return whether the text of ``fix_hp`` is too long for its cell."""
    if isinstance(changes, Missing):
        return False
    return changes.count(",") >= _MOST_CHANGES or len(changes) > _LONGEST_CHANGES


def column_header(column: Column, profile: ReportProfile) -> str:
    """Return the header of a column in a report. The case defines the header of the quality."""
    return profile.quality_column if column.name == "quality" else column.key


def short_name(record: Record) -> str:
    """Return topology and precision, which name a row if no other row has the same."""
    return f"{record.topology.label} {record.precision.requested}"


def is_on_reference_dataset(record: Record, case: Case) -> bool:
    """Return whether the run used the dataset that its case is defined on."""
    return record.dataset.name == case.data.reference.name and not record.dataset.is_sample


def row_key(record: Record, case: Case) -> Hashable:
    """Return a key that is equal for runs of the same row."""
    return (record.environment.row_label, record.topology.label, record.precision.requested, fix_hp(record, case))


def fix_hp(record: Record, case: Case) -> str | Missing:
    """Return the differences from the case's base that must be disclosed, ``/`` without differences.

    For an imported document, all its stated differences are returned with all digits. The result is missing if it
    states nothing.
    """
    changes = record.hyperparameters.changes
    if isinstance(changes, Missing):
        return changes
    keys = case.base.keys()
    exact = record.kind == "imported"
    shown = [
        change
        for change in changes
        # A key the case does not have, from an older version or an imported document, is shown rather than hidden.
        if exact or change.key not in keys or case.base.role(change.key) is not Role.FREE
    ]
    order = hyperparameter_order(case)
    shown.sort(key=lambda change: order.get(change.key, len(order)))
    texts = [f"{SHORT_KEYS.get(change.key, change.key)}={setting(change.value, exact=exact)}" for change in shown]
    return ",".join(texts) or NOT_APPLICABLE


def hyperparameter_order(case: Case) -> Mapping[str, int]:
    """Return the position of each of the case's hyperparameters in ``fix_hp``. Other keys follow."""
    return {key: place for place, key in enumerate(dict.fromkeys((*_FIRST_KEYS, *case.base.keys())))}


def row_label(record: Record) -> Text:
    """Return the device's name in a row's label."""
    return _real_or_simulated(record, record.environment.row_label)


def precision_name(record: Record) -> str:
    """Return the requested precision, and the effective precision if it differs."""
    requested, effective = record.precision.requested, record.precision.effective
    return requested if isinstance(effective, Missing) or effective == requested else f"{requested} ({effective})"


def configuration_name(record: Record) -> str:
    """Return device, topology and precision on one line. A device without a name has the vendor's name."""
    label = row_label(record)
    device = record.vendor.name if isinstance(label, Missing) else label
    return f"{device} {record.topology.label} {precision_name(record)}"


def card_short_name(record: Record) -> Text:
    """Return the device's short name in the general table."""
    return _real_or_simulated(record, record.environment.card_short_name)


def not_blank(text: Text) -> Text:
    """Return the text, or unknown if it has no visible character."""
    return text if isinstance(text, Missing) or text.strip() else UNKNOWN


def _real_or_simulated(record: Record, name: Text) -> Text:
    """Return a device's name, with a mark if the device is simulated."""
    name = not_blank(name)
    if record.kind != "simulated":
        return name
    return "simulated" if isinstance(name, Missing) else f"simulated {name}"


def choose_rows(records: Sequence[Record], case: Case) -> tuple[list[Record], tuple[Record, ...]]:
    """Return the record that each row shows, and the superseded records.

    Completed records come before others, full schedules before shortened ones, and newer records before older ones.
    """
    best: dict[Hashable, Record] = {}
    superseded = []
    for record in records:
        key = row_key(record, case)
        other = best.setdefault(key, record)
        if other is record:
            continue
        winner, loser = (record, other) if preference(record) > preference(other) else (other, record)
        best[key] = winner
        superseded.append(loser)
    return list(best.values()), tuple(superseded)


def preference(record: Record) -> tuple[bool, bool, datetime]:
    """Return a sort key; a row shows the record with the greatest key."""
    created = record.created_at
    if created.tzinfo is None:
        created = created.replace(tzinfo=timezone.utc)
    return record.status.state == "completed", not record.limits.shortened, created


def repeats_of(record: Record, candidates: Iterable[Record], case: Case) -> tuple[Record, ...]:
    """Return ``record`` and every run that repeats it with another seed.

    Of several runs with the same seed, the first is taken: the others depend on it and do not show the spread.
    """
    by_seed = {_seed(record): record}
    for candidate in candidates:
        if _setup(candidate, case) == _setup(record, case):
            by_seed.setdefault(_seed(candidate), candidate)
    return tuple(sorted(by_seed.values(), key=lambda run: -1 if isinstance(run.seed, Missing) else run.seed))


def group_repeats(records: Iterable[Record], case: Case) -> list[tuple[Record, ...]]:
    """Return the records as groups of repeats. Runs with the same seed are in different groups."""
    groups: dict[Hashable, list[Record]] = {}
    seen: Counter[Hashable] = Counter()
    for record in records:
        setup, seed = _setup(record, case), _seed(record)
        groups.setdefault((setup, seen[setup, seed]), []).append(record)
        seen[setup, seed] += 1
    return [tuple(group) for group in groups.values()]


def curve_names(records: Sequence[Record], case: Case) -> list[str]:
    """Return a curve name for each record: device, topology and precision, with ``fix_hp`` if names would be equal."""
    named = [(configuration_name(record), text_or_marker(fix_hp(record, case), "en")) for record in records]
    variants = Counter(name for name, _ in set(named))
    return [name if variants[name] == 1 else f"{name} {changes}" for name, changes in named]


def _setup(record: Record, case: Case) -> Hashable:
    """Return a key that is equal for runs that differ only in seed and chance."""
    return (
        record.vendor.name,
        row_key(record, case),
        record.kind,
        record.case.preset,
        record.limits,
        record.precision.effective,
        record.status.state,
    )


def _seed(record: Record) -> Hashable:
    return (record.run_id,) if isinstance(record.seed, Missing) else record.seed
