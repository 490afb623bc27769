from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from chipperf.data.coco import Objects
from chipperf.data.coco_transforms import (
    DetectionEvaluationTransform,
    DetectionSample,
    DetectionTrainingTransform,
    crop,
    drop_degenerate,
    flip,
    largest_size,
    resize_sample,
)
from chipperf.data.decode import Box
from chipperf.data.transforms import shorter_side_to
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as reference

HEIGHT, WIDTH = 120, 180


def make_sample(height=HEIGHT, width=WIDTH, *, boxes=None, masks=True):
    rng = np.random.RandomState(0)
    if boxes is None:
        boxes = [(10, 20, 60, 90), (100, 5, 170, 118), (0, 0, 180, 120), (30, 30, 34, 36)]
    drawn = np.zeros((len(boxes), height, width), np.uint8)
    for mask, (left, top, right, bottom) in zip(drawn, boxes, strict=True):
        mask[top:bottom, left:right] = rng.randint(0, 2, (bottom - top, right - left))
    corners = np.array(boxes, np.float32).reshape(-1, 4)
    labels = np.arange(1, len(boxes) + 1)
    pixels = rng.randint(0, 256, (height, width, 3)).astype(np.uint8)
    return DetectionSample(pixels, Objects(corners, labels, drawn if masks else None))


def as_reference(sample):
    """Return the sample as torchvision's image, boxes and masks."""
    boxes = tv_tensors.BoundingBoxes(sample.objects.boxes, format="XYXY", canvas_size=sample.size)
    image = tv_tensors.Image(torch.from_numpy(sample.pixels).permute(2, 0, 1))
    return image, boxes, tv_tensors.Mask(torch.from_numpy(sample.objects.masks))


def assert_same(sample, theirs):
    image, boxes, masks = theirs
    assert np.abs(sample.pixels.astype(int) - image.permute(1, 2, 0).numpy().astype(int)).max() <= 1
    np.testing.assert_allclose(sample.objects.boxes, boxes.numpy(), rtol=1e-6)
    np.testing.assert_array_equal(sample.objects.masks, masks.numpy())
    assert sample.objects.boxes.dtype == np.float32
    assert sample.objects.masks.dtype == np.uint8


def test_flip_is_the_references():
    sample = make_sample()
    assert_same(flip(sample), [reference.horizontal_flip(item) for item in as_reference(sample)])
    np.testing.assert_array_equal(flip(flip(sample)).pixels, sample.pixels)


@pytest.mark.parametrize(("height", "width"), [(60, 90), (200, 300), (97, 143)])
def test_resize_is_the_references(height, width):
    sample = make_sample()
    resized = resize_sample(sample, height, width)
    assert_same(resized, [reference.resize(item, [height, width], antialias=True) for item in as_reference(sample)])


def test_crop_is_the_references():
    sample = make_sample()
    box = Box(top=15, left=40, height=80, width=100)
    cropped = crop(sample, box)
    image, boxes, masks = (reference.crop(item, *box) for item in as_reference(sample))
    kept = [0, 1, 2]
    assert cropped.objects.labels.tolist() == [1, 2, 3]
    assert_same(cropped, (image, reference.clamp_bounding_boxes(boxes)[kept], masks[kept]))
    sides = cropped.objects.boxes[:, 2:] - cropped.objects.boxes[:, :2]
    assert sides.prod(axis=1).tolist() == [20 * 70, 40 * 80, 100 * 80]


def test_boxes_are_clipped_and_those_without_area_dropped():
    corners = [(-5, 10, 50, 200), (60, 10, 60, 40), (70, 40, 90, 30), (190, 5, 200, 20), (2, 3, 4, 5)]
    sample = make_sample()
    objects = Objects(np.array(corners, np.float32), np.arange(5), None)
    found = drop_degenerate(DetectionSample(sample.pixels, objects)).objects
    assert found.labels.tolist() == [0, 4]
    assert found.boxes.tolist() == [[0, 10, 50, 120], [2, 3, 4, 5]]


@pytest.mark.parametrize("masks", [True, False])
def test_image_without_objects_passes_every_transform(masks):
    sample = make_sample(boxes=[], masks=masks)
    for transform in (DetectionTrainingTransform(0, 100), DetectionEvaluationTransform(100)):
        for index in range(8):
            found = transform(sample, 0, index)
            assert found.objects.boxes.shape == (0, 4)
            assert found.objects.labels.shape == (0,)
            assert (found.objects.masks is None) != masks
            assert found.objects.masks is None or found.objects.masks.shape == (0, *found.size)


@pytest.mark.parametrize(
    ("size", "length", "longest", "expected"),
    [
        ((480, 640), 800, 1333, (800, 1066)),
        ((640, 480), 800, 1333, (1066, 800)),
        ((427, 640), 800, 1333, (800, 1199)),
        ((500, 1000), 800, 1333, (666, 1332)),
        ((1000, 500), 480, 1333, (960, 480)),
        ((100, 100), 7, None, (7, 7)),
        ((3, 1000), 100, 200, (1, 333)),
    ],
)
def test_shorter_side_and_limit_of_the_longer(size, length, longest, expected):
    assert shorter_side_to(length, *size, longest=longest) == expected


def test_training_sizes_are_those_of_the_paper():
    transform = DetectionTrainingTransform(seed=0)
    sides = [min(transform(make_sample(48, 64, boxes=[]), 0, index).size) for index in range(150)]
    uncropped = set(range(480, 801, 32))
    assert set(sides) == uncropped
    assert DetectionEvaluationTransform()(make_sample(48, 64, boxes=[]), 0, 0).size == (800, 1066)


@pytest.mark.parametrize("resolution", [100, 128, 333])
def test_all_sizes_scale_with_the_resolution(resolution):
    transform = DetectionTrainingTransform(seed=0, resolution=resolution)
    found = [transform(make_sample(boxes=[]), 0, index).size for index in range(100)]
    assert {min(size) for size in found} == {round(side * resolution / 800) for side in range(480, 801, 32)}
    assert max(max(size) for size in found) <= largest_size(resolution) == round(1333 * resolution / 800)
    shorter, longer = DetectionEvaluationTransform(resolution)(make_sample(boxes=[]), 0, 0).size
    assert (shorter, longer) == (resolution, int(resolution * 1.5))


def test_half_of_the_samples_are_flipped_and_half_cropped():
    sample = make_sample(boxes=[(0, 0, 90, 120)])
    sample.pixels[:] = 255
    sample.pixels[:, :90] = 0
    transform = DetectionTrainingTransform(seed=0, resolution=128)
    results = [transform(sample, 0, index) for index in range(300)]
    aspects = np.array([max(result.size) / min(result.size) for result in results])
    is_cropped = np.abs(aspects - 1.5) > 0.02
    assert 120 <= is_cropped.sum() <= 180
    flipped = [result.pixels[0, -1].mean() < result.pixels[0, 0].mean() for result in results]
    assert 60 <= sum(np.array(flipped)[~is_cropped]) <= 90


def test_crops_have_the_sides_of_the_paper():
    transform = DetectionTrainingTransform(seed=0)
    rng = random.Random(0)
    boxes = [transform._crop_box(rng, 600, 900) for _ in range(2000)]
    for sides in ({box.height for box in boxes}, {box.width for box in boxes}):
        assert (min(sides), max(sides)) == (384, 600)
    assert all(box.top >= 0 and box.top + box.height <= 600 for box in boxes)
    assert {box.left + box.width for box in boxes} >= {900}
    assert min(box.left for box in boxes) == 0


def test_random_numbers_depend_on_seed_epoch_and_sample_only():
    keys = [(seed, epoch, index) for seed in (0, 1) for epoch in (0, 1) for index in (0, 1)]
    first, second = (
        [DetectionTrainingTransform(seed, 128)(make_sample(), epoch, index) for seed, epoch, index in keys]
        for _ in range(2)
    )
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)
        np.testing.assert_array_equal(one.objects.boxes, other.objects.boxes)
    assert len({(result.size, result.pixels.tobytes()) for result in first}) == len(keys)


def test_objects_stay_on_their_pixels():
    """A bright rectangle is where its box and its mask say, after any augmentation.

    Up to two resizes round to the nearest pixel, so that a mask may be off by a pixel or two along its edge.
    """
    sample = make_sample(boxes=[(40, 30, 140, 90)])
    sample.pixels[:] = 0
    sample.pixels[30:90, 40:140] = 255
    sample.objects.masks[0, 30:90, 40:140] = 1
    seen = 0
    for index in range(60):
        result = DetectionTrainingTransform(3, 200)(sample, 0, index)
        for box, mask in zip(result.objects.boxes, result.objects.masks, strict=True):
            bright = result.pixels[:, :, 0] > 127
            assert np.mean(bright != (mask > 0)) < 0.04
            rows, columns = np.nonzero(bright)
            expected = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert np.abs(box - expected).max() <= 2
            seen += 1
    assert seen > 50
