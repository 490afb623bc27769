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
    """What a user or a vendor may choose about loading.

    Attributes:
        workers: Worker processes per rank; 0 loads in the training process.
        prefetch_factor: Batches that each worker prepares ahead.
        pin_memory: Whether batches are copied to page-locked memory.
        start_method: How workers are started: ``fork``, ``forkserver`` or ``spawn``; ``None`` for the default.
    """

    workers: int = 0
    prefetch_factor: int = 4
    pin_memory: bool = False
    start_method: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderSettings:
    """How a loader really works, for the record of a run.

    Attributes:
        workers: Worker processes per rank.
        prefetch_factor: Batches that each worker prepares ahead; ``None`` without workers.
        pin_memory: Whether batches are copied to page-locked memory.
        persistent_workers: Whether workers outlive an epoch.
        start_method: How workers are started; ``None`` without workers.
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
    """Iterable over batches; a file that cannot be decoded stops it with one :class:`DataError`."""

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
        """Stop the worker processes; another iteration would start new ones."""
        # DataLoader has no public way to end persistent workers; they end with the iterator that owns them. Left to the
        # cyclic garbage collector, it would lose its queues first and then wait for the workers until a time-out.
        self._loader._iterator = None


class TrainingLoader(ImageLoader[B]):
    """Loader of one rank's share of the training split."""

    def __init__(self, loader: DataLoader[Any], settings: LoaderSettings, sampler: TrainingBatchSampler) -> None:
        super().__init__(loader, settings)
        self._sampler = sampler

    @property
    def steps_per_epoch(self) -> int:
        """Number of steps in a whole epoch."""
        return self._sampler.steps_per_epoch

    def set_epoch(self, epoch: int, first_step: int = 0) -> None:
        """Choose the epoch of the next iteration and the step of that epoch to begin with.

        Raises:
            ConfigError: The epoch does not have that step.
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
        seed: Seed of the run; order and crops follow from it.
        rank: This process.
        world_size: Number of processes.
        image_size: Height and width of the images in pixels.
        options: Worker processes and memory.

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
    """Build the loader of this rank's evaluation batches; together the ranks load every sample exactly once.

    Args:
        split: Evaluation split.
        batch_size: Samples per batch; the last batch may be smaller.
        rank: This process.
        world_size: Number of processes.
        resize_to: Length in pixels to which the shorter side is resized.
        image_size: Height and width in pixels of the central crop that is taken then.
        options: Worker processes and memory.
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
    """Build torch's loader for an :class:`ImageLoader`, and say how it works.

    Args:
        dataset: Samples by :class:`SampleKey`.
        collate: Makes a batch of a list of samples; runs in the loader's processes.
        options: Worker processes and memory.
        decoder: Name of the decoder in force.
        sampling: Sampler and batch size, as torch's ``DataLoader`` takes them.
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
        # Its own: a loader draws a seed for its processes when it starts them, which a resumed run does once more.
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
    """Let a signal to the rank's process group not end its loader processes: the step that runs needs its batch."""
    os.setpgid(0, 0)


class _ErrorsAsItems(Dataset[Any]):
    """Returns a :class:`DataError` instead of raising it: torch would wrap it into the text of a traceback."""

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
    # Stacked in the order in which the pixels lie in memory; in a worker, default_collate writes to shared memory.
    images: torch.Tensor = default_collate([image.permute(1, 2, 0) for image, _ in samples])
    return images.permute(0, 3, 1, 2), torch.tensor([label for _, label in samples])
