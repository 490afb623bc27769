"""Predictions on a sample dataset that are partly right: they follow from the annotations and the image id alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from chipperf.cases.detr.panoptic_quality import SegmentedImage
from chipperf.cases.detr.postprocess import Detections
from pycocotools import mask as coco_mask

if TYPE_CHECKING:
    from chipperf.data.coco import InstanceSplit, PanopticSplit
    from numpy.typing import NDArray

QUERIES = 12


def predict_boxes(split: InstanceSplit, image_id: int) -> tuple[Detections, list[list[dict[str, Any]]]]:
    """Return ``QUERIES`` detections on one image and their masks: shifted objects, some mislabeled, and inventions."""
    rng = np.random.RandomState(image_id)
    index = split.images.position(image_id)
    height, width = split.images.sizes[index].tolist()
    objects = split.objects(index, masks=True)
    assert objects.masks is not None
    boxes, labels, scores, masks = [], [], [], []
    for query in range(QUERIES):
        if query < 2 * len(objects.labels):
            number = query // 2
            shift = rng.randint(-4, 5, 2)
            box = objects.boxes[number] + np.tile(shift[::-1], 2) + rng.uniform(-2, 2, 4)
            mask = np.roll(objects.masks[number], shift, axis=(0, 1))
            label = int(objects.labels[number]) if rng.uniform() < 0.8 else 1
        else:
            left, top = rng.uniform(0, width / 2), rng.uniform(0, height / 2)
            box = np.array([left, top, left + rng.uniform(5, width / 2), top + rng.uniform(5, height / 2)])
            mask = np.zeros((height, width), np.uint8)
            mask[int(top) : int(box[3]), int(left) : int(box[2])] = 1
            label = int(rng.choice([1, 2, 3, 5, 8, 12]))
        boxes.append(box)
        labels.append(label)
        masks.append(mask)
        # Few levels, so that scores are often equal and their order matters.
        scores.append(rng.randint(1, 8) / 8)
    codes = coco_mask.encode(np.asfortranarray(np.stack(masks, axis=2)))
    detections = Detections(
        scores=torch.tensor([scores]),
        labels=torch.tensor([labels]),
        boxes=torch.tensor(np.array([boxes]), dtype=torch.float32),
    )
    return detections, [[{"size": code["size"], "counts": code["counts"].decode()} for code in codes]]


def predict_segments(split: PanopticSplit, image_id: int) -> SegmentedImage:
    """Return the true segments, shifted; one may be lost, one mislabeled, one cut in two."""
    rng = np.random.RandomState(image_id)
    index = split.images.position(image_id)
    truth = split.segment_map(index)
    rows = split.table.rows(index)
    shifted = np.roll(truth, rng.randint(-6, 7, 2), axis=(0, 1))
    ids: NDArray[np.int32] = np.zeros_like(truth)
    categories: list[int] = []

    def add(pixels: NDArray[np.bool_], category: int) -> None:
        if pixels.any():
            categories.append(category)
            ids[pixels] = len(categories)

    for number, (segment, category) in enumerate(
        zip(split.table.ids[rows].tolist(), split.table.labels[rows].tolist(), strict=True)
    ):
        pixels = shifted == segment
        fate = rng.randint(6)
        if fate == 1:
            category = 2
        if fate == 2:
            left = pixels & (np.arange(truth.shape[1]) < truth.shape[1] // 2)
            add(left, category)
            pixels = pixels & ~left
        if fate != 3 or number == 0:
            add(pixels, category)
    return SegmentedImage(
        indices=ids, categories=np.array(categories, np.int64), is_crowd=np.zeros(len(categories), np.bool_)
    )
