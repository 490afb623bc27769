"""Functions that the workloads of all cases share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chipperf.data.loader import LoaderChoices
from chipperf.errors import ConfigError
from chipperf.records.schema import Dataset, Loader, Missing

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from chipperf.cases.base import Hyperparameters
    from chipperf.cases.workload import WorkloadContext
    from chipperf.data.dataset_identity import DatasetIdentity
    from chipperf.data.loader import LoaderSettings, TrainingLoader


def loader_options(context: WorkloadContext[Any]) -> LoaderChoices:
    """Return the loader settings from the user's and the vendor's options."""
    return LoaderChoices(
        workers=context.loader_workers,
        prefetch_factor=context.hyperparameters.prefetch_factor,
        pin_memory=context.loader_options.pin_memory,
        start_method=context.loader_options.start_method,
    )


def optimizer_steps_per_epoch(loader: TrainingLoader[Any], hyperparameters: Hyperparameters) -> int:
    """Return the optimizer steps of an epoch.

    Raises:
        ConfigError: An epoch has fewer batches than one optimizer step accumulates.
    """
    batches, accumulated = loader.steps_per_epoch, hyperparameters.accumulate_steps
    steps = batches // accumulated
    if steps == 0:
        raise ConfigError(
            f"accumulate_steps is {accumulated}, but an epoch has {batches} batches",
            hint="lower accumulate_steps or batch_size, or use more data",
        )
    return steps


def dataset_record(identity: DatasetIdentity) -> Dataset:
    """Return the dataset's part of a record."""
    return Dataset(
        name=identity.name,
        version=identity.version or Missing(missing="not_applicable", reason="the files state no version"),
        fingerprint=identity.fingerprint,
        fingerprint_method=identity.fingerprint_method,
        train_samples=identity.train_samples,
        eval_samples=identity.eval_samples,
        classes=Missing(missing="not_applicable", reason="the samples have no classes")
        if identity.classes is None
        else identity.classes,
        is_sample=identity.is_sample,
    )


def loader_record(settings: LoaderSettings) -> Loader:
    """Return the input pipeline's part of a record."""
    return Loader(
        workers=settings.workers,
        prefetch_factor=settings.prefetch_factor,
        pin_memory=settings.pin_memory,
        persistent_workers=settings.persistent_workers,
        start_method=settings.start_method,
        decoder=settings.decoder,
        resize=settings.resize,
    )


def fused_if_possible(
    optimizer: Callable[..., torch.optim.Optimizer], parameters: Any, **arguments: Any
) -> torch.optim.Optimizer:
    """Return the optimizer, fused if the device has such a kernel; this changes only the speed."""
    try:
        return optimizer(parameters, **arguments, fused=True)
    except (RuntimeError, ValueError):
        return optimizer(parameters, **arguments)
