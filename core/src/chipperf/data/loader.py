"""Samplers that choose each rank's samples and their order, loaders of batches, and those of classified images."""

from __future__ import annotations

import os
from collections import deque
from dataclasses import dataclass
from multiprocessing.queues import Queue
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from chipperf.data.dataset_files import read_file
from chipperf.data.decode import decoder_name
from chipperf.data.loader_errors import loader_error, require_sockets
from chipperf.data.transforms import EvaluationTransform, TrainingTransform, resize_name
from chipperf.errors import ConfigError, PerfError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from chipperf.data.imagefolder import Split

B = TypeVar("B")

_ALIGNMENT = 64
"""Bytes, a multiple of the size of any element; that of a cache line."""

Batch = tuple[torch.Tensor, torch.Tensor]
"""uint8 images of shape ``(N, 3, H, W)``, channels last in memory, and int64 labels of shape ``(N,)``."""


class SampleKey(NamedTuple):
    """Index of the sample to load, and the epoch for which it is loaded.

    The epoch is part of the key because persistent workers keep the dataset with which they started.
    """

    epoch: int
    sample: int


class TrainingBatchSampler(Sampler[list[SampleKey]]):
    """Batches of one rank, from a new permutation of the dataset in every epoch.

    Global batch ``k`` of an epoch is the ``k``-th slice of the permutation, and every rank takes an equal part of it.
    Each sample occurs at most once per epoch, and each step trains the same number of samples on every rank. Samples at
    the end that do not fill a global batch are left out.

    Args:
        samples: Number of samples in the dataset.
        batch_size: Samples per rank and step.

    Attributes:
        steps_per_epoch: Number of steps in a full epoch.

    Raises:
        ConfigError: The dataset has fewer samples than one global batch.
    """

    def __init__(self, samples: int, batch_size: int, seed: int, rank: int = 0, world_size: int = 1) -> None:
        self._global_batch = batch_size * world_size
        if samples < self._global_batch:
            raise ConfigError(
                f"the training split has {samples} samples, fewer than one global batch of {batch_size} x {world_size}",
                hint="lower the batch size or the number of devices, or use more data",
            )
        self.steps_per_epoch = samples // self._global_batch
        self._samples = samples
        self._batch_size = batch_size
        self._seed = seed
        self._rank = rank
        self._epoch = 0
        self._first_step = 0

    def set_epoch(self, epoch: int, first_step: int = 0) -> None:
        """Set the epoch of the next iteration and its first step.

        Raises:
            ConfigError: The epoch has no such step.
        """
        if not 0 <= first_step < self.steps_per_epoch:
            raise ConfigError(f"step {first_step} is outside an epoch of {self.steps_per_epoch} steps")
        self._epoch = epoch
        self._first_step = first_step

    def __len__(self) -> int:
        return self.steps_per_epoch - self._first_step

    def __iter__(self) -> Iterator[list[SampleKey]]:
        # numpy's compatibility policy freezes the sequence of the legacy generator, so an order stays reproducible.
        permutation = np.random.RandomState([self._seed % 2**32, self._epoch]).permutation(self._samples)
        for step in range(self._first_step, self.steps_per_epoch):
            start = step * self._global_batch + self._rank * self._batch_size
            indices = permutation[start : start + self._batch_size].tolist()
            yield [SampleKey(self._epoch, index) for index in indices]


class EvaluationSampler(Sampler[SampleKey]):
    """The samples ``rank, rank + world_size, …``: every sample is on exactly one rank, without padding.

    Ranks may differ by one sample, so evaluation must use no per-step collective and only reduce counters at the end.
    """

    def __init__(self, samples: int, rank: int = 0, world_size: int = 1) -> None:
        self._indices = range(rank, samples, world_size)

    def __len__(self) -> int:
        return len(self._indices)

    def __iter__(self) -> Iterator[SampleKey]:
        return (SampleKey(0, index) for index in self._indices)


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

    Those of :class:`LoaderChoices` about workers are ``None`` without workers. Persistent workers stay alive after an
    epoch. ``decoder`` and ``resize`` name implementations.
    """

    workers: int
    prefetch_factor: int | None
    pin_memory: bool
    persistent_workers: bool
    start_method: str | None
    decoder: str
    resize: str


class ImageLoader(Generic[B]):
    """Iterable over batches; errors, such as of a file that cannot be decoded, stop it with a :class:`PerfError`.

    Args:
        dataset: Samples, indexed by :class:`SampleKey`.
        collate: Combines a list of samples into a batch, in the loader's processes.
        sampling: Arguments of torch's ``DataLoader`` for the sampler and batch size.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        collate: Callable[[list[Any]], B],
        options: LoaderChoices | None,
        *,
        decoder: str,
        **sampling: Any,
    ) -> None:
        options = options or LoaderChoices()
        has_workers = options.workers > 0
        if has_workers:
            require_sockets()
        self._loader: DataLoader[Any] = DataLoader(
            _Batches(dataset, collate, pieces=options.prefetch_factor + 1),
            num_workers=options.workers,
            prefetch_factor=options.prefetch_factor if has_workers else None,
            pin_memory=options.pin_memory,
            persistent_workers=has_workers,
            multiprocessing_context=options.start_method if has_workers else None,
            worker_init_fn=_prepare_process if has_workers else None,
            # A separate generator: a loader draws a seed when it starts its processes, and a resumed run starts them
            # again.
            generator=torch.Generator().manual_seed(0),
            collate_fn=_already_collated,
            **sampling,
        )
        self.settings = LoaderSettings(
            workers=options.workers,
            prefetch_factor=self._loader.prefetch_factor,
            pin_memory=options.pin_memory,
            persistent_workers=has_workers,
            start_method=options.start_method or torch.multiprocessing.get_start_method() if has_workers else None,
            decoder=decoder,
            resize=resize_name(),
        )

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[B]:
        try:
            for batch in self._loader:
                if isinstance(batch, PerfError):
                    self.close()
                    raise batch
                yield _of_tensors(batch, _own)
        except OSError as error:
            # Queues need shared memory before there is a process.
            raise loader_error(error) from error

    def close(self) -> None:
        """Stop the worker processes; the next iteration starts new ones."""
        # DataLoader has no public way to end persistent workers; they end with the iterator that owns them. The cyclic
        # garbage collector could free the queues of the iterator first; the iterator would then wait for the workers
        # until a time-out.
        self._loader._iterator = None


class TrainingLoader(ImageLoader[B]):
    """Loader of one rank's part of the training split; a full epoch has ``steps_per_epoch`` steps."""

    def __init__(
        self,
        dataset: Dataset[Any],
        collate: Callable[[list[Any]], B],
        options: LoaderChoices | None,
        sampler: TrainingBatchSampler,
        *,
        decoder: str,
    ) -> None:
        super().__init__(dataset, collate, options, decoder=decoder, batch_sampler=sampler)
        self.steps_per_epoch = sampler.steps_per_epoch
        self._sampler = sampler

    def set_epoch(self, epoch: int, first_step: int = 0) -> None:
        """Set the epoch of the next iteration and its first step, see :meth:`TrainingBatchSampler.set_epoch`."""
        self._sampler.set_epoch(epoch, first_step)


class ImageFolderDataset(Dataset[tuple[torch.Tensor, int]]):
    """Pairs of a transformed image and its label."""

    def __init__(self, split: Split, transform: TrainingTransform | EvaluationTransform) -> None:
        self._split = split
        self._transform = transform

    def __getitem__(self, key: SampleKey) -> tuple[torch.Tensor, int]:
        """Return the uint8 image of shape ``(3, height, width)`` and its label."""
        path = self._split.path(key.sample)
        return self._transform(read_file(path), path, key.epoch, key.sample), self._split.label(key.sample)


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
        batch_size: Samples per rank and step.
        seed: Seed of the run; it determines order and crops.
        image_size: Height and width of the images in pixels.

    Raises:
        ConfigError: The split has fewer samples than one global batch.
    """
    sampler = TrainingBatchSampler(len(split), batch_size, seed, rank, world_size)
    dataset = ImageFolderDataset(split, TrainingTransform(seed, image_size))
    return TrainingLoader(dataset, _collate, options, sampler, decoder=decoder_name(region=True))


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

    The arguments are those of :func:`build_training_loader`; the last batch may be smaller, and ``resize_to`` is the
    length of an image's shorter side in pixels before the central crop to ``image_size``.
    """
    sampler = EvaluationSampler(len(split), rank, world_size)
    dataset = ImageFolderDataset(split, EvaluationTransform(resize_to, image_size))
    return ImageLoader(dataset, _collate, options, decoder=decoder_name(), sampler=sampler, batch_size=batch_size)


def _prepare_process(worker: int) -> None:
    """Leave the rank's process group, so that its signals do not end a worker while a step needs a batch."""
    os.setpgid(0, 0)
    # The queue sends batches in a thread, where an error would be lost with the batch.
    Queue._on_queue_feeder_error = lambda queue, error, item: queue.put((item[0], loader_error(error)))  # type: ignore


class _Batches(Dataset[Any]):
    """Loads batches; returns an error of a worker instead of raising it, because torch would turn it into text."""

    def __init__(self, dataset: Dataset[Any], collate: Callable[[list[Any]], Any], pieces: int) -> None:
        self._dataset = dataset
        self._collate = collate
        self._shared = SharedPieces(pieces)

    def __getitems__(self, keys: list[SampleKey]) -> Any:
        in_worker = get_worker_info() is not None
        try:
            batch = self._collate([self._dataset[key] for key in keys])
            return self._shared.put(batch) if in_worker else batch
        except Exception as error:
            if not in_worker:
                raise
            return loader_error(error)


class SharedPieces:
    """Memory in which a worker passes its batches on: pieces that they take in turn.

    torch would take new memory for each tensor, which the system has to clear and to map.

    Args:
        count: Number of pieces. A batch keeps its values until its worker has made as many others less one. While its
            reader copies it, the worker makes at most ``prefetch_factor``.
    """

    def __init__(self, count: int) -> None:
        self._pieces = deque([torch.empty(0, dtype=torch.uint8)] * count)

    def put(self, batch: Any) -> Any:
        """Return the batch with copies of its tensors, in the same order of memory."""
        starts = [0]
        _of_tensors(batch, lambda tensor: starts.append(starts[-1] + -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT))
        piece = self._pieces.popleft()
        if len(piece) < starts[-1]:
            piece = torch.empty(starts[-1], dtype=torch.uint8).share_memory_()
        self._pieces.append(piece)
        places = iter(starts)

        def put_tensor(tensor: torch.Tensor) -> torch.Tensor:
            start = next(places)
            strides = torch.empty_like(tensor, device="meta").stride()
            room = piece[start : start + tensor.nbytes].view(tensor.dtype)
            return room.as_strided(tensor.shape, strides).copy_(tensor)

        return _of_tensors(batch, put_tensor)


def _of_tensors(batch: Any, function: Callable[[torch.Tensor], Any]) -> Any:
    """Return a batch with the results of a function in place of its tensors: a tensor or a tuple; others stay."""
    if isinstance(batch, torch.Tensor):
        return function(batch)
    if not isinstance(batch, tuple):
        return batch
    parts = [function(part) if isinstance(part, torch.Tensor) else part for part in batch]
    return type(batch)(*parts) if hasattr(batch, "_fields") else tuple(parts)


def _own(tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor, or a copy if the memory is a worker's, which puts other batches there."""
    return tensor.clone() if tensor.is_shared() else tensor


def _already_collated(batch: Any) -> Any:
    return batch


def _collate(samples: list[tuple[torch.Tensor, int]]) -> Batch:
    # Images are stacked in the memory order of their pixels.
    images = torch.stack([image.permute(1, 2, 0) for image, _ in samples])
    return images.permute(0, 3, 1, 2), torch.tensor([label for _, label in samples])
