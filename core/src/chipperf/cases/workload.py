"""The torch side of a case: what training asks of a model and its data."""

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
    from chipperf.records.schema import Dataset, Loader
    from chipperf.run.collectives import Collectives

H = TypeVar("H")

Batch = Any
"""Whatever the case's loader yields; only the case looks inside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadContext(Generic[H]):
    """What a workload is built from.

    Attributes:
        hyperparameters: Values in force.
        reference: The dataset that the case is defined on.
        data_root: The dataset's directory.
        rank: Place of this worker.
        device: The worker's device.
        loader_options: What the vendor asks of the loader.
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
    """Result over the whole evaluation split: quality as a fraction, and how many samples it counts.

    ``details`` are further figures of the case, by name, as fractions.
    """

    value: float
    samples: int
    details: Mapping[str, float] = field(default_factory=dict)


class Workload(Protocol):
    """A case on one worker.

    Attributes:
        dataset: Identity of the data.
        loader: Settings of the input pipeline.
        target: Quality that the dataset itself declares as its target; ``None`` if it declares none.
        steps_per_epoch: Optimizer steps of an epoch.
        eval_samples: Samples of the evaluation split.
        memory_format: Layout of the images that the model wants; training sets it from the prepared model.
        max_gradient_norm: Norm to which the gradients are clipped before each optimizer step; ``None`` does not clip.
    """

    dataset: Dataset
    loader: Loader
    target: float | None
    steps_per_epoch: int
    eval_samples: int
    memory_format: torch.memory_format
    max_gradient_norm: float | None

    def build_model(self) -> torch.nn.Module:
        """Return the model with fresh weights, on the CPU."""

    def build_optimizer(self, model: torch.nn.Module) -> torch.optim.Optimizer:
        """Return the optimizer over the model's parameters."""

    def learning_rates(self, step: int) -> list[float]:
        """Return the learning rate of each parameter group at optimizer step ``step``, counted from 0."""

    def epoch_batches(self, epoch: int, first_batch: int = 0) -> Iterator[Batch]:
        """Yield this rank's training batches of an epoch, on the host, beginning with the one at ``first_batch``.

        What a batch holds follows from the seed, the epoch and its place alone, and loading draws from no generator
        that training draws from: a run that was interrupted goes on with the same batches and random numbers.
        """

    def to_device(self, batch: Batch) -> Batch:
        """Return the batch on the device, ready for the model."""

    def sample_count(self, batch: Batch) -> int:
        """Return the number of real samples in a batch."""

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """Return the scalar training loss of a batch that is on the device."""

    def evaluate(
        self, model: torch.nn.Module, collectives: Collectives, autocast: Callable[[], AbstractContextManager[object]]
    ) -> Evaluation:
        """Evaluate on the whole split, each sample once over all ranks; the model is in evaluation mode."""
