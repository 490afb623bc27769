"""Batches of images of different sizes with boxes and masks, and their loaders."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from chipperf.data.coco_transforms import (
    FULL_RESOLUTION,
    DetectionEvaluationTransform,
    DetectionSample,
    DetectionTrainingTransform,
)
from chipperf.data.dataset_files import read_file
from chipperf.data.decode import decode_rgb, decoder_name, require_size
from chipperf.data.loader import (
    EvaluationSampler,
    ImageLoader,
    LoaderChoices,
    TrainingBatchSampler,
    TrainingLoader,
)
from chipperf.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chipperf.data.coco import CocoSplit, Objects
    from chipperf.data.loader import SampleKey
    from chipperf.data.transforms import Normalize


class DetectionBatch(NamedTuple):
    """Images padded to one size, with their objects.

    Each attribute of the objects is one tensor over all images. So a batch has few tensors to send between processes,
    to pin and to copy, whatever its number of images.

    Attributes:
        images: uint8 of shape ``(B, 3, H, W)``, channels last in memory; padding is 0, at the right and bottom.
        mask: bool of shape ``(B, H, W)``, true on padding.
        image_ids: COCO image ids, on the host.
        counts: Number of objects of each image, on the host.
        boxes: float32 of shape ``(n, 4)``: center x, center y, width and height as fractions of the unpadded image.
        labels: int64 of shape ``(n,)``: category ids.
        masks: bool of shape ``(n, H, W)``; ``None`` if masks are not learned.
        sizes: int64 of shape ``(B, 2)``: height and width of the unpadded image.
        orig_sizes: int64 of shape ``(B, 2)``: height and width of the image file.
    """

    images: torch.Tensor
    mask: torch.Tensor
    image_ids: Sequence[int]
    counts: Sequence[int]
    boxes: torch.Tensor
    labels: torch.Tensor
    masks: torch.Tensor | None
    sizes: torch.Tensor
    orig_sizes: torch.Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Padding:
    """Size to which the images of a batch are padded.

    A compiler that builds a program per shape needs few shapes, or only one.

    Attributes:
        multiple: Height and width are rounded up to a multiple of this; 1 pads to the largest image of the batch.
        fixed_side: Height and width of every batch; ``None`` to derive them from the images.
    """

    multiple: int = 1
    fixed_side: int | None = None

    def size(self, heights: Sequence[int], widths: Sequence[int]) -> tuple[int, int]:
        """Return a height and width that fit all images.

        Raises:
            ConfigError: An image is larger than the fixed size.
        """
        height, width = max(heights), max(widths)
        if self.fixed_side is None:
            return -(-height // self.multiple) * self.multiple, -(-width // self.multiple) * self.multiple
        if max(height, width) > self.fixed_side:
            raise ConfigError(
                f"an image of {width}x{height} pixels does not fit into batches of {self.fixed_side}x{self.fixed_side}",
                hint="use a fixed size of at least the longest side that the transforms allow",
            )
        return self.fixed_side, self.fixed_side


@dataclass(frozen=True, slots=True)
class LoadedSample:
    """A transformed sample, its COCO image id, and height and width of the image file in pixels."""

    sample: DetectionSample
    image_id: int
    orig_size: tuple[int, int]


class CocoDataset(Dataset[LoadedSample]):
    """Transformed samples of a split, with masks if wanted."""

    def __init__(
        self, split: CocoSplit, transform: DetectionTrainingTransform | DetectionEvaluationTransform, *, masks: bool
    ) -> None:
        self._split = split
        self._transform = transform
        self._masks = masks

    def __getitem__(self, key: SampleKey) -> LoadedSample:
        """Return one sample; raises :class:`DataError` that names an image or annotation that cannot be used."""
        images = self._split.images
        path = images.path(key.sample)
        pixels = decode_rgb(read_file(path), path)
        require_size(pixels.shape, images.sizes[key.sample].tolist(), path)
        whole = DetectionSample(pixels, self._split.objects(key.sample, masks=self._masks))
        seen = self._transform(whole, key.epoch, key.sample)
        return LoadedSample(seen, int(images.ids[key.sample]), whole.size)


def collate(loaded: Sequence[LoadedSample], padding: Padding) -> DetectionBatch:
    """Combine samples into a padded batch."""
    samples = [item.sample for item in loaded]
    objects = [sample.objects for sample in samples]
    sizes = [sample.size for sample in samples]
    height, width = padding.size(*zip(*sizes, strict=True))
    images = np.zeros((len(samples), height, width, 3), np.uint8)
    padded = np.ones((len(samples), height, width), np.bool_)
    for number, (sample, (rows, columns)) in enumerate(zip(samples, sizes, strict=True)):
        images[number, :rows, :columns] = sample.pixels
        padded[number, :rows, :columns] = False
    return DetectionBatch(
        images=torch.from_numpy(images).permute(0, 3, 1, 2),
        mask=torch.from_numpy(padded),
        image_ids=[item.image_id for item in loaded],
        counts=[len(found.labels) for found in objects],
        boxes=torch.from_numpy(np.concatenate([_relative_boxes(sample) for sample in samples])),
        labels=torch.from_numpy(np.concatenate([found.labels for found in objects])),
        masks=_padded_masks(objects, height, width),
        sizes=torch.tensor(sizes),
        orig_sizes=torch.tensor([item.orig_size for item in loaded]),
    )


def _relative_boxes(sample: DetectionSample) -> Any:
    height, width = sample.size
    left_top, right_bottom = sample.objects.boxes[:, :2], sample.objects.boxes[:, 2:]
    centered = np.concatenate([(left_top + right_bottom) / 2, right_bottom - left_top], axis=1)
    return centered / np.array([width, height, width, height], np.float32)


def _padded_masks(objects: Sequence[Objects], height: int, width: int) -> torch.Tensor | None:
    padded = np.zeros((sum(len(found.labels) for found in objects), height, width), np.bool_)
    start = 0
    for found in objects:
        if found.masks is None:
            return None
        count, rows, columns = found.masks.shape
        padded[start : start + count, :rows, :columns] = found.masks
        start += count
    return torch.from_numpy(padded)


def normalize_padded(normalize: Normalize, images: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Normalize uint8 images ``(B, 3, H, W)``; padding becomes 0, the mean color, as in the reference.

    ``mask`` is true on padding, bool of shape ``(B, H, W)``.
    """
    return normalize(images).masked_fill_(mask.unsqueeze(1), 0)


def build_detection_training_loader(
    split: CocoSplit,
    *,
    batch_size: int,
    seed: int,
    rank: int = 0,
    world_size: int = 1,
    resolution: int = FULL_RESOLUTION,
    masks: bool = False,
    padding: Padding | None = None,
    options: LoaderChoices | None = None,
) -> TrainingLoader[DetectionBatch]:
    """Build the loader of augmented training batches, see :func:`.build_training_loader`.

    Args:
        resolution: Largest shorter side of the images in pixels.
        masks: Whether to learn masks.
        padding: Size of the batches; by default that of the largest image.
    """
    sampler = TrainingBatchSampler(len(split.images), batch_size, seed, rank, world_size)
    dataset = CocoDataset(split, DetectionTrainingTransform(seed, resolution), masks=masks)
    collate_padded = partial(collate, padding=padding or Padding())
    return TrainingLoader(dataset, collate_padded, options, sampler, decoder=decoder_name())


def build_detection_evaluation_loader(
    split: CocoSplit,
    *,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    resolution: int = FULL_RESOLUTION,
    padding: Padding | None = None,
    options: LoaderChoices | None = None,
) -> ImageLoader[DetectionBatch]:
    """Build the loader of this rank's evaluation batches; all ranks together load every sample exactly once.

    The arguments are those of :func:`build_detection_training_loader`; the last batch may be smaller, and the shorter
    side of every image has ``resolution`` pixels.
    """
    sampler = EvaluationSampler(len(split.images), rank, world_size)
    dataset = CocoDataset(split, DetectionEvaluationTransform(resolution), masks=False)
    collate_padded = partial(collate, padding=padding or Padding())
    return ImageLoader(dataset, collate_padded, options, decoder=decoder_name(), sampler=sampler, batch_size=batch_size)
