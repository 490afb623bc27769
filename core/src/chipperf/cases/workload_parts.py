"""The parts that the workloads of several cases share."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch

from chipperf.data.loader import LoaderChoices, TrainingBatchSampler
from chipperf.data.transforms import Normalize
from chipperf.errors import ConfigError
from chipperf.records.schema import Dataset, Loader, Missing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from chipperf.cases.base import Hyperparameters
    from chipperf.cases.workload import Batch, WorkloadContext
    from chipperf.data.dataset_identity import DatasetIdentity
    from chipperf.data.loader import TrainingLoader

H = TypeVar("H", bound="Hyperparameters")


class ImageWorkload(Generic[H]):
    """The part of a :class:`~.workload.Workload` that all cases on images share.

    Raises:
        ConfigError: An epoch has fewer batches than one optimizer step accumulates.
    """

    def __init__(
        self, context: WorkloadContext[H], identity: DatasetIdentity, train_loader: TrainingLoader[Any]
    ) -> None:
        self._hyperparameters = context.hyperparameters
        self._device = context.device
        self._normalize = Normalize(context.device)
        self._train_loader = train_loader
        self.steps_per_epoch = _optimizer_steps(train_loader.steps_per_epoch, context.hyperparameters)
        self.dataset = dataset_record(identity)
        self.loader = Loader(**asdict(train_loader.settings))
        self.target = identity.target
        self.eval_samples = identity.eval_samples
        self.memory_format = torch.contiguous_format
        self.max_gradient_norm: float | None = None

    def epoch_batches(self, epoch: int, first_batch: int = 0) -> Iterator[Batch]:
        """Yield this rank's batches of an epoch."""
        self._train_loader.set_epoch(epoch, first_batch)
        return iter(self._train_loader)


class HostWorkload(Generic[H]):
    """The part of a :class:`~.workload.Workload` whose batches each rank reads itself, without loader processes.

    It suits data in memory, or in files that are mapped into it. A subclass reads batches by the numbers of their
    items, which count from 0 in each split.

    Args:
        train_items: Items of the training split, of which a batch has ``batch_size``.
        eval_items: Items of the evaluation split.

    Raises:
        ConfigError: An epoch has fewer batches than one optimizer step accumulates, or ``workers`` is set.
    """

    def __init__(
        self, context: WorkloadContext[H], identity: DatasetIdentity, *, train_items: int, eval_items: int
    ) -> None:
        h, rank = context.hyperparameters, context.rank
        if h.workers > 0:
            raise ConfigError(f"workers is {h.workers}, but this case reads its data without them", hint="leave it out")
        self._hyperparameters = h
        self._device = context.device
        self._sampler = TrainingBatchSampler(train_items, h.batch_size, h.seed, rank.rank, rank.world_size)
        self._eval_items = range(rank.rank, eval_items, rank.world_size)
        self.steps_per_epoch = _optimizer_steps(self._sampler.steps_per_epoch, h)
        self.dataset = dataset_record(identity)
        self.loader = Loader(
            workers=0,
            prefetch_factor=None,
            pin_memory=context.loader_options.pin_memory,
            persistent_workers=False,
            start_method=None,
            decoder="none",
            resize="none",
        )
        self.target = identity.target
        self.eval_samples = identity.eval_samples
        self.memory_format = torch.contiguous_format
        self.max_gradient_norm: float | None = None

    def read(self, items: Sequence[int], *, training: bool) -> tuple[torch.Tensor, ...]:
        """Return the batch of items of the training or the evaluation split, on the host."""
        raise NotImplementedError

    def epoch_batches(self, epoch: int, first_batch: int = 0) -> Iterator[tuple[torch.Tensor, ...]]:
        """Yield this rank's batches of an epoch, from a new permutation of the training split."""
        self._sampler.set_epoch(epoch, first_batch)
        for keys in self._sampler:
            batch = self.read([key.sample for key in keys], training=True)
            yield tuple(part.pin_memory() for part in batch) if self.loader.pin_memory else batch

    def evaluation_batches(self) -> Iterator[tuple[torch.Tensor, ...]]:
        """Yield this rank's part of the evaluation split on the device: each item is on exactly one rank."""
        items, size = self._eval_items, self._hyperparameters.eval_batch_size
        for start in range(0, len(items), size):
            yield self.to_device(self.read(items[start : start + size], training=False))

    def to_device(self, batch: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """Copy a batch to the device."""
        return tuple(part.to(self._device, non_blocking=True) for part in batch)


def _optimizer_steps(batches: int, hyperparameters: Hyperparameters) -> int:
    accumulated = hyperparameters.accumulate_steps
    if batches < accumulated:
        raise ConfigError(
            f"accumulate_steps is {accumulated}, but an epoch has {batches} batches",
            hint="lower accumulate_steps or batch_size, or use more data",
        )
    return batches // accumulated


def loader_arguments(context: WorkloadContext[Any], **arguments: Any) -> dict[str, Any]:
    """Return the arguments that a case's loaders share: the ranks, the user's and the vendor's options, and more."""
    options = LoaderChoices(
        workers=context.loader_workers,
        prefetch_factor=context.hyperparameters.prefetch_factor,
        pin_memory=context.loader_options.pin_memory,
        start_method=context.loader_options.start_method,
    )
    return {"rank": context.rank.rank, "world_size": context.rank.world_size, "options": options, **arguments}


def dataset_record(identity: DatasetIdentity) -> Dataset:
    """Return the dataset's part of a record."""
    values = asdict(identity)
    del values["target"]
    for name, reason in (("version", "the files state no version"), ("classes", "the samples have no classes")):
        if values[name] is None:
            values[name] = Missing(missing="not_applicable", reason=reason)
    return Dataset(**values)


def fused_if_possible(
    optimizer: Callable[..., torch.optim.Optimizer], parameters: Any, **arguments: Any
) -> torch.optim.Optimizer:
    """Return the optimizer, fused if the device has such a kernel; this changes only the speed.

    Some versions of torch accept ``fused`` on a device without the kernel, so a parameter of its own is updated first.
    """
    parameters = list(parameters)

    def copied() -> list[Any]:
        """Return the parameters, or groups of them; torch writes its settings into each group."""
        return [dict(each) if isinstance(each, dict) else each for each in parameters]

    plain = optimizer(copied(), **arguments)
    one = plain.param_groups[0]["params"][0].new_zeros(1).requires_grad_()
    one.grad = torch.zeros_like(one)
    try:
        optimizer([one], **arguments, fused=True).step()
    except (RuntimeError, TypeError, ValueError):
        return plain
    fused = optimizer(copied(), **arguments, fused=True)
    # torch leaves the momenta of SGD as memory was, if the scaler of gradients skips the first step.
    for group in fused.param_groups:
        for parameter in group["params"] if group.get("momentum") else ():
            fused.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return fused
