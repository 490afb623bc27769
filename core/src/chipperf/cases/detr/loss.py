"""DETR's set loss: classes of all queries, and boxes and masks of the matched queries.

Carion et al. (2020), section 3.1 and appendix A.2, with the coefficients of its public implementation. Everything is
computed in float32. Where the paper leaves a choice, this module follows the implementation:

* the classification loss of a layer is the weighted mean over the queries of this rank's images, while box and mask
  losses are sums over this rank's objects divided by the mean number of objects per rank;
* predicted masks are resized to the targets' resolution, and padding counts as background;
* auxiliary layers have class and box losses, but no mask losses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, interpolate

from chipperf.cases.detr.boxes import cxcywh_to_xyxy, generalized_iou

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from chipperf.cases.detr.model import DetrOutput
    from chipperf.cases.detr.targets import Targets

FOCAL_ALPHA = 0.25
FOCAL_GAMMA = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LossWeights:
    """Coefficients of the set loss; the defaults are the values of the reference.

    Attributes:
        classification: Coefficient of the cross entropy.
        box_l1: Coefficient of the L1 distance between matched boxes.
        box_giou: Coefficient of one minus the generalized IoU of matched boxes.
        mask_focal: Coefficient of the focal loss of matched masks.
        mask_dice: Coefficient of the dice loss of matched masks.
        no_object: Weight of the class "no object" in the cross entropy; most queries have this class.
    """

    classification: float = 1.0
    box_l1: float = 5.0
    box_giou: float = 2.0
    mask_focal: float = 1.0
    mask_dice: float = 1.0
    no_object: float = 0.1


DEFAULT_WEIGHTS = LossWeights()


def set_loss(
    output: DetrOutput,
    targets: Targets,
    assignment: NDArray[np.int64],
    *,
    mean_over_ranks: Callable[[torch.Tensor], torch.Tensor] | None = None,
    weights: LossWeights = DEFAULT_WEIGHTS,
) -> dict[str, torch.Tensor]:
    """Return the loss and its parts, without reading from the device.

    Every output contributes, with a gradient of 0 if nothing is matched, so that DDP finds every parameter used.

    Args:
        output: The model's predictions.
        targets: The objects, on the same device.
        assignment: Result of :func:`~chipperf.cases.detr.matcher.match` for the objects.
        mean_over_ranks: Averages a scalar on the output's device over ranks; ``None`` for a single process.
        weights: Coefficients.

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
    classification = _classification_losses(logits, targets.labels, matches, weights.no_object)
    l1, giou = (sums / objects for sums in _box_losses(boxes, targets.boxes, matches))
    weighted = (weights.classification * classification + weights.box_l1 * l1 + weights.box_giou * giou).sum()
    parts = {}
    last = len(classification) - 1
    for layer in range(len(classification)):
        suffix = "" if layer == last else f"_{layer}"
        parts[f"loss_ce{suffix}"] = classification[layer]
        parts[f"loss_bbox{suffix}"] = l1[layer]
        parts[f"loss_giou{suffix}"] = giou[layer]
    if output.masks is not None and targets.masks is not None:
        sums_over_masks = _mask_losses(output.masks.float(), targets.masks, targets.counts, assignment[-1])
        focal, dice = (sums / objects for sums in sums_over_masks)
        weighted = weighted + weights.mask_focal * focal + weights.mask_dice * dice
        parts["loss_mask"], parts["loss_dice"] = focal, dice
    return {"loss": weighted, **parts}


def _classification_losses(
    logits: torch.Tensor, labels: torch.Tensor, matches: torch.Tensor, no_object_weight: float
) -> torch.Tensor:
    """Return each layer's weighted mean cross entropy, ``(L,)``; queries without an object have the last class."""
    layers, batch, queries, outputs = logits.shape
    no_object = outputs - 1
    # Slots without a query write to an extra column, which is cut off afterwards.
    columns = torch.where(matches >= 0, matches, queries)
    classes = torch.full((layers, batch, queries + 1), no_object, device=logits.device)
    classes = classes.scatter(-1, columns, labels.expand(layers, -1, -1))[..., :queries]
    losses = cross_entropy(logits.flatten(0, 2), classes.flatten(), reduction="none").view(layers, -1)
    class_weights = torch.where(classes == no_object, no_object_weight, 1.0).view(layers, -1)
    return (losses * class_weights).sum(dim=1) / class_weights.sum(dim=1)


def _box_losses(boxes: torch.Tensor, actual: torch.Tensor, matches: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return each layer's sums over matched boxes, ``(L,)``: L1 distances, and one minus the generalized IoU."""
    matched = matches >= 0
    predicted = boxes.gather(2, matches.clamp(min=0)[..., None].expand(-1, -1, -1, 4))
    l1 = (predicted - actual).abs().sum(dim=-1)
    giou = generalized_iou(cxcywh_to_xyxy(predicted), cxcywh_to_xyxy(actual))
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
