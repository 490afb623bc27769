"""What a report shows, independent of language and layout: the objects a template gets."""

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
    """A value and the names of the rows it holds for; no names: it holds for all."""

    rows: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortening:
    """How a run was kept from being the whole benchmark; ``None`` is no limit."""

    preset: str | None
    max_epochs: int | None
    max_steps: int | None
    budget: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportView:
    """Everything a report's template may show.

    Attributes:
        kind: How the records came about; one kind per report.
        metrics_definition: Whose definitions the values follow; one per report.
        vendor: Whose devices these are.
        case: Name of the case.
        case_version: Version of the case.
        profile: How a report speaks of the case.
        dataset: The dataset of all rows.
        reference: The dataset that the case is defined on.
        on_reference_dataset: True if ``dataset`` is the reference dataset.
        environment: Fact by name (the text fields of :class:`~chipperf.records.schema.Environment`).
        precisions: Precisions the legend lists: the usual ones and those of the rows.
        shortened: What kept runs from being the whole benchmark.
        rows: The performance table, in the order in which the records were given.
        superseded: Records that lost their row to a better one, see :func:`~chipperf.report.build.build_view`.
        convergence: The convergence curves; ``None`` if no row was evaluated more than once.
        missing_kinds: Kinds of missing values that occur in environment and rows.
        memory_sources: Where the memory column comes from.
        knobs: Settings in force that change numerics or speed.
        changes: Differences to the case's base, with their reasons.
        change_notes: Remarks on hyperparameters.
        datasets: Identity of the data, with fingerprints.
        loaders: Settings of the input pipeline.
        implausible: What cannot be true in the runs, see :mod:`chipperf.records.plausibility`.
        warnings: What the runs warned of.
        disabled_observers: Observers that failed and were switched off.
        remarks: What imported documents say beyond the other fields.
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
        """Return what the general table says of a column."""
        if column.remark is None:
            return self.profile.quality_legend
        return replace(column.remark, values=(("samples", self.profile.sample_noun),))
