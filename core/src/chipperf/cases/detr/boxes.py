"""Box formats and generalized intersection over union."""

from __future__ import annotations

import torch

# Two boxes without any area have an empty union; the smallest box of a COCO image is far above this.
_SMALLEST_AREA = 1e-12


def cxcywh_to_xyxy(boxes: torch.Tensor) -> torch.Tensor:
    """Turn boxes ``(..., 4)`` of center and size into boxes of upper left and lower right corner."""
    center, size = boxes.split(2, dim=-1)
    return torch.cat([center - size / 2, center + size / 2], dim=-1)


def generalized_iou(boxes: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Return the generalized intersection over union of broadcast pairs of boxes, between -1 and 1.

    Rezatofighi et al., "Generalized Intersection over Union" (2019): the IoU less the share of the smallest enclosing
    box that neither box covers. Boxes without area are allowed and give finite values and gradients.

    Args:
        boxes: Corners, ``(..., 4)``.
        others: Corners, of a shape that broadcasts with ``boxes``; ``boxes[:, None]`` and ``others[None]`` give the
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
    """Return the area between corners ``(..., 2)``; 0 where they are the wrong way round."""
    return (lower_right - upper_left).clamp(min=0).prod(dim=-1)
