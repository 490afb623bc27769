"""The parts that the workloads of several cases share."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch

from chipperf.data.loader import LoaderChoices
from chipperf.data.transforms import Normalize
from chipperf.errors import ConfigError
from chipperf.records.schema import Dataset, Loader, Missing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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
        batches, accumulated = train_loader.steps_per_epoch, context.hyperparameters.accumulate_steps
        self.steps_per_epoch = batches // accumulated
        if self.steps_per_epoch == 0:
            raise ConfigError(
                f"accumulate_steps is {accumulated}, but an epoch has {batches} batches",
                hint="lower accumulate_steps or batch_size, or use more data",
            )
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
    plain = optimizer(parameters, **arguments)
    one = plain.param_groups[0]["params"][0].new_zeros(1).requires_grad_()
    one.grad = torch.zeros_like(one)
    try:
        optimizer([one], **arguments, fused=True).step()
    except (RuntimeError, TypeError, ValueError):
        return plain
    fused = optimizer(parameters, **arguments, fused=True)
    # torch leaves the momenta of SGD as memory was, if the scaler of gradients skips the first step.
    for group in fused.param_groups:
        for parameter in group["params"] if group.get("momentum") else ():
            fused.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return fused
