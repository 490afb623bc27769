"""Predictions in the original image's pixels, on maps small enough to work out by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from chipperf.cases.detr.model import DetrOutput
from chipperf.cases.detr.postprocess import (
    Placement,
    detections,
    encode_masks,
    instance_masks,
    panoptic_segmentation,
)
from pycocotools import mask as coco_mask

if TYPE_CHECKING:
    from chipperf.cases.detr.panoptic_quality import SegmentedImage

THINGS = frozenset({0, 1})
STUFF = 3
NO_OBJECT = 4


def test_boxes_are_corners_in_pixels_of_the_original_image() -> None:
    logits = torch.tensor([[0.1, 0.6, 0.3], [0.2, 0.1, 0.7]]).log()
    boxes = torch.tensor([[0.5, 0.5, 0.2, 0.4], [0.25, 0.75, 0.5, 0.5]])
    output = DetrOutput(
        logits=torch.stack([torch.zeros(2, 3), logits])[:, None],
        boxes=torch.stack([torch.zeros(2, 4), boxes])[:, None],
        masks=None,
    )

    found = detections(output, torch.tensor([[100, 200]]))

    torch.testing.assert_close(found.boxes[0], torch.tensor([[80.0, 30, 120, 70], [0, 50, 100, 100]]))
    # "No object" is the likelier answer of the second query, but never its label.
    assert found.labels.tolist() == [[1, 0]]
    torch.testing.assert_close(found.scores[0], torch.tensor([0.6, 0.2]))


def test_each_image_has_its_own_scale() -> None:
    output = DetrOutput(logits=torch.zeros(1, 2, 1, 3), boxes=torch.full((1, 2, 1, 4), 0.5), masks=None)

    found = detections(output, torch.tensor([[100, 200], [40, 20]]))

    assert found.boxes[:, 0].tolist() == [[50, 25, 150, 75], [5, 10, 15, 30]]


def test_instance_masks_lose_the_padding_and_get_the_original_size() -> None:
    logits = torch.full((2, 4, 8), -9.0)
    logits[0, :, :2] = 9
    logits[1, 2:, :] = 9
    placement = Placement(canvas=(4, 8), size=(4, 4), original_size=(8, 8))

    masks = instance_masks(logits, placement)

    assert masks.dtype == torch.bool
    expected = torch.zeros(2, 8, 8, dtype=torch.bool)
    expected[0, :, :4] = True
    expected[1, 4:, :] = True
    assert torch.equal(masks, expected)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools on numpy 2
def test_encoded_masks_decode_to_themselves() -> None:
    masks = torch.rand(3, 5, 7, generator=torch.Generator().manual_seed(0)) < 0.5

    encoded = encode_masks(masks)

    assert [rle["size"] for rle in encoded] == [[5, 7]] * 3
    assert all(isinstance(rle["counts"], str) for rle in encoded)
    assert np.array_equal(coco_mask.decode(encoded).transpose(2, 0, 1), masks.numpy())


def test_no_masks_have_no_encoding() -> None:
    assert encode_masks(torch.zeros(0, 5, 7, dtype=torch.bool)) == []


def confident(*classes: int) -> torch.Tensor:
    logits = torch.zeros(len(classes), NO_OBJECT + 1)
    logits[range(len(classes)), classes] = 20
    return logits


def whole(size: tuple[int, int]) -> Placement:
    return Placement(canvas=size, size=size, original_size=size)


def columns(*logits: list[float]) -> torch.Tensor:
    """Return masks of four rows, of which each has these logits in every row."""
    return torch.tensor(logits)[:, None, :].repeat(1, 4, 1)


def areas(result: SegmentedImage) -> list[int]:
    return np.bincount(result.indices.ravel()).tolist()[1:]


def test_pixels_go_to_the_highest_logit_and_things_stay_apart() -> None:
    masks = columns([5.0, 1, 1, 1], [1, 5, 1, 1], [1, 1, 5, 5])

    placement = Placement(canvas=(4, 4), size=(4, 4), original_size=(8, 4))

    result = panoptic_segmentation(confident(1, 1, STUFF), masks, placement, THINGS)

    assert result.indices.dtype == np.int32
    assert result.indices.tolist() == [[1, 2, 3, 3]] * 8
    # In four rows, a column of four pixels would be noise.
    assert areas(result) == [8, 8, 16]


def test_stuff_of_one_class_is_one_segment() -> None:
    masks = columns([5.0, 5, 1, 1, 1, 1], [1, 1, 5, 5, 1, 1], [1, 1, 1, 1, 5, 5])

    result = panoptic_segmentation(confident(STUFF, 0, STUFF), masks, whole((4, 6)), THINGS)

    assert result.indices.tolist() == [[1, 1, 2, 2, 1, 1]] * 4
    assert result.categories.tolist() == [STUFF, 0]
    assert areas(result) == [16, 8]


def test_noise_is_dropped_and_its_pixels_go_to_the_next_best() -> None:
    masks = columns([5.0, 5, 2, 1, 1, 1], [1, 1, 3, 1, 1, 1], [1, 1, 1, 5, 5, 5])

    result = panoptic_segmentation(confident(0, 1, STUFF), masks, whole((4, 6)), THINGS)

    assert result.indices.tolist() == [[1, 1, 1, 2, 2, 2]] * 4
    assert result.categories.tolist() == [0, STUFF]


def test_merged_stuff_keeps_its_pixels_when_noise_is_dropped() -> None:
    masks = columns([5.0, 5, 1, 1, 1, 1, 1], [1, 1, 5, 5, 1, 1, 1], [1, 1, 3, 3, 5, 5, 2], [1, 1, 1, 1, 1, 1, 3])

    result = panoptic_segmentation(confident(STUFF, STUFF, 0, 1), masks, whole((4, 7)), THINGS)

    assert result.indices.tolist() == [[1, 1, 1, 1, 2, 2, 2]] * 4


def test_everything_too_small_leaves_no_segment() -> None:
    result = panoptic_segmentation(confident(0), torch.ones(1, 2, 2), whole((2, 2)), THINGS)

    assert not result.indices.any()
    assert result.categories.tolist() == []


@pytest.mark.parametrize("probability", [0.84, 0.86])
def test_only_objects_above_the_threshold_count(probability: float) -> None:
    logits = torch.tensor([[probability, 1 - probability]]).log()

    result = panoptic_segmentation(logits, torch.ones(1, 4, 4), whole((4, 4)), THINGS)

    assert len(result.categories) == (probability > 0.85)
    assert (result.indices == len(result.categories)).all()


def test_sure_of_no_object_is_no_object() -> None:
    result = panoptic_segmentation(confident(NO_OBJECT), torch.ones(1, 4, 4), whole((4, 6)), THINGS)

    assert result.indices.shape == (4, 6)
    assert result.categories.tolist() == []


def test_panoptic_map_loses_the_padding_and_gets_the_original_size() -> None:
    masks = columns([5.0, 1, 1, 9], [1, 5, 9, 1])
    placement = Placement(canvas=(4, 4), size=(4, 2), original_size=(6, 4))

    result = panoptic_segmentation(confident(0, STUFF), masks, placement, THINGS)

    assert result.indices.tolist() == [[1, 1, 2, 2]] * 6
    assert areas(result) == [12, 12]


@pytest.mark.parametrize(("width", "expected"), [(4, [1, 2, 2, 3]), (9, [1, 1, 1, 2, 2, 2, 3, 3, 3])])
def test_panoptic_map_is_resized_by_the_pixels_under_the_centres(width: int, expected: list[int]) -> None:
    masks = columns([1.0, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1])
    placement = Placement(canvas=(4, 6), size=(4, 6), original_size=(8, width))

    result = panoptic_segmentation(confident(0, 0, 1, STUFF), masks, placement, THINGS)

    assert result.indices.tolist() == [expected] * 8
