"""Loaders of training and evaluation batches."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from chipperf.data.dataset import ImageFolderDataset, SampleKey
from chipperf.data.decode import decoder_name
from chipperf.data.samplers import EvaluationSampler, TrainingBatchSampler
from chipperf.data.transforms import EvaluationTransform, TrainingTransform, resize_name
from chipperf.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from chipperf.data.imagefolder import Split

B = TypeVar("B")

Batch = tuple[torch.Tensor, torch.Tensor]
"""uint8 images of shape ``(N, 3, H, W)``, channels last in memory, and int64 labels of shape ``(N,)``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderChoices:
    """Loader settings that a user or a vendor may choose.

    Attributes:
        workers: Worker processes per rank; with 0 the training process loads.
        prefetch_factor: Batches that each worker prepares ahead.
        pin_memory: Whether to copy batches to page-locked memory.
        start_method: Start method of workers: ``fork``, ``forkserver`` or ``spawn``; ``None`` for the default.
    """

    workers: int = 0
    prefetch_factor: int = 4
    pin_memory: bool = False
    start_method: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderSettings:
    """Effective settings of a loader, for a run's record.

    Attributes:
        workers: Worker processes per rank.
        prefetch_factor: Batches that each worker prepares ahead; ``None`` without workers.
        pin_memory: Whether to copy batches to page-locked memory.
        persistent_workers: Whether workers stay alive after an epoch.
        start_method: Start method of workers; ``None`` without workers.
        decoder: Decoder of JPEG files.
        resize: Implementation of the resize.
    """

    workers: int
    prefetch_factor: int | None
    pin_memory: bool
    persistent_workers: bool
    start_method: str | None
    decoder: str
    resize: str


class ImageLoader(Generic[B]):
    """Iterable over batches; a file that cannot be decoded stops the iteration with a :class:`DataError`."""

    def __init__(self, loader: DataLoader[Any], settings: LoaderSettings) -> None:
        self._loader = loader
        self.settings = settings

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[B]:
        for batch in self._loader:
            if isinstance(batch, DataError):
                self.close()
                raise batch
            yield batch

    def close(self) -> None:
        """Stop the worker processes; the next iteration starts new ones."""
        # DataLoader has no public way to end persistent workers; they end with the iterator that owns them. The cyclic
        # garbage collector could free the queues of the iterator first; the iterator would then wait for the workers
        # until a time-out.
        self._loader._iterator = None


class TrainingLoader(ImageLoader[B]):
    """Loader of one rank's part of the training split."""

    def __init__(self, loader: DataLoader[Any], settings: LoaderSettings, sampler: TrainingBatchSampler) -> None:
        super().__init__(loader, settings)
        self._sampler = sampler

    @property
    def steps_per_epoch(self) -> int:
        """Number of steps in a full epoch."""
        return self._sampler.steps_per_epoch

    def set_epoch(self, epoch: int, first_step: int = 0) -> None:
        """Set the epoch of the next iteration and its first step.

        Raises:
            ConfigError: The epoch has no such step.
        """
        self._sampler.set_epoch(epoch, first_step)


def build_training_loader(
    split: Split,
    *,
    batch_size: int,
    seed: int,
    rank: int = 0,
    world_size: int = 1,
    image_size: int = 224,
    options: LoaderChoices | None = None,
) -> TrainingLoader[Batch]:
    """Build the loader of randomly cropped and flipped training batches.

    Args:
        split: Training split.
        batch_size: Samples per rank and step.
        seed: Seed of the run; it determines order and crops.
        rank: Rank of this process.
        world_size: Number of processes.
        image_size: Height and width of the images in pixels.
        options: Settings of worker processes and memory.

    Raises:
        ConfigError: The split has fewer samples than one global batch.
    """
    sampler = TrainingBatchSampler(len(split), batch_size, seed, rank, world_size)
    dataset = ImageFolderDataset(split, TrainingTransform(seed, image_size))
    loader, settings = data_loader(
        dataset, _collate, options or LoaderChoices(), decoder=decoder_name(), batch_sampler=sampler
    )
    return TrainingLoader(loader, settings, sampler)


def build_evaluation_loader(
    split: Split,
    *,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    resize_to: int = 256,
    image_size: int = 224,
    options: LoaderChoices | None = None,
) -> ImageLoader[Batch]:
    """Build the loader of this rank's evaluation batches; all ranks together load every sample exactly once.

    Args:
        split: Evaluation split.
        batch_size: Samples per batch; the last batch may be smaller.
        rank: Rank of this process.
        world_size: Number of processes.
        resize_to: Length of the shorter side after the resize, in pixels.
        image_size: Height and width of the central crop after the resize, in pixels.
        options: Settings of worker processes and memory.
    """
    sampler = EvaluationSampler(len(split), rank, world_size)
    dataset = ImageFolderDataset(split, EvaluationTransform(resize_to, image_size))
    loader, settings = data_loader(
        dataset, _collate, options or LoaderChoices(), decoder=decoder_name(), sampler=sampler, batch_size=batch_size
    )
    return ImageLoader(loader, settings)


def data_loader(
    dataset: Dataset[Any], collate: Callable[[list[Any]], Any], options: LoaderChoices, *, decoder: str, **sampling: Any
) -> tuple[DataLoader[Any], LoaderSettings]:
    """Return the torch loader for an :class:`ImageLoader`, and its effective settings.

    Args:
        dataset: Samples, indexed by :class:`SampleKey`.
        collate: Combines a list of samples into a batch, in the loader's processes.
        options: Settings of worker processes and memory.
        decoder: Name of the decoder in use.
        sampling: Arguments of torch's ``DataLoader`` for the sampler and batch size.
    """
    has_workers = options.workers > 0
    loader = DataLoader(
        _ErrorsAsItems(dataset),
        num_workers=options.workers,
        prefetch_factor=options.prefetch_factor if has_workers else None,
        pin_memory=options.pin_memory,
        persistent_workers=has_workers,
        multiprocessing_context=options.start_method if has_workers else None,
        worker_init_fn=_leave_process_group if has_workers else None,
        # A separate generator: a loader draws a seed when it starts its processes, and a resumed run starts them again.
        generator=torch.Generator().manual_seed(0),
        collate_fn=_CollateUnlessError(collate),
        **sampling,
    )
    settings = LoaderSettings(
        workers=options.workers,
        prefetch_factor=loader.prefetch_factor,
        pin_memory=options.pin_memory,
        persistent_workers=has_workers,
        start_method=options.start_method or torch.multiprocessing.get_start_method() if has_workers else None,
        decoder=decoder,
        resize=resize_name(),
    )
    return loader, settings


def _leave_process_group(worker: int) -> None:
    """Leave the rank's process group, so that its signals do not end a worker while a step needs a batch."""
    os.setpgid(0, 0)


class _ErrorsAsItems(Dataset[Any]):
    """Returns a :class:`DataError` instead of raising it, because torch would turn it into traceback text."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self._dataset = dataset

    def __getitem__(self, key: SampleKey) -> Any:
        try:
            return self._dataset[key]
        except DataError as error:
            return error


class _CollateUnlessError:
    """Collates samples, or returns the first :class:`DataError` among them."""

    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self._collate = collate

    def __call__(self, samples: list[Any]) -> Any:
        for sample in samples:
            if isinstance(sample, DataError):
                return sample
        return self._collate(samples)


def _collate(samples: list[tuple[torch.Tensor, int]]) -> Batch:
    # Images are stacked in the memory order of their pixels. In a worker, default_collate writes to shared memory.
    images: torch.Tensor = default_collate([image.permute(1, 2, 0) for image, _ in samples])
    return images.permute(0, 3, 1, 2), torch.tensor([label for _, label in samples])
