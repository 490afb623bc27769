"""Conversion of predictions to boxes, instance masks and panoptic maps in the original images' pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch.nn.functional import interpolate

from chipperf.cases.detr.panoptic_quality import SegmentedImage
from chipperf.cases.detr.targets import cxcywh_to_xyxy

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

    from chipperf.cases.detr.model import DetrOutput

Size = tuple[int, int]
"""Height and width in pixels."""

PANOPTIC_SCORE_THRESHOLD = 0.85
PANOPTIC_LARGEST_NOISE_PX = 4
"""Segments of at most this many pixels are dropped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Detections:
    """The objects of a batch of images, one per query.

    Attributes:
        scores: Probability of the most likely class except "no object", ``(B, Q)``.
        labels: That class, int64 ``(B, Q)``.
        boxes: Upper left and lower right corner in pixels, ``(B, Q, 4)``.
    """

    scores: torch.Tensor
    labels: torch.Tensor
    boxes: torch.Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Position and sizes of an image in its batch.

    Attributes:
        canvas: Size of the padded images of the batch.
        size: Size of the model's input image, in the upper left of the canvas.
        original_size: Size of the image in its file.
    """

    canvas: Size
    size: Size
    original_size: Size


def detections(output: DetrOutput, original_sizes: torch.Tensor) -> Detections:
    """Return the last layer's objects in pixels of the files, whose heights and widths are ``(B, 2)`` on the device."""
    scores, labels = output.logits[-1].softmax(dim=-1)[..., :-1].max(dim=-1)
    width_height = original_sizes.flip(-1).to(output.boxes.dtype)
    boxes = cxcywh_to_xyxy(output.boxes[-1]) * width_height.repeat(1, 2)[:, None]
    return Detections(scores=scores, labels=labels, boxes=boxes)


def instance_masks(logits: torch.Tensor, placement: Placement) -> torch.Tensor:
    """Return the masks of one image's queries, bool ``(Q, H, W)`` in the original size, from logits ``(Q, h, w)``.

    As in the reference, a mask is thresholded at the model's input size and then resized by nearest neighbor.
    """
    masks = _crop(logits, placement) > 0
    return interpolate(masks[None].float(), size=placement.original_size, mode="nearest")[0].bool()


def encode_masks(masks: torch.Tensor) -> list[dict[str, Any]]:
    """Return COCO's run-length encoding of bool masks ``(N, H, W)``, with ``counts`` as text."""
    pixels = np.asfortranarray(masks.permute(1, 2, 0).to(torch.uint8).cpu().numpy())
    return [{"size": rle["size"], "counts": rle["counts"].decode("ascii")} for rle in coco_mask.encode(pixels)]


def panoptic_segmentation(
    class_logits: torch.Tensor, mask_logits: torch.Tensor, placement: Placement, things: Collection[int]
) -> SegmentedImage:
    """Divide one image, in its original size, into segments of the objects whose score exceeds a threshold.

    Each pixel goes to the object with the highest mask logit. Objects of the same stuff class become one segment; each
    thing is a separate segment. Segments of a few pixels are dropped, and their pixels go to the next best object. Two
    details differ from the reference. The reference treats merged stuff as dropped, and gives its pixels to other
    objects when it drops a segment; here merged stuff keeps its pixels. The reference stretches the padded canvas to
    the image, which is right only for batches of one image; here padding is cut off.

    Args:
        class_logits: Class logits of the image's queries, ``(Q, classes + 1)``.
        mask_logits: Mask logits of the image's queries, ``(Q, h, w)``.
        placement: Position of the image in its batch.
        things: Category ids of things; all others are stuff.
    """
    scores, classes = class_logits.softmax(dim=-1).max(dim=-1)
    sure = (scores > PANOPTIC_SCORE_THRESHOLD) & (classes != class_logits.shape[-1] - 1)
    queries = sure.nonzero()[:, 0]
    categories, groups = _group(classes[queries].tolist(), things)
    if not len(categories):
        return _segmented(np.zeros(placement.original_size, dtype=np.int32), categories)
    logits = _crop(mask_logits[queries], placement)
    alive = np.ones(len(categories), dtype=bool)
    while True:
        winners = groups[logits.argmax(dim=0).cpu().numpy()]
        pixels = _resize_nearest(winners, placement.original_size)
        areas = np.bincount(pixels.flatten(), minlength=len(categories))
        noise = alive & (areas <= PANOPTIC_LARGEST_NOISE_PX)
        alive &= ~noise
        if not noise.any() or not alive.any():
            break
        dropped = torch.from_numpy(noise[groups]).to(logits.device)
        logits = logits.masked_fill(dropped[:, None, None], float("-inf"))
    numbers = np.where(alive, np.cumsum(alive), 0).astype(np.int32)
    return _segmented(numbers[pixels], categories[alive])


def _segmented(indices: NDArray[np.int32], categories: NDArray[np.int64]) -> SegmentedImage:
    return SegmentedImage(indices=indices, categories=categories, is_crowd=np.zeros(len(categories), np.bool_))


def _group(classes: list[int], things: Collection[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the category of each segment and the segment of each object; stuff of one class is one segment."""
    categories: list[int] = []
    stuff: dict[int, int] = {}
    groups = []
    for category in classes:
        group = len(categories) if category in things else stuff.setdefault(category, len(categories))
        if group == len(categories):
            categories.append(category)
        groups.append(group)
    return np.array(categories, dtype=np.int64), np.array(groups, dtype=np.int64)


def _crop(logits: torch.Tensor, placement: Placement) -> torch.Tensor:
    """Return mask logits ``(Q, h, w)`` at the model's input resolution, without padding."""
    height, width = placement.size
    return interpolate(logits[None].float(), size=placement.canvas, mode="bilinear")[0, :, :height, :width]


def _resize_nearest(values: NDArray[np.int64], size: Size) -> NDArray[np.int64]:
    """Resize values ``(h, w)``; each result comes from the pixel under its center."""
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(np.int64) for new, old in zip(size, values.shape, strict=True)
    )
    resized: NDArray[np.int64] = values[rows[:, None], columns]
    return resized
