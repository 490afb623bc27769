from __future__ import annotations

import io
import random

import numpy as np
import pytest
import torch
from chipperf.data import transforms
from chipperf.data.decode import Box, decode_region
from chipperf.data.transforms import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    EvaluationTransform,
    Normalize,
    TrainingTransform,
    random_resized_crop_box,
    resize,
)
from PIL import Image
from torchvision import transforms as reference
from torchvision.transforms import functional

ROUNDING = 1
"""Largest difference of a resized pixel to Pillow's, in levels of 255.

Both filter in fixed point, first rows and then columns, with an 8-bit intermediate image; the weights have different
numbers of fractional bits, which can turn a rounding over but not add up.
"""


def assert_same_pixels(ours, theirs):
    difference = ours.permute(1, 2, 0).numpy().astype(int) - np.asarray(theirs)
    assert np.abs(difference).max() <= ROUNDING
    # Rounding errors have no direction; cutting off fractions would make the image darker by half a level.
    assert abs(difference.mean()) < 0.1


@pytest.mark.parametrize("box", [Box(0, 0, 117, 163), Box(20, 31, 60, 80), Box(3, 50, 110, 90), Box(40, 40, 9, 12)])
def test_crop_and_resize_have_the_reference_pixels(photo, encode, box):
    data = encode(photo)
    ours = resize(decode_region(data, box, "image"), 64, 64)
    theirs = functional.resized_crop(Image.open(io.BytesIO(data)), *box, [64, 64])
    assert ours.shape == (3, 64, 64)
    assert ours.dtype == torch.uint8
    assert_same_pixels(ours, theirs)


def test_resize_in_float_has_the_reference_pixels(photo, monkeypatch):
    monkeypatch.setattr(transforms, "_has_native_uint8_resize", lambda: False)
    ours = resize(np.array(photo), 64, 64)
    assert ours.dtype == torch.uint8
    assert_same_pixels(ours, photo.resize((64, 64), Image.Resampling.BILINEAR))


@pytest.mark.parametrize("size", [(163, 117), (90, 400), (256, 256), (300, 301)])
def test_evaluation_has_the_reference_pixels(photo, encode, size):
    data = encode(photo.resize(size))
    pipeline = reference.Compose([reference.Resize(256), reference.CenterCrop(224)])
    ours = EvaluationTransform()(data, "image", 0, 0)
    assert_same_pixels(ours, pipeline(Image.open(io.BytesIO(data))))


def test_training_crops_flips_and_is_reproducible(photo, encode, monkeypatch):
    data = encode(photo)
    box = Box(10, 20, 80, 100)
    monkeypatch.setattr(transforms, "random_resized_crop_box", lambda height, width, rng: box)
    crop = resize(decode_region(data, box, "image"), 32, 32)
    transform = TrainingTransform(seed=5, size=32)
    results = [transform(data, "image", epoch=2, index=index) for index in range(200)]
    flipped = [torch.equal(result, crop.flip(-1)) for result in results]
    assert all(torch.equal(result, crop) or flip for result, flip in zip(results, flipped, strict=True))
    assert 75 <= sum(flipped) <= 125


def test_random_numbers_depend_on_seed_epoch_and_sample_only(photo, encode):
    data = encode(photo)
    keys = [(seed, epoch, index) for seed in (0, 1) for epoch in (0, 1) for index in (0, 1)]
    first, second = (
        [TrainingTransform(seed, 32)(data, "image", epoch, index) for seed, epoch, index in keys] for _ in range(2)
    )
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    assert len({image.contiguous().numpy().tobytes() for image in first}) == len(keys)


def kolmogorov_smirnov(left, right):
    """Largest distance between two empirical distribution functions."""
    left, right = np.sort(left), np.sort(right)
    points = np.concatenate([left, right])
    return np.abs(
        np.searchsorted(left, points, "right") / len(left) - np.searchsorted(right, points, "right") / len(right)
    ).max()


@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 333), (60, 400)])
def test_crops_are_distributed_like_torchvisions(height, width):
    draws = 3000
    rng = random.Random(1)
    ours = np.array([random_resized_crop_box(height, width, rng) for _ in range(draws)])
    torch.manual_seed(1)
    image = torch.empty(3, height, width)
    theirs = np.array(
        [reference.RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(draws)]
    )
    features = {
        "area": lambda box: box[:, 2] * box[:, 3],
        "aspect": lambda box: box[:, 3] / box[:, 2],
        "top": lambda box: box[:, 0],
        "left": lambda box: box[:, 1],
    }
    # The statistic exceeds this with a probability of 1e-4 if both come from one distribution.
    critical = 2.23 * np.sqrt(2 / draws)
    for name, feature in features.items():
        assert kolmogorov_smirnov(feature(ours), feature(theirs)) < critical, name


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 1000), (1000, 1), (3, 5), (375, 500)])
def test_crops_lie_inside_the_image(height, width):
    rng = random.Random(2)
    for _ in range(300):
        top, left, crop_height, crop_width = random_resized_crop_box(height, width, rng)
        assert top >= 0
        assert left >= 0
        assert 0 < crop_height <= height - top
        assert 0 < crop_width <= width - left


def test_crops_reach_every_edge():
    rng = random.Random(3)
    boxes = [random_resized_crop_box(8, 8, rng) for _ in range(500)]
    partial = [box for box in boxes if box.height < 8 and box.width < 8]
    assert min(box.top for box in partial) == min(box.left for box in partial) == 0
    assert max(box.top + box.height for box in partial) == max(box.left + box.width for box in partial) == 8


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_normalize_is_the_reference_after_collation(memory_format):
    images = torch.randint(0, 256, (4, 3, 8, 10), dtype=torch.uint8).contiguous(memory_format=memory_format)
    normalized = Normalize(torch.device("cpu"))(images)
    expected = reference.Normalize(IMAGENET_MEAN, IMAGENET_STD)(images.float() / 255)
    # Values up to 2.7, one multiply-add instead of two divisions and a subtraction: a few units in the last place.
    torch.testing.assert_close(normalized, expected, rtol=0, atol=1e-6)
    assert normalized.is_contiguous(memory_format=memory_format)
