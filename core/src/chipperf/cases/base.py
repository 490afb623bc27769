"""Definition of a case: a model, its data, its metric, and the roles of its hyperparameters.

Importing a case imports neither torch nor a data library; its functions import them when they are called.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from chipperf.data.dataset_files import require_directory

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from chipperf.cases.workload import Workload, WorkloadContext
    from chipperf.data.dataset_check import CheckReport
    from chipperf.data.dataset_identity import ReferenceDataset
    from chipperf.plugin.types import Title


Progress = Callable[[int, int], None]
"""Called with the number of finished parts and the total number."""

SampleSize = Literal["tiny", "real"]
"""Size of each generated sample: as in the case's preset ``tiny``, or as in the benchmark."""

WorkloadFactory = Callable[["WorkloadContext[Any]"], "Workload"]
"""Builds the torch part of a case on one worker."""


class Role(str, Enum):
    """Who may change a hyperparameter.

    ``LOCKED``: only the case's presets, because another value is another benchmark. ``SCALED``: may depend on the batch
    size and the number of devices, and is disclosed in ``fix_hp``. ``FREE``: does not change what is learned.
    """

    LOCKED = "locked"
    SCALED = "scaled"
    FREE = "free"

    __str__ = str.__str__


class Hyperparameters(BaseModel):
    """Hyperparameters that every case has; each is annotated with its :class:`Role`.

    Batch sizes are per device. ``target`` is the quality, as a fraction, at which the case has converged on
    ``dataset``. ``workers`` is the number of loader processes per rank; with -1 core chooses it. The ``measure_*`` keys
    set the measurement windows, in steps. The intervals of evaluations and checkpoints are in optimizer steps or
    epochs; 0 is never. With ``sync_batchnorm``, batch normalization computes its statistics over the batches of all
    ranks.
    """

    # Only the classes of the cases are ever built.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)

    model: Annotated[str, Role.LOCKED]
    dataset: Annotated[str, Role.LOCKED]
    target: Annotated[float, Field(gt=0, le=1), Role.LOCKED]
    epochs: Annotated[int, Field(ge=1), Role.LOCKED]
    evaluate_every_epochs: Annotated[int, Field(ge=1), Role.LOCKED] = 1

    batch_size: Annotated[int, Field(ge=1), Role.SCALED]
    lr: Annotated[float, Field(gt=0), Role.SCALED]
    accumulate_steps: Annotated[int, Field(ge=1), Role.SCALED] = 1
    sync_batchnorm: Annotated[bool, Role.SCALED] = False

    eval_batch_size: Annotated[int, Field(ge=1), Role.FREE]
    evaluate_every_steps: Annotated[int, Field(ge=0), Role.FREE] = 0
    checkpoint_every_steps: Annotated[int, Field(ge=0), Role.FREE] = 0
    checkpoint_every_epochs: Annotated[int, Field(ge=0), Role.FREE] = 1
    keep_checkpoints: Annotated[int, Field(ge=1), Role.FREE] = 2
    seed: Annotated[int, Field(ge=0, lt=2**32), Role.FREE]
    deterministic: Annotated[bool, Role.FREE] = False
    workers: Annotated[int, Field(ge=-1), Role.FREE] = -1
    prefetch_factor: Annotated[int, Field(ge=1), Role.FREE] = 2
    measure_warmup_steps: Annotated[int, Field(ge=0), Role.FREE] = 10
    measure_window_steps: Annotated[int, Field(ge=1), Role.FREE] = 50
    measure_core_steps: Annotated[int, Field(ge=1), Role.FREE] = 10

    @property
    def samples_per_item(self) -> int:
        """Samples in one of the ``batch_size`` items of a batch: 1, or the tokens of a sequence in a case on text."""
        return 1

    def global_batch_size(self, world_size: int) -> int:
        """Return the samples of an optimizer step on all ranks."""
        return self.batch_size * self.samples_per_item * self.accumulate_steps * world_size

    @classmethod
    def role(cls, key: str) -> Role:
        """Return who may change ``key``."""
        for metadata in cls.model_fields[key].metadata:
            if isinstance(metadata, Role):
                return metadata
        raise TypeError(f"{cls.__name__}.{key} has no Role")

    @classmethod
    def keys(cls) -> tuple[str, ...]:
        """Return all keys in declaration order."""
        return tuple(cls.model_fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportProfile:
    """Texts about a case in reports.

    Attributes:
        model_title: The model's name in the general table.
        quality_column: Header of the result column, for example ``acc``; ``quality_legend`` is its meaning.
        sample_noun: Word for training samples.
        quality_as_percent: Whether the quality is printed as a percentage instead of a fraction.
    """

    model_title: str
    task: Title
    quality_column: str
    quality_legend: Title
    sample_noun: Title
    quality_as_percent: bool = True


class DataCheck(Protocol):
    """Checks a directory before training."""

    def __call__(self, root: Path, expected: ReferenceDataset | None, *, full: bool, progress: Progress) -> CheckReport:
        """Return a report of all problems of a directory; raise no errors about them and change nothing.

        Args:
            root: The directory.
            expected: Dataset with the required sizes; ``None`` accepts any sizes.
            full: Whether to read every sample completely, not only enough to tell that it is readable.
            progress: Called with the number of samples read and the total number.
        """


class EnsureSample(Protocol):
    """Generates the default dataset of a case."""

    def __call__(self, progress: Progress, root: Path | None = None, options: Mapping[str, Any] | None = None) -> Path:
        """Generate the dataset if it does not exist, and return its directory.

        Args:
            progress: Called with the number of finished samples and the total number.
            root: Directory that holds generated datasets; by default in the user's cache directory.
            options: Values by name; the names are in :attr:`CaseData.sample_options`.

        Raises:
            UsageError: An option has an unknown value.
            DataError: The dataset cannot be written.
        """


class EnsureFewSamples(Protocol):
    """Generates data for a few steps."""

    def __call__(self, samples: int, size: SampleSize, root: Path | None = None) -> Path:
        """Generate a dataset of that many training samples; see :class:`EnsureSample`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseData:
    """The data of a case.

    Attributes:
        reference: The dataset for which the case is defined.
        parts: Directories that every dataset of the case holds; without one of them no run is begun.
        check: Checks a directory; ``None`` if the case has no check.
        ensure_sample: Generates the dataset for runs without ``--data``; ``None`` if there is no such dataset.
        sample_options: Options of ``perf data sample`` that ``ensure_sample`` accepts, with their Python names.
        ensure_few_samples: Generates data for a comparison of a few steps; ``None`` if it needs ``--data``.
    """

    reference: ReferenceDataset
    parts: tuple[str, ...] = ()
    check: DataCheck | None = None
    ensure_sample: EnsureSample | None = None
    sample_options: tuple[str, ...] = ()
    ensure_few_samples: EnsureFewSamples | None = None

    def require(self, directory: Path, hint: str) -> Path:
        """Return a dataset's directory; a :class:`.MissingDataset` says that it is none or lacks one of its parts."""
        return require_directory(directory, hint, parts=self.parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A standard training task.

    Attributes:
        name: Name on the command line.
        version: Changes whenever a locked value or the meaning of the metric changes.
        summary: One line for listings.
        base: Base values; the class holds the fields' types and roles.
        presets: Named sets of values, which may replace locked values; ``full`` is the base.
        metric: Name of the quality, for example ``top1``.
        load_workload: Imports torch and returns the factory of the case's workload.
        lower_is_better: Whether the smaller of two qualities is the better one, as of a loss; the target is then met
            from above, and both may exceed 1.
        forward_flops: Floating-point operations of the forward pass of one training sample with the base values; a
            multiplication and an addition count as two. ``None`` if samples differ.
    """

    name: str
    version: str
    summary: str
    base: Hyperparameters
    presets: Mapping[str, Mapping[str, bool | int | float | str]]
    metric: str
    report: ReportProfile
    data: CaseData
    load_workload: Callable[[], WorkloadFactory]
    lower_is_better: bool = False
    forward_flops: float | None = None

    def __post_init__(self) -> None:
        if self.base.dataset != self.data.reference.name:
            raise ValueError(
                f"case {self.name}: the hyperparameter dataset is {self.base.dataset!r}, "
                f"its data are those of {self.data.reference.name!r}"
            )
