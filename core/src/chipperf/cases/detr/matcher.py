"""Assignment of predicted to real objects: one-to-one, with the lowest cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from chipperf.cases.detr.boxes import cxcywh_to_xyxy, generalized_iou
from chipperf.errors import TrainingError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from chipperf.cases.detr.targets import Targets

UNMATCHED = -1
"""Value instead of a query, for slots without an object and for objects that exceed the number of queries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchingCosts:
    """Coefficients of the matching cost; the defaults are the values of the reference.

    Attributes:
        classification: Coefficient of minus the probability of the object's class.
        box_l1: Coefficient of the L1 distance between the boxes' centers and sizes.
        box_giou: Coefficient of minus the generalized IoU.
    """

    classification: float = 1.0
    box_l1: float = 5.0
    box_giou: float = 2.0


DEFAULT_COSTS = MatchingCosts()


def match(
    logits: torch.Tensor, boxes: torch.Tensor, targets: Targets, costs: MatchingCosts = DEFAULT_COSTS
) -> NDArray[np.int64]:
    """Assign queries to objects with the lowest total cost, for each layer and image separately.

    The costs of all layers and images are copied to the host at once, so a step waits for the device only once.

    Args:
        logits: Class logits, ``(L, B, Q, classes + 1)``.
        boxes: Predicted centers and sizes, ``(L, B, Q, 4)``.
        targets: The objects, on the same device.
        costs: Coefficients.

    Returns:
        The query of every slot or :data:`UNMATCHED`, ``(L, B, N)``. If there are more objects than queries, the objects
        that fit best get a query.

    Raises:
        TrainingError: A cost is not finite; the error names the images and has the failure class ``non_finite_loss``.
    """
    matrices = matching_costs(logits, boxes, targets, costs).cpu().numpy()
    # Unused slots are checked too, because an image without objects has no other slots.
    finite = np.isfinite(matrices).all(axis=(0, 2, 3))
    if not finite.all():
        images = [image_id for image_id, is_finite in zip(targets.image_ids, finite, strict=True) if not is_finite]
        raise TrainingError(
            f"the model's predictions are not finite for the images with the ids {', '.join(map(str, images))}",
            failure_class="non_finite_loss",
            hint="lower lr, add warm-up, or use a wider precision; check these images and their boxes",
        )
    layers, _, _, slots = matrices.shape
    assignment = np.full((layers, len(targets.counts), slots), UNMATCHED, dtype=np.int64)
    for layer in range(layers):
        for image, count in enumerate(targets.counts):
            queries, objects = linear_sum_assignment(matrices[layer, image, :, :count])
            assignment[layer, image, objects] = queries
    return assignment


@torch.no_grad()
def matching_costs(
    logits: torch.Tensor, boxes: torch.Tensor, targets: Targets, costs: MatchingCosts = DEFAULT_COSTS
) -> torch.Tensor:
    """Return the cost of assigning each query to each slot, ``(L, B, Q, N)``; arguments as in :func:`match`."""
    probabilities = logits.float().softmax(dim=-1)
    classes = targets.labels[None, :, None, :].expand(*logits.shape[:3], -1)
    predicted, actual = boxes.float()[..., :, None, :], targets.boxes[:, None, :, :]
    l1 = (predicted - actual).abs().sum(dim=-1)
    giou = generalized_iou(cxcywh_to_xyxy(predicted), cxcywh_to_xyxy(actual))
    return costs.box_l1 * l1 - costs.classification * probabilities.gather(-1, classes) - costs.box_giou * giou
