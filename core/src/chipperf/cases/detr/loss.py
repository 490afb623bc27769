"""DETR's set loss: the assignment of predicted to real objects, and the losses of classes, boxes and masks.

Carion et al. (2020), section 3.1 and appendix A.2, with the coefficients of its public implementation. Everything is
computed in float32. Where the paper leaves a choice, this module follows the implementation:

* the classification loss of a layer is the weighted mean over the queries of this rank's images, while box and mask
  losses are sums over this rank's objects divided by the mean number of objects per rank;
* predicted masks are resized to the targets' resolution, and padding counts as background;
* auxiliary layers have class and box losses, but no mask losses.

Shapes: ``L`` decoder layers, ``B`` images, ``Q`` object queries, ``N`` slots of targets per image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, interpolate

from chipperf.cases.detr.targets import cxcywh_to_xyxy, generalized_iou
from chipperf.errors import TrainingError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from chipperf.cases.detr.model import DetrOutput
    from chipperf.cases.detr.targets import Targets

UNMATCHED = -1
"""Value instead of a query, for slots without an object and for objects that exceed the number of queries."""

BOX_L1_WEIGHT = 5.0
"""Coefficient of the L1 distance of boxes in costs and loss; that of classes, focal and dice loss is 1."""

BOX_GIOU_WEIGHT = 2.0
"""Coefficient of the generalized IoU of boxes in costs and loss."""

NO_OBJECT_WEIGHT = 0.1
"""Weight of the class "no object" in the cross entropy; most queries have this class."""

FOCAL_ALPHA = 0.25
FOCAL_GAMMA = 2.0


def match(logits: torch.Tensor, boxes: torch.Tensor, targets: Targets) -> NDArray[np.int64]:
    """Assign queries to objects one-to-one with the lowest total cost, for each layer and image separately.

    The costs of all layers and images are copied to the host at once, so a step waits for the device only once.

    Args:
        logits: Class logits, ``(L, B, Q, classes + 1)``.
        boxes: Predicted centers and sizes, ``(L, B, Q, 4)``.
        targets: The objects, on the same device.

    Returns:
        The query of every slot or :data:`UNMATCHED`, ``(L, B, N)``. If there are more objects than queries, the objects
        that fit best get a query.

    Raises:
        TrainingError: A cost is not finite; the error names the images and has the failure class ``non_finite_loss``.
    """
    matrices = matching_costs(logits, boxes, targets).cpu().numpy()
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
def matching_costs(logits: torch.Tensor, boxes: torch.Tensor, targets: Targets) -> torch.Tensor:
    """Return the cost of assigning each query to each slot, ``(L, B, Q, N)``; arguments as in :func:`match`."""
    probabilities = logits.float().softmax(dim=-1)
    classes = targets.labels[None, :, None, :].expand(*logits.shape[:3], -1)
    l1, giou = _compare_boxes(boxes.float()[..., :, None, :], targets.boxes[:, None, :, :])
    return BOX_L1_WEIGHT * l1 - probabilities.gather(-1, classes) - BOX_GIOU_WEIGHT * giou


def _compare_boxes(predicted: torch.Tensor, actual: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return L1 distance and generalized IoU of broadcast pairs of boxes, given by center and size."""
    l1 = (predicted - actual).abs().sum(dim=-1)
    return l1, generalized_iou(cxcywh_to_xyxy(predicted), cxcywh_to_xyxy(actual))


def set_loss(
    output: DetrOutput,
    targets: Targets,
    assignment: NDArray[np.int64],
    *,
    mean_over_ranks: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> dict[str, torch.Tensor]:
    """Return the loss and its parts, without reading from the device.

    Every output contributes, with a gradient of 0 if nothing is matched, so that DDP finds every parameter used.

    Args:
        output: The model's predictions.
        assignment: Result of :func:`match` for the objects.
        mean_over_ranks: Averages a scalar on the output's device over ranks; ``None`` for a single process.

    Returns:
        float32 scalars: ``loss`` is the weighted sum; ``loss_ce``, ``loss_bbox`` and ``loss_giou``, and with masks
        ``loss_mask`` (focal) and ``loss_dice``, are its parts before weighting. The names of auxiliary layer ``i`` end
        in ``_i``.
    """
    logits, boxes = output.logits.float(), output.boxes.float()
    matches = torch.from_numpy(assignment).to(boxes.device)
    objects = torch.full((), float(sum(targets.counts)), device=boxes.device)
    if mean_over_ranks is not None:
        objects = mean_over_ranks(objects)
    objects = objects.clamp(min=1)
    classification = _classification_losses(logits, targets.labels, matches)
    l1, giou = (sums / objects for sums in _box_losses(boxes, targets.boxes, matches))
    weighted = (classification + BOX_L1_WEIGHT * l1 + BOX_GIOU_WEIGHT * giou).sum()
    parts: dict[str, torch.Tensor] = {}
    for layer in range(len(classification)):
        suffix = "" if layer == len(classification) - 1 else f"_{layer}"
        layer_parts = {"ce": classification[layer], "bbox": l1[layer], "giou": giou[layer]}
        parts |= {f"loss_{name}{suffix}": value for name, value in layer_parts.items()}
    if output.masks is not None and targets.masks is not None:
        sums_over_masks = _mask_losses(output.masks.float(), targets.masks, targets.counts, assignment[-1])
        focal, dice = (sums / objects for sums in sums_over_masks)
        weighted = weighted + focal + dice
        parts["loss_mask"], parts["loss_dice"] = focal, dice
    return {"loss": weighted, **parts}


def _classification_losses(logits: torch.Tensor, labels: torch.Tensor, matches: torch.Tensor) -> torch.Tensor:
    """Return each layer's weighted mean cross entropy, ``(L,)``; queries without an object have the last class."""
    layers, batch, queries, outputs = logits.shape
    no_object = outputs - 1
    # Slots without a query write to an extra column, which is cut off afterwards.
    columns = torch.where(matches >= 0, matches, queries)
    classes = torch.full((layers, batch, queries + 1), no_object, device=logits.device)
    classes = classes.scatter(-1, columns, labels.expand(layers, -1, -1))[..., :queries]
    losses = cross_entropy(logits.flatten(0, 2), classes.flatten(), reduction="none").view(layers, -1)
    class_weights = torch.where(classes == no_object, NO_OBJECT_WEIGHT, 1.0).view(layers, -1)
    return (losses * class_weights).sum(dim=1) / class_weights.sum(dim=1)


def _box_losses(boxes: torch.Tensor, actual: torch.Tensor, matches: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return each layer's sums over matched boxes, ``(L,)``: L1 distances, and one minus the generalized IoU."""
    matched = matches >= 0
    predicted = boxes.gather(2, matches.clamp(min=0)[..., None].expand(-1, -1, -1, 4))
    l1, giou = _compare_boxes(predicted, actual)
    return (l1 * matched).sum(dim=(1, 2)), ((1 - giou) * matched).sum(dim=(1, 2))


def _mask_losses(
    masks: torch.Tensor, actual: torch.Tensor, counts: tuple[int, ...], assignment: NDArray[np.int64]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the sums of focal and dice loss over the matched masks of one layer."""
    images, slots = np.nonzero(assignment >= 0)
    if not len(images):
        nothing = masks.sum() * 0
        return nothing, nothing
    first_objects = np.cumsum((0, *counts[:-1]))
    queries = images * masks.shape[1] + assignment[images, slots]
    objects = first_objects[images] + slots
    predicted = masks.flatten(0, 1).index_select(0, torch.from_numpy(queries).to(masks.device))
    predicted = interpolate(predicted[:, None], size=actual.shape[-2:], mode="bilinear").flatten(1)
    actual = actual.index_select(0, torch.from_numpy(objects).to(masks.device)).flatten(1).float()
    return _focal_losses(predicted, actual).sum(), _dice_losses(predicted, actual).sum()


def _focal_losses(logits: torch.Tensor, actual: torch.Tensor) -> torch.Tensor:
    """Return the mean focal loss (Lin et al., 2017) of each row of pixels."""
    probabilities = logits.sigmoid()
    probability_of_actual = probabilities * actual + (1 - probabilities) * (1 - actual)
    alpha = FOCAL_ALPHA * actual + (1 - FOCAL_ALPHA) * (1 - actual)
    entropy = binary_cross_entropy_with_logits(logits, actual, reduction="none")
    return (alpha * (1 - probability_of_actual) ** FOCAL_GAMMA * entropy).mean(dim=1)


def _dice_losses(logits: torch.Tensor, actual: torch.Tensor) -> torch.Tensor:
    """Return one minus the Dice coefficient (Milletari et al., 2016) of each row, smoothed by 1."""
    probabilities = logits.sigmoid()
    overlap = 2 * (probabilities * actual).sum(dim=1)
    return 1 - (overlap + 1) / (probabilities.sum(dim=1) + actual.sum(dim=1) + 1)
