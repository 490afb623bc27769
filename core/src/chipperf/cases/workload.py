"""The torch part of a case: the interface between training and a model with its data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    import torch

    from chipperf.data.dataset_identity import ReferenceDataset
    from chipperf.plugin.types import LoaderOptions, Rank
    from chipperf.records.schema import Dataset, Loader, Missing
    from chipperf.run.collectives import Collectives

H = TypeVar("H")

Batch = Any
"""A batch from the case's loader; only the case knows its type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadContext(Generic[H]):
    """Inputs for building a workload on one rank.

    Attributes:
        reference: The dataset for which the case is defined.
        loader_options: Loader options from the vendor.
        loader_workers: Loader processes of this rank.
    """

    hyperparameters: H
    reference: ReferenceDataset
    data_root: Path
    rank: Rank
    device: torch.device
    loader_options: LoaderOptions
    loader_workers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Result on the whole evaluation split: quality as a fraction, or why there is none, and the number of samples.

    ``details`` holds further results of the case by name, as fractions.
    """

    value: float | Missing
    samples: int
    details: Mapping[str, float] = field(default_factory=dict)


class Workload(Protocol):
    """A case on one worker.

    Attributes:
        dataset: Identity of the data.
        loader: Settings of the input pipeline.
        target: Target quality that the dataset declares; ``None`` if it declares none.
        steps_per_epoch: Optimizer steps of an epoch.
        eval_samples: Samples of the evaluation split.
        memory_format: Memory layout of the model's input images; training sets it from the prepared model.
        max_gradient_norm: Norm to which gradients are clipped before each optimizer step; ``None`` for no clipping.
    """

    dataset: Dataset
    loader: Loader
    target: float | None
    steps_per_epoch: int
    eval_samples: int
    memory_format: torch.memory_format
    max_gradient_norm: float | None

    def build_model(self) -> torch.nn.Module:
        """Return a newly initialized model on the CPU."""

    def build_optimizer(self, model: torch.nn.Module) -> torch.optim.Optimizer:
        """Return the optimizer of the model's parameters."""

    def learning_rates(self, step: int) -> list[float]:
        """Return the learning rate of each parameter group at optimizer step ``step``, counted from 0."""

    def epoch_batches(self, epoch: int, first_batch: int = 0) -> Iterator[Batch]:
        """Yield this rank's training batches of an epoch, on the host, starting at ``first_batch``.

        The content of a batch depends only on the seed, the epoch and its position. Loading does not use the generators
        of training. So a resumed run continues with the same batches and random numbers.
        """

    def to_device(self, batch: Batch) -> Batch:
        """Return the batch on the device, in the form that the model takes."""

    def sample_count(self, batch: Batch) -> int:
        """Return the number of real samples in a batch."""

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """Return the scalar training loss of a batch on the device."""

    def evaluate(
        self, model: torch.nn.Module, collectives: Collectives, autocast: Callable[[], AbstractContextManager[object]]
    ) -> Evaluation:
        """Evaluate the whole split, each sample once over all ranks; the model is in evaluation mode."""
