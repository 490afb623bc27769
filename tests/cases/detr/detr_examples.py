"""A small model, random targets and random predictions that the tests of DETR share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from chipperf.cases.detr import targets
from chipperf.cases.detr.model import DetrConfig, DetrOutput
from torch.nn.functional import pad

if TYPE_CHECKING:
    from chipperf.cases.detr.targets import Targets

CLASSES = 5
SMALL: dict[str, Any] = {
    "classes": CLASSES,
    "queries": 7,
    "width": 32,
    "heads": 8,
    "feedforward_width": 48,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "dropout": 0.0,
    "backbone": "resnet18",
}


def small_config(**changes: Any) -> DetrConfig:
    return DetrConfig(**{**SMALL, **changes})


def random_boxes(count: int) -> torch.Tensor:
    """Return boxes that lie in the image."""
    size = torch.rand(count, 2) * 0.5 + 0.05
    center = size / 2 + torch.rand(count, 2) * (1 - size)
    return torch.cat([center, size], dim=1)


def random_images(*counts: int, size: tuple[int, int] = (64, 64)) -> list[dict[str, Any]]:
    """Return one target mapping per count, with image ids from 100."""
    return [
        {
            "image_id": 100 + index,
            "labels": torch.randint(CLASSES, (count,)),
            "boxes": random_boxes(count),
            "masks": torch.rand(count, *size) < 0.3,
        }
        for index, count in enumerate(counts)
    ]


def stack_targets(images: list[dict[str, Any]], *, slots: int = 1, canvas: tuple[int, int] | None = None) -> Targets:
    """Return the targets of images, with masks padded to a canvas if there is one."""
    masks = None
    if canvas is not None:
        padded = [pad(m, (0, canvas[1] - m.shape[2], 0, canvas[0] - m.shape[1])) for m in (i["masks"] for i in images)]
        masks = torch.cat(padded)
    labels, boxes = (torch.cat([image[key] for image in images]) for key in ("labels", "boxes"))
    ids, counts = [image["image_id"] for image in images], [len(image["labels"]) for image in images]
    return targets.stack_targets(ids, counts, labels, boxes, masks, slots=slots)


def random_targets(*counts: int, slots: int = 1, canvas: tuple[int, int] | None = None) -> Targets:
    return stack_targets(random_images(*counts, size=canvas or (64, 64)), slots=slots, canvas=canvas)


def random_output(
    batch: int, *, layers: int = 2, queries: int = 7, mask_size: tuple[int, int] | None = None
) -> DetrOutput:
    """Return predictions that gradients can be taken of."""
    boxes = random_boxes(layers * batch * queries).view(layers, batch, queries, 4)
    return DetrOutput(
        logits=torch.randn(layers, batch, queries, CLASSES + 1).requires_grad_(),
        boxes=boxes.requires_grad_(),
        masks=None if mask_size is None else torch.randn(batch, queries, *mask_size).requires_grad_(),
    )
