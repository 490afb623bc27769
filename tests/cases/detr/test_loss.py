"""The set loss against values worked out by hand; test_parity.py compares it with a peer."""

from __future__ import annotations

from dataclasses import replace
from math import log
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from chipperf.cases.detr import loss
from chipperf.cases.detr.loss import UNMATCHED, match, set_loss
from chipperf.cases.detr.model import DetrOutput
from detr_examples import random_images, random_output, random_targets, stack_targets

if TYPE_CHECKING:
    from chipperf.cases.detr.targets import Targets


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def loss_of(output: DetrOutput, targets: Targets, **options: object) -> dict[str, torch.Tensor]:
    assignment = match(output.logits, output.boxes, targets)
    return set_loss(output, targets, assignment, **options)  # type: ignore[arg-type]


def single_layer(logits: torch.Tensor, boxes: torch.Tensor, masks: torch.Tensor | None = None) -> DetrOutput:
    """Return the predictions of one layer for one image."""
    return DetrOutput(logits=logits[None, None], boxes=boxes[None, None], masks=None if masks is None else masks[None])


def test_perfect_predictions_cost_nothing() -> None:
    image = random_images(2, size=(8, 8))[0]
    image["labels"] = torch.tensor([3, 1])
    logits = torch.full((3, 6), -50.0)
    logits[[0, 1, 2], [1, 3, 5]] = 50
    boxes = torch.stack([image["boxes"][1], image["boxes"][0], torch.full((4,), 0.5)])
    masks = torch.where(image["masks"][[1, 0, 0]], 50.0, -50.0)

    losses = loss_of(single_layer(logits, boxes, masks), stack_targets([image], canvas=(8, 8)))

    assert set(losses) == {"loss", "loss_ce", "loss_bbox", "loss_giou", "loss_mask", "loss_dice"}
    assert all(value.item() == pytest.approx(0, abs=1e-6) for value in losses.values())


def test_no_object_weighs_a_tenth_in_a_weighted_mean() -> None:
    probabilities = torch.tensor([[0.5, 0.2, 0.3], [0.4, 0.2, 0.4], [0.1, 0.1, 0.8]])
    image = {"image_id": 1, "labels": torch.tensor([1]), "boxes": torch.full((1, 4), 0.5)}

    losses = set_loss(
        single_layer(probabilities.log(), torch.full((3, 4), 0.5)), stack_targets([image]), np.array([[[0]]])
    )

    assert losses["loss_ce"].item() == pytest.approx(-(log(0.2) + 0.1 * log(0.4) + 0.1 * log(0.8)) / 1.2)


def test_box_losses_of_one_pair() -> None:
    image = {"image_id": 1, "labels": torch.tensor([0]), "boxes": torch.tensor([[0.25, 0.25, 0.5, 0.5]])}
    predicted = torch.tensor([[0.75, 0.75, 0.5, 0.5]])

    losses = set_loss(single_layer(torch.zeros(1, 3), predicted), stack_targets([image]), np.array([[[0]]]))

    assert losses["loss_bbox"].item() == pytest.approx(1.0)
    # No overlap, and half of the enclosing box is covered.
    assert losses["loss_giou"].item() == pytest.approx(1 + 0.5)


def test_mask_losses_of_one_undecided_mask() -> None:
    mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    mask[:, :, :2] = True
    image = {"image_id": 1, "labels": torch.tensor([0]), "boxes": torch.full((1, 4), 0.5), "masks": mask}
    output = single_layer(torch.zeros(1, 3), torch.full((1, 4), 0.5), torch.zeros(1, 2, 2))

    losses = set_loss(output, stack_targets([image], canvas=(4, 4)), np.array([[[0]]]))

    # Every pixel has the probability one half, and half of the pixels belong to the object.
    assert losses["loss_mask"].item() == pytest.approx(0.5 * 0.5**2 * log(2))
    assert losses["loss_dice"].item() == pytest.approx(1 - (2 * 4 + 1) / (8 + 8 + 1))


def test_loss_is_the_weighted_sum_of_all_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "BOX_L1_WEIGHT", 3)
    monkeypatch.setattr(loss, "BOX_GIOU_WEIGHT", 7)

    losses = loss_of(random_output(2, layers=3, mask_size=(4, 4)), random_targets(2, 1, canvas=(16, 16)))

    assert set(losses) == {"loss", "loss_mask", "loss_dice"} | {
        f"loss_{part}{suffix}" for part in ("ce", "bbox", "giou") for suffix in ("", "_0", "_1")
    }
    coefficients = {"ce": 1, "bbox": 3, "giou": 7, "mask": 1, "dice": 1}
    expected = sum(coefficients[name.split("_")[1]] * value for name, value in losses.items() if name != "loss")
    torch.testing.assert_close(losses["loss"], expected)
    assert all(value.dtype == torch.float32 and value.dim() == 0 for value in losses.values())


def test_defaults_are_the_references() -> None:
    losses = loss_of(random_output(1, layers=1), random_targets(3))

    torch.testing.assert_close(losses["loss"], losses["loss_ce"] + 5 * losses["loss_bbox"] + 2 * losses["loss_giou"])


def test_box_losses_are_divided_by_the_mean_number_of_objects_per_rank() -> None:
    output, targets = random_output(2, mask_size=(4, 4)), random_targets(3, 1, canvas=(16, 16))
    counts: list[float] = []

    def mean_over_ranks(count: torch.Tensor) -> torch.Tensor:
        counts.append(count.item())
        return count * 2

    alone, together = loss_of(output, targets), loss_of(output, targets, mean_over_ranks=mean_over_ranks)

    assert counts == [4]
    for name in ("loss_bbox", "loss_giou_0", "loss_mask", "loss_dice"):
        torch.testing.assert_close(together[name], alone[name] / 2)
    torch.testing.assert_close(together["loss_ce"], alone["loss_ce"])


def test_less_than_one_object_per_rank_counts_as_one() -> None:
    output, targets = random_output(1), random_targets(1)

    torch.testing.assert_close(
        loss_of(output, targets, mean_over_ranks=lambda count: count / 8), loss_of(output, targets)
    )


def test_batch_without_objects_has_gradients_for_every_output() -> None:
    output = random_output(2, mask_size=(4, 4))
    assert output.masks is not None

    losses = loss_of(output, random_targets(0, 0, canvas=(16, 16)))
    losses["loss"].backward()

    assert all(losses[name].item() == 0 for name in ("loss_bbox", "loss_giou", "loss_mask", "loss_dice"))
    assert output.logits.grad is not None
    assert output.logits.grad.abs().sum() > 0
    for tensor in (output.boxes, output.masks):
        assert tensor.grad is not None
        assert not tensor.grad.any()


def test_unused_slots_change_nothing() -> None:
    output, images = random_output(2), random_images(3, 1)

    torch.testing.assert_close(loss_of(output, stack_targets(images, slots=10)), loss_of(output, stack_targets(images)))


def test_objects_without_a_query_count_but_have_no_box_loss() -> None:
    output, targets = random_output(1, layers=1, queries=2, mask_size=(4, 4)), random_targets(3, canvas=(16, 16))
    assert targets.masks is not None
    fewer = replace(
        targets, counts=(2,), labels=targets.labels[:, :2], boxes=targets.boxes[:, :2], masks=targets.masks[:2]
    )

    losses = set_loss(output, targets, np.array([[[1, 0, UNMATCHED]]]))
    expected = set_loss(output, fewer, np.array([[[1, 0]]]))

    torch.testing.assert_close(losses["loss_ce"], expected["loss_ce"])
    for name in ("loss_bbox", "loss_giou", "loss_mask", "loss_dice"):
        torch.testing.assert_close(losses[name], expected[name] * 2 / 3)


def test_boxes_without_area_have_finite_gradients() -> None:
    output, targets = random_output(1), random_targets(2)
    targets.boxes[..., 2:] = 0
    with torch.no_grad():
        output.boxes[..., 2:] = 0

    loss = loss_of(output, targets)["loss"]
    loss.backward()

    assert loss.isfinite()
    assert output.boxes.grad is not None
    assert output.boxes.grad.isfinite().all()


def test_masks_of_several_images_meet_their_own_queries() -> None:
    images = random_images(1, 2, size=(8, 8))
    targets = stack_targets(images, canvas=(8, 8))
    assert targets.masks is not None
    output = random_output(2, layers=1, queries=3, mask_size=(8, 8))
    masks = torch.full((2, 3, 8, 8), 50.0)
    for (image, query), mask in zip([(0, 2), (1, 1), (1, 0)], targets.masks, strict=True):
        masks[image, query] = torch.where(mask, 50.0, -50.0)

    losses = set_loss(output._replace(masks=masks), targets, np.array([[[2, UNMATCHED], [1, 0]]]))

    assert losses["loss_mask"].item() == pytest.approx(0, abs=1e-6)
    assert losses["loss_dice"].item() == pytest.approx(0, abs=1e-6)


def test_nothing_is_read_back_from_the_device() -> None:
    """The meta device has no values to read."""
    output, targets = random_output(2, mask_size=(4, 4)), random_targets(3, 1, canvas=(16, 16))
    assignment = match(output.logits, output.boxes, targets)
    assert output.masks is not None
    on_device = DetrOutput(output.logits.to("meta"), output.boxes.to("meta"), output.masks.to("meta"))

    losses = set_loss(on_device, targets.to(torch.device("meta")), assignment)

    assert losses["loss"].device.type == "meta"


def test_low_precision_predictions_have_a_float32_loss() -> None:
    output, targets = random_output(2), random_targets(2, 1)
    lower = DetrOutput(output.logits.bfloat16(), output.boxes.bfloat16(), None)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = loss_of(lower, targets)["loss"]

    assert loss.dtype == torch.float32
    expected = loss_of(DetrOutput(lower.logits.float(), lower.boxes.float(), None), targets)["loss"]
    torch.testing.assert_close(loss, expected)


def test_targets_are_stacked_in_slots() -> None:
    first, second = random_images(2, 1, size=(4, 6))
    second["masks"] = second["masks"][:, :3, :2]

    targets = stack_targets([first, second], slots=3, canvas=(5, 7))

    assert (targets.image_ids, targets.counts) == ((100, 101), (2, 1))
    assert targets.labels.tolist() == [[*first["labels"].tolist(), 0], [*second["labels"].tolist(), 0, 0]]
    assert torch.equal(targets.boxes[0, :2], first["boxes"])
    assert not targets.boxes[1, 1:].any()
    assert targets.masks is not None
    assert targets.masks.shape == (3, 5, 7)
    assert torch.equal(targets.masks[2, :3, :2], second["masks"][0])
    assert targets.masks[2].sum() == second["masks"].sum()


def test_targets_without_masks_or_objects() -> None:
    targets = stack_targets(random_images(0))

    assert targets.labels.shape == (1, 1)
    assert targets.masks is None
