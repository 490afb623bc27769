"""The content of a report, independent of language and layout: the objects that templates use."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeVar

from chipperf.report.row import column_header
from chipperf.report.tracing import TrackedValue

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from chipperf.cases.base import ReportProfile
    from chipperf.data.dataset_identity import ReferenceDataset
    from chipperf.languages import Phrase
    from chipperf.plugin.types import Title
    from chipperf.records.columns import Column
    from chipperf.records.plausibility import Implausibility
    from chipperf.records.schema import (
        Dataset,
        HyperparameterChange,
        KnobRecord,
        Loader,
        MetricsDefinition,
        Missing,
        MissingKind,
        Record,
        Text,
        Vendor,
    )
    from chipperf.report.convergence_curves import Convergence
    from chipperf.report.row import MemorySource, Row

T = TypeVar("T", bound="Hashable")


@dataclass(frozen=True, slots=True, kw_only=True)
class PerRows(TrackedValue[T]):
    """A value and the names of its rows. Without names, it is the value of all rows."""

    rows: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortening:
    """The limits that shortened a run; ``None`` is no limit."""

    preset: str | None
    max_epochs: int | None
    max_steps: int | None
    budget: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportView:
    """The content that a report's template can show.

    Attributes:
        kind: Origin of the records; one kind per report.
        metrics_definition: The metric definitions that the values follow; one per report.
        vendor: Vendor of the devices.
        case: Name of the case.
        case_version: Version of the case.
        profile: The case's texts and formats for reports.
        dataset: The dataset of all rows.
        reference: The dataset that the case is defined on.
        on_reference_dataset: True if ``dataset`` is the reference dataset.
        environment: Fact by name (the text fields of :class:`~chipperf.records.schema.Environment`).
        precisions: Precisions in the legend: the usual ones and the rows' precisions.
        shortened: Limits that shortened runs.
        rows: Rows of the performance table, in the order of the given records.
        superseded: Records that their row does not show, see :func:`~chipperf.report.build.build_view`.
        convergence: The convergence curves; ``None`` if no row was evaluated more than once.
        missing_kinds: Kinds of missing values that occur in environment and rows.
        memory_sources: Sources of the memory column.
        knobs: Settings in force that change numerics or speed.
        changes: Differences from the case's base, with their reasons.
        change_notes: Remarks on hyperparameters.
        datasets: Identity of the data, with fingerprints.
        loaders: Settings of the input pipeline.
        implausible: Contradictions in the runs, see :mod:`chipperf.records.plausibility`.
        warnings: Warnings of the runs.
        disabled_observers: Observers that failed and were switched off.
        remarks: Content of imported documents that has no other field.
    """

    kind: Literal["measured", "simulated", "imported"]
    metrics_definition: MetricsDefinition
    vendor: Vendor
    case: str
    case_version: str
    profile: ReportProfile
    dataset: Dataset
    reference: ReferenceDataset
    on_reference_dataset: bool
    environment: Mapping[str, tuple[PerRows[Text], ...]]
    precisions: tuple[str, ...]
    shortened: tuple[PerRows[Shortening], ...]
    rows: tuple[Row, ...]
    superseded: tuple[Record, ...]
    convergence: Convergence | None
    missing_kinds: frozenset[MissingKind]
    memory_sources: tuple[PerRows[MemorySource], ...]
    knobs: tuple[PerRows[KnobRecord], ...]
    changes: tuple[PerRows[HyperparameterChange], ...]
    change_notes: tuple[PerRows[str], ...]
    datasets: tuple[PerRows[Dataset], ...]
    loaders: tuple[PerRows[Loader | Missing], ...]
    implausible: tuple[PerRows[Implausibility], ...]
    warnings: tuple[PerRows[str], ...]
    disabled_observers: tuple[PerRows[str], ...]
    remarks: tuple[PerRows[str], ...]

    def header(self, column: Column) -> str:
        """Return the header of a column of the performance table."""
        return column_header(column, self.profile)

    def remark(self, column: Column) -> Phrase | Title:
        """Return the general table's remark on a column."""
        if column.remark is None:
            return self.profile.quality_legend
        return replace(column.remark, values=(("samples", self.profile.sample_noun),))
