"""What a case is: a model, its data, its metric, and which hyperparameters may change.

Importing a case imports no torch; :attr:`Case.load_workload` does.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, Protocol

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from chipperf.cases.case_data import CaseData
    from chipperf.cases.workload import Workload, WorkloadContext
    from chipperf.plugin.types import Title


class Role(str, Enum):
    """Who may change a hyperparameter.

    ``LOCKED``: nobody but the case's own presets; another value is another benchmark. ``SCALED``: may follow the batch
    size and the number of devices, and is disclosed in ``fix_hp``. ``FREE``: does not change what is learned.
    """

    LOCKED = "locked"
    SCALED = "scaled"
    FREE = "free"

    __str__ = str.__str__


class Hyperparameters(BaseModel):
    """Hyperparameters that every case has; each is annotated with its :class:`Role`.

    Batch sizes are per device. ``target`` is the quality, as a fraction, at which the case counts as converged on
    ``dataset``. ``workers`` is the number of loader processes per rank, -1 leaves it to core. The ``measure_*`` keys
    set the measurement windows, in steps. Evaluations and checkpoints may come every so many optimizer steps or epochs;
    0 is never. ``sync_batchnorm`` lets batch normalization take its statistics over the batches of all ranks.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

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

    @classmethod
    def role(cls, key: str) -> Role:
        """Return who may change ``key``."""
        for metadata in cls.model_fields[key].metadata:
            if isinstance(metadata, Role):
                return metadata
        raise TypeError(f"{cls.__name__}.{key} has no Role")

    @classmethod
    def keys(cls) -> tuple[str, ...]:
        """Return every key, in the order of declaration."""
        return tuple(cls.model_fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportProfile:
    """How a report speaks of a case.

    Attributes:
        model_title: The model's name in the general table.
        task: Kind of task.
        quality_column: Header of the result column, for example ``acc``.
        quality_legend: What that column means.
        sample_noun: What one training sample is.
        quality_as_percent: True if the quality is printed as a percentage, False as a fraction.
    """

    model_title: str
    task: Title
    quality_column: str
    quality_legend: Title
    sample_noun: Title
    quality_as_percent: bool = True


class WorkloadFactory(Protocol):
    """Builds the torch side of a case."""

    def __call__(self, context: WorkloadContext[Any]) -> Workload:
        """Return the workload of one worker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A standard training task.

    Attributes:
        name: What the user types.
        version: Changes whenever a locked value or the meaning of the metric does.
        summary: One line for listings.
        base: Base values; the class holds the fields' types and roles.
        presets: Named sets of values that may replace locked ones; ``full`` is the base itself.
        metric: Name of the quality, for example ``top1``.
        report: How a report speaks of it.
        data: The dataset that the case is defined on, and how data are checked and generated.
        load_workload: Imports torch and returns the factory of the case's workload.
        forward_flops: Floating-point operations of one training sample's forward pass with the base's values, a
            multiplication and an addition being two; ``None`` where samples differ.
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
    forward_flops: float | None = None

    def __post_init__(self) -> None:
        if self.base.dataset != self.data.reference.name:
            raise ValueError(
                f"case {self.name}: the hyperparameter dataset is {self.base.dataset!r}, "
                f"its data are those of {self.data.reference.name!r}"
            )
