"""Panoptic quality against a hand-computed image and against a plain reading of its definition."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np
import pytest
from chipperf.cases.detr.panoptic_quality import (
    MatchCounts,
    Quality,
    SegmentedImage,
    match_segments,
    panoptic_quality,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

THINGS, STUFF = (1, 2), (3, 4)


def image(rows: Sequence[str], categories: dict[str, int], crowds: str = "") -> SegmentedImage:
    """Draw an image: a letter is a segment, a dot is unlabeled."""
    ids = {letter: 10 * number for number, letter in enumerate(sorted(categories), start=1)}
    segment_map = np.array([[ids.get(letter, 0) for letter in row] for row in rows], np.int32)
    return SegmentedImage.from_map(
        segment_map,
        np.array([ids[letter] for letter in sorted(categories)], np.int64),
        np.array([categories[letter] for letter in sorted(categories)], np.int64),
        np.array([letter in crowds for letter in sorted(categories)], np.bool_),
    )


def columns(counts: MatchCounts, category: int) -> tuple[float, int, int, int]:
    iou, tp, fp, fn = counts[:, category].tolist()
    return iou, tp, fp, fn


def test_hand_computed_image() -> None:
    truth = image(["aaaabb", "aaaabb", "cccc..", "cccc.."], {"a": 1, "b": 1, "c": 3})
    predicted = image(["aaaaaa", "aaaabb", "cccccc", "ccccdd"], {"a": 1, "b": 1, "c": 3, "d": 2})

    counts = match_segments(truth, predicted, 4)

    # a: 8 of 10 pixels. b: 2 of 4, which is not more than a half: missed and false. c: its two pixels on unlabeled
    # ground do not count. d: lies on unlabeled ground and is excused.
    assert columns(counts, 1) == (0.8, 1, 1, 1)
    assert columns(counts, 2) == (0, 0, 0, 0)
    assert columns(counts, 3) == (1, 1, 0, 0)
    quality = panoptic_quality(counts, THINGS, STUFF)
    assert quality.by_category[1] == Quality(pq=0.8 / 2, sq=0.8, rq=0.5, categories=1)
    assert quality.things == Quality(pq=0.4, sq=0.8, rq=0.5, categories=1)
    assert quality.stuff == Quality(pq=1, sq=1, rq=1, categories=1)
    assert quality.all == Quality(pq=0.7, sq=0.9, rq=0.75, categories=2)


def test_crowds_are_neither_missed_nor_matched_and_excuse_what_lies_on_them() -> None:
    truth = image(["aaaabb", "aaaabb"], {"a": 1, "b": 2}, crowds="a")

    exact = match_segments(truth, image(["aaaabb", "aaaabb"], {"a": 1, "b": 2}), 4)
    assert columns(exact, 1) == (0, 0, 0, 0)
    assert columns(exact, 2) == (1, 1, 0, 0)

    other_category = match_segments(truth, image(["aaaabb", "aaaabb"], {"a": 3, "b": 2}), 4)
    assert columns(other_category, 3) == (0, 0, 1, 0)

    half = match_segments(truth, image(["....aa", "..aabb"], {"a": 1, "b": 2}), 4)
    assert columns(half, 1) == (0, 0, 1, 0)


def test_equal_pixels_of_another_category_do_not_match() -> None:
    counts = match_segments(image(["aa"], {"a": 1}), image(["aa"], {"a": 2}), 4)
    assert columns(counts, 1) == (0, 0, 0, 1)
    assert columns(counts, 2) == (0, 0, 1, 0)


def test_images_without_segments() -> None:
    empty, full = image([".."], {}), image(["aa"], {"a": 1})
    assert columns(match_segments(empty, empty, 4), 1) == (0, 0, 0, 0)
    assert columns(match_segments(full, empty, 4), 1) == (0, 0, 0, 1)
    assert columns(match_segments(empty, full, 4), 1) == (0, 0, 0, 0)


def test_groups_without_categories_have_no_quality() -> None:
    counts = match_segments(image(["aa"], {"a": 1}), image(["aa"], {"a": 1}), 4)
    quality = panoptic_quality(counts, THINGS, STUFF)
    assert quality.stuff is None
    assert quality.things == quality.all == Quality(pq=1, sq=1, rq=1, categories=1)
    assert set(quality.by_category) == {1}
    nothing = match_segments(image([".."], {}), image([".."], {}), 4)
    assert panoptic_quality(nothing, THINGS, STUFF).all is None


def test_order_of_the_listed_segments_does_not_matter() -> None:
    segment_map = np.array([[0, 5, 7, 7]], np.int32)
    no_crowd = np.zeros(2, np.bool_)
    one = SegmentedImage.from_map(segment_map, np.array([5, 7]), np.array([1, 2]), no_crowd)
    other = SegmentedImage.from_map(segment_map, np.array([7, 5]), np.array([2, 1]), no_crowd)
    counts = match_segments(one, other, 4)
    assert columns(counts, 1) == columns(counts, 2) == (1, 1, 0, 0)


def plain_counts(truth: SegmentedImage, predicted: SegmentedImage) -> dict[int, list[float]]:
    """Count as the paper's section 4 and appendix read, with sets of pixels."""

    def pixels(segmented: SegmentedImage, index: int) -> set[int]:
        return set(np.flatnonzero(segmented.indices == index).tolist())

    unlabeled = pixels(truth, 0)
    true = [
        (pixels(truth, number + 1), category, truth.is_crowd[number])
        for number, category in enumerate(truth.categories)
    ]
    found = [(pixels(predicted, number + 1), category) for number, category in enumerate(predicted.categories)]
    counts: dict[int, list[float]] = defaultdict(lambda: [0.0, 0, 0, 0])
    matched_truths, matched_predictions = set(), set()
    for number, (area, category, is_crowd) in enumerate(true):
        for other, (candidate, label) in enumerate(found):
            overlap = len(area & candidate) / len(area | (candidate - unlabeled))
            if label == category and not is_crowd and overlap > 0.5:
                counts[category][0] += overlap
                counts[category][1] += 1
                matched_truths.add(number)
                matched_predictions.add(other)
    for other, (candidate, label) in enumerate(found):
        ignored = unlabeled.union(*(area for area, category, is_crowd in true if is_crowd and category == label))
        if other not in matched_predictions and len(candidate & ignored) <= len(candidate) / 2:
            counts[label][2] += 1
    for number, (_, category, is_crowd) in enumerate(true):
        if number not in matched_truths and not is_crowd:
            counts[category][3] += 1
    return counts


def random_image(rng: np.random.RandomState, base: np.ndarray, *, crowds: bool) -> SegmentedImage:
    noisy = np.where(rng.uniform(size=base.shape) < 0.15, rng.randint(0, 7, base.shape), base).astype(np.int32)
    ids = np.setdiff1d(np.unique(noisy), [0])
    rng.shuffle(ids)
    is_crowd = rng.uniform(size=len(ids)) < 0.3 if crowds else np.zeros(len(ids), bool)
    # Mostly the id decides, so that truth and prediction agree often enough.
    categories = np.where(rng.uniform(size=len(ids)) < 0.8, ids % 4 + 1, 1)
    return SegmentedImage.from_map(noisy, ids.astype(np.int64), categories.astype(np.int64), is_crowd)


@pytest.mark.parametrize("seed", range(25))
def test_counts_are_those_of_the_plain_definition(seed: int) -> None:
    rng = np.random.RandomState(seed)
    base = np.kron(rng.randint(0, 7, (3, 4)), np.ones((4, 4), int))
    truth, predicted = random_image(rng, base, crowds=True), random_image(rng, base, crowds=False)

    counts, plain = match_segments(truth, predicted, 4), plain_counts(truth, predicted)

    for category in range(1, 5):
        assert columns(counts, category) == pytest.approx(tuple(plain[category]), abs=1e-12)
    assert int(counts[1].sum()) > 0


def test_category_that_the_split_does_not_list_is_no_category_of_the_mean() -> None:
    pixels = np.ones((4, 4), np.int32)
    truth, predicted = (
        SegmentedImage(indices=pixels, categories=np.array([category]), is_crowd=np.zeros(1, bool))
        for category in (1, 150)
    )
    counts = match_segments(truth, predicted, 3)
    assert counts.shape == (4, 4)
    assert columns(counts, 1) == (0, 0, 0, 1)
