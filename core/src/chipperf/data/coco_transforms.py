"""DETR's augmentation of uint8 pixels, boxes and masks.

Training (Carion et al., "End-to-End Object Detection with Transformers", 2020, appendix A.4): horizontal flip; then,
with equal probability, either a resize of the shorter side to 480–800 pixels, or a resize to 400–600, a crop with sides
of 384–600 and the resize to 480–800. Evaluation: resize of the shorter side to 800. No side of a result exceeds 1333
pixels. All these sizes scale with one parameter, ``resolution``, which is 800 in the paper. Normalization follows after
collation, on the device.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn.functional import interpolate

from chipperf.data.decode import Box
from chipperf.data.transforms import draw_integer, resize, shorter_side_to

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from chipperf.data.coco import Objects

FULL_RESOLUTION = 800
LONGEST_SIDE = 1333
SHORTER_SIDES = tuple(range(480, 801, 32))
SIDES_BEFORE_CROP = (400, 500, 600)
CROP_SIDES = (384, 600)


@dataclass(frozen=True, slots=True)
class DetectionSample:
    """An image and its objects.

    Attributes:
        pixels: RGB, uint8 of shape ``(height, width, 3)``.
        objects: Objects, with boxes in pixels of this image.
    """

    pixels: NDArray[np.uint8]
    objects: Objects

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        height, width = self.pixels.shape[:2]
        return height, width


class DetectionTrainingTransform:
    """Random flip, scale and crop.

    The random numbers of a sample depend only on (seed, epoch, sample index), so a run sees the same pixels with any
    number of workers and ranks. ``resolution`` is the largest shorter side of a result in pixels.
    """

    def __init__(self, seed: int, resolution: int = FULL_RESOLUTION) -> None:
        self._seed = seed
        self._shorter_sides = tuple(_scaled(side, resolution) for side in SHORTER_SIDES)
        self._sides_before_crop = tuple(_scaled(side, resolution) for side in SIDES_BEFORE_CROP)
        self._smallest_crop, self._largest_crop = (_scaled(side, resolution) for side in CROP_SIDES)
        self._longest_side = _scaled(LONGEST_SIDE, resolution)

    def __call__(self, sample: DetectionSample, epoch: int, index: int) -> DetectionSample:
        """Return sample ``index`` of the dataset as transformed for an epoch."""
        rng = random.Random(f"{self._seed}/{epoch}/{index}")
        if rng.random() < 0.5:
            sample = flip(sample)
        if rng.random() < 0.5:
            sample = resize_sample(sample, *shorter_side_to(_choose(rng, self._sides_before_crop), *sample.size))
            sample = crop(sample, self._crop_box(rng, *sample.size))
        size = shorter_side_to(_choose(rng, self._shorter_sides), *sample.size, longest=self._longest_side)
        return drop_degenerate(resize_sample(sample, *size))

    def _crop_box(self, rng: random.Random, height: int, width: int) -> Box:
        crop_height, crop_width = (
            draw_integer(rng, min(self._smallest_crop, side), min(self._largest_crop, side)) for side in (height, width)
        )
        top, left = draw_integer(rng, 0, height - crop_height), draw_integer(rng, 0, width - crop_width)
        return Box(top, left, crop_height, crop_width)


class DetectionEvaluationTransform:
    """Resize of the shorter side to ``resolution`` pixels; the limit of the longer side scales with it."""

    def __init__(self, resolution: int = FULL_RESOLUTION) -> None:
        self._shorter_side = resolution
        self._longest_side = _scaled(LONGEST_SIDE, resolution)

    def __call__(self, sample: DetectionSample, epoch: int, index: int) -> DetectionSample:
        """Return the resized sample; epoch and index have no effect."""
        size = shorter_side_to(self._shorter_side, *sample.size, longest=self._longest_side)
        return drop_degenerate(resize_sample(sample, *size))


def largest_size(resolution: int = FULL_RESOLUTION) -> int:
    """Return the largest possible side in pixels after either transform."""
    return _scaled(LONGEST_SIDE, resolution)


def flip(sample: DetectionSample) -> DetectionSample:
    """Mirror left and right."""
    objects = sample.objects
    left, top, right, bottom = objects.boxes.T
    width = np.float32(sample.size[1])
    return DetectionSample(
        np.ascontiguousarray(sample.pixels[:, ::-1]),
        replace(
            objects,
            boxes=np.stack([width - right, top, width - left, bottom], axis=1),
            masks=None if objects.masks is None else np.ascontiguousarray(objects.masks[:, :, ::-1]),
        ),
    )


def resize_sample(sample: DetectionSample, height: int, width: int) -> DetectionSample:
    """Resize pixels bilinearly with antialiasing and masks by nearest neighbor; scale boxes."""
    if sample.size == (height, width):
        return sample
    objects = sample.objects
    ratio_y, ratio_x = (np.float32(new / old) for new, old in zip((height, width), sample.size, strict=True))
    masks = objects.masks
    if masks is not None:
        masks = interpolate(torch.from_numpy(masks).unsqueeze(1), (height, width)).squeeze(1).numpy()
    return DetectionSample(
        resize(sample.pixels, height, width).permute(1, 2, 0).numpy(),
        replace(objects, boxes=objects.boxes * np.array([ratio_x, ratio_y, ratio_x, ratio_y]), masks=masks),
    )


def crop(sample: DetectionSample, box: Box) -> DetectionSample:
    """Cut out a rectangle, and drop objects outside it."""
    rows, columns = slice(box.top, box.top + box.height), slice(box.left, box.left + box.width)
    objects = sample.objects
    boxes = objects.boxes - np.array([box.left, box.top, box.left, box.top], np.float32)
    return drop_degenerate(
        DetectionSample(
            sample.pixels[rows, columns],
            replace(objects, boxes=boxes, masks=None if objects.masks is None else objects.masks[:, rows, columns]),
        )
    )


def drop_degenerate(sample: DetectionSample) -> DetectionSample:
    """Clip boxes to the image and drop objects whose clipped box has no area."""
    height, width = sample.size
    boxes = np.clip(sample.objects.boxes, 0, np.array([width, height, width, height], np.float32))
    has_area = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    return replace(sample, objects=replace(sample.objects, boxes=boxes).select(has_area))


def _scaled(length: int, resolution: int) -> int:
    return max(1, round(length * resolution / FULL_RESOLUTION))


def _choose(rng: random.Random, values: tuple[int, ...]) -> int:
    return values[draw_integer(rng, 0, len(values) - 1)]
