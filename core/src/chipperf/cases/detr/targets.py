"""Targets of a batch of images, in tensors whose shapes can be constant."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import pad

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


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
    images: Sequence[Mapping[str, Any]], *, slots: int = 1, canvas: tuple[int, int] | None = None
) -> Targets:
    """Collect the targets of a batch.

    Args:
        images: One mapping per image with ``image_id``, ``labels`` int64 ``(n,)``, ``boxes`` float32 ``(n, 4)`` and,
            if ``canvas`` is given, ``masks`` bool ``(n, h, w)``.
        slots: Minimum number of slots per image. A number that no image exceeds gives every batch the same shapes.
            There is at least one slot, so that a batch without objects has predictions to check.
        canvas: Height and width of the padded images in pixels, to which masks are padded; ``None`` for no masks.
    """
    counts = tuple(len(image["labels"]) for image in images)
    width = max(slots, *counts)
    labels = torch.zeros(len(images), width, dtype=torch.int64)
    boxes = torch.zeros(len(images), width, 4)
    for index, (image, count) in enumerate(zip(images, counts, strict=True)):
        labels[index, :count] = image["labels"]
        boxes[index, :count] = image["boxes"]
    return Targets(
        image_ids=tuple(int(image["image_id"]) for image in images),
        counts=counts,
        labels=labels,
        boxes=boxes,
        masks=None if canvas is None else torch.cat([_pad_masks(image["masks"], canvas) for image in images]),
    )


def _pad_masks(masks: torch.Tensor, canvas: tuple[int, int]) -> torch.Tensor:
    height, width = canvas
    return pad(masks, (0, width - masks.shape[-1], 0, height - masks.shape[-2]))
