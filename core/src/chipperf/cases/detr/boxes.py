"""Box formats and generalized intersection over union."""

from __future__ import annotations

import torch

# Two boxes with zero area have an empty union; the smallest box of a COCO image is far larger than this.
_SMALLEST_AREA = 1e-12


def cxcywh_to_xyxy(boxes: torch.Tensor) -> torch.Tensor:
    """Convert boxes ``(..., 4)`` from center and size to upper left and lower right corner."""
    center, size = boxes.split(2, dim=-1)
    return torch.cat([center - size / 2, center + size / 2], dim=-1)


def generalized_iou(boxes: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Return the generalized intersection over union of broadcast pairs of boxes, between -1 and 1.

    Rezatofighi et al., "Generalized Intersection over Union" (2019): the IoU minus the fraction of the smallest
    enclosing box that neither box covers. Boxes with zero area are allowed, and give finite values and gradients.

    Args:
        boxes: Corners, ``(..., 4)``.
        others: Corners, in a shape that broadcasts with ``boxes``; ``boxes[:, None]`` and ``others[None]`` give the
            matrix of all pairs.
    """
    overlap = _area(
        torch.maximum(boxes[..., :2], others[..., :2]),
        torch.minimum(boxes[..., 2:], others[..., 2:]),
    )
    enclosing = _area(
        torch.minimum(boxes[..., :2], others[..., :2]),
        torch.maximum(boxes[..., 2:], others[..., 2:]),
    ).clamp(min=_SMALLEST_AREA)
    union = _area(boxes[..., :2], boxes[..., 2:]) + _area(others[..., :2], others[..., 2:]) - overlap
    return overlap / union.clamp(min=_SMALLEST_AREA) - (enclosing - union) / enclosing


def _area(upper_left: torch.Tensor, lower_right: torch.Tensor) -> torch.Tensor:
    """Return the area between corners ``(..., 2)``; 0 if the corners are in the wrong order."""
    return (lower_right - upper_left).clamp(min=0).prod(dim=-1)
