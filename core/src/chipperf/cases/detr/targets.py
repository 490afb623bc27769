"""Targets of a batch of images, in tensors whose shapes can be constant, and the geometry of boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

# Two boxes with zero area have an empty union; the smallest box of a COCO image is far larger than this.
_SMALLEST_AREA = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """The objects of a batch of ``B`` images, in ``N`` slots per image; the first ``counts[b]`` slots are in use.

    Attributes:
        image_ids: The images, for error messages.
        counts: Number of objects of each image, on the host, so that they are not read from the device.
        labels: Category ids, int64 ``(B, N)``; 0 in unused slots.
        boxes: Center and size as fractions of the image, float32 ``(B, N, 4)``; 0 in unused slots.
        masks: Pixels of every object, bool ``(sum(counts), H, W)`` on the padded canvas, in the order of images and
            slots; ``None`` for detection only. Masks have no unused slots, which would cost more than they save.
    """

    image_ids: tuple[int, ...]
    counts: tuple[int, ...]
    labels: torch.Tensor
    boxes: torch.Tensor
    masks: torch.Tensor | None

    def to(self, device: torch.device) -> Targets:
        """Return the targets on a device."""
        return replace(
            self,
            labels=self.labels.to(device, non_blocking=True),
            boxes=self.boxes.to(device, non_blocking=True),
            masks=None if self.masks is None else self.masks.to(device, non_blocking=True),
        )


def stack_targets(
    image_ids: Sequence[int],
    counts: Sequence[int],
    labels: torch.Tensor,
    boxes: torch.Tensor,
    masks: torch.Tensor | None,
    *,
    slots: int = 1,
) -> Targets:
    """Distribute the objects of all images of a batch to slots.

    Args:
        labels: The objects' category ids, int64 ``(n,)``, image by image; ``boxes`` and ``masks`` have the same order.
        slots: Minimum number of slots per image. A number that no image exceeds gives every batch the same shapes.
            There is at least one slot, so that a batch without objects has predictions to check.
    """
    width = max(slots, *counts)
    in_use = torch.arange(width) < torch.tensor(counts)[:, None]
    return Targets(
        image_ids=tuple(image_ids),
        counts=tuple(counts),
        labels=torch.zeros(len(counts), width, dtype=torch.int64).masked_scatter(in_use, labels),
        boxes=torch.zeros(len(counts), width, 4).masked_scatter(in_use[..., None], boxes),
        masks=masks,
    )


def cxcywh_to_xyxy(boxes: torch.Tensor) -> torch.Tensor:
    """Convert boxes ``(..., 4)`` from center and size to upper left and lower right corner."""
    center, size = boxes.split(2, dim=-1)
    return torch.cat([center - size / 2, center + size / 2], dim=-1)


def generalized_iou(boxes: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Return the generalized intersection over union of broadcast pairs of boxes ``(..., 4)``, between -1 and 1.

    Rezatofighi et al., "Generalized Intersection over Union" (2019): the IoU minus the fraction of the smallest
    enclosing box that neither box covers. Boxes are given by corners. Boxes with zero area are allowed, and give finite
    values and gradients.
    """
    (low, high), (other_low, other_high) = boxes.split(2, dim=-1), others.split(2, dim=-1)
    overlap = _area(torch.maximum(low, other_low), torch.minimum(high, other_high))
    enclosing = _area(torch.minimum(low, other_low), torch.maximum(high, other_high)).clamp(min=_SMALLEST_AREA)
    union = _area(low, high) + _area(other_low, other_high) - overlap
    return overlap / union.clamp(min=_SMALLEST_AREA) - (enclosing - union) / enclosing


def _area(upper_left: torch.Tensor, lower_right: torch.Tensor) -> torch.Tensor:
    """Return the area between corners ``(..., 2)``; 0 if the corners are in the wrong order."""
    return (lower_right - upper_left).clamp(min=0).prod(dim=-1)
