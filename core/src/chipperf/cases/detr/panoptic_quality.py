"""Panoptic quality (Kirillov, He, Girshick, Rother, Dollár: "Panoptic Segmentation", 2019).

A predicted segment matches a true one of the same category if their intersection over union exceeds 1/2; at most one
can match. Per category, over all images: segmentation quality SQ is the mean IoU of the matches, recognition quality RQ
is ``tp / (tp + fp / 2 + fn / 2)``, and PQ is their product. Unlabeled pixels of the truth do not count in unions. True
crowds are ignored as matches and as misses. An unmatched prediction is ignored if more than half of it lies on
unlabeled pixels and crowds of its category.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

_MATCH_IOU = 0.5

MatchCounts: TypeAlias = "NDArray[np.float64]"
"""Matches by category id, shape ``(4, ids)``: sum of the IoU of the matches, number of matches, of predicted segments
without a match, and of true segments without a match."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentedImage:
    """An image divided into segments.

    Attributes:
        indices: Segment number of each pixel, of shape ``(H, W)``, counted from 1; 0 is unlabeled.
        categories: Category ids of the segments, int64 of shape ``(n,)``.
        is_crowd: Whether a segment is a crowd (several objects as one region), bool of shape ``(n,)``.
    """

    indices: NDArray[np.integer[Any]]
    categories: NDArray[np.int64]
    is_crowd: NDArray[np.bool_]

    @classmethod
    def from_map(
        cls,
        segment_map: NDArray[np.int32],
        ids: NDArray[np.int64],
        categories: NDArray[np.int64],
        is_crowd: NDArray[np.bool_],
    ) -> SegmentedImage:
        """Build a segmented image from a map of segment ids, shape ``(H, W)``; its pixels are one of ``ids`` or 0."""
        present, positions = np.unique(segment_map, return_inverse=True)
        order = np.argsort(ids)
        ranks = np.searchsorted(ids[order], present)
        index_of_present = np.where(present == 0, 0, np.append(order, 0)[ranks] + 1)
        indices = index_of_present[positions.reshape(segment_map.shape)]
        return cls(indices=indices, categories=categories, is_crowd=is_crowd)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Panoptic, segmentation and recognition quality, as fractions: means over ``categories`` categories."""

    pq: float
    sq: float
    rq: float
    categories: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PanopticQuality:
    """Quality on a dataset: means over categories, and the quality of each category that occurs, by its id.

    A mean is ``None`` if no category of the group occurs in truth or prediction.
    """

    all: Quality | None
    things: Quality | None
    stuff: Quality | None
    by_category: dict[int, Quality]


def match_segments(truth: SegmentedImage, predicted: SegmentedImage, largest_category: int) -> MatchCounts:
    """Match the predicted segments of one image with the true ones; both have the same size."""
    true_count, predicted_count = len(truth.categories), len(predicted.categories)
    pairs = truth.indices * (predicted_count + 1) + predicted.indices
    pixels = np.bincount(pairs.ravel(), minlength=(true_count + 1) * (predicted_count + 1))
    overlaps = pixels.reshape(true_count + 1, predicted_count + 1)
    true_areas, predicted_areas = overlaps[1:].sum(axis=1), overlaps[:, 1:].sum(axis=0)
    on_unlabeled, intersections = overlaps[0, 1:], overlaps[1:, 1:]

    unions = true_areas[:, None] + predicted_areas - on_unlabeled - intersections
    same_category = truth.categories[:, None] == predicted.categories
    iou = np.where(same_category & ~truth.is_crowd[:, None], intersections / unions, 0)
    matches = iou > _MATCH_IOU

    on_crowd = np.where(same_category & truth.is_crowd[:, None], intersections, 0).sum(axis=0)
    is_excused = 2 * (on_unlabeled + on_crowd) > predicted_areas
    is_false = ~matches.any(axis=0) & ~is_excused
    is_missed = ~matches.any(axis=1) & ~truth.is_crowd
    true_rows, predicted_rows = np.nonzero(matches)
    matched = predicted.categories[predicted_rows]
    length = largest_category + 1
    # Models have outputs for larger categories too, which the split does not list.
    false_counts = np.bincount(predicted.categories[is_false], minlength=length)[:length]
    return np.array(
        [
            np.bincount(matched, weights=iou[true_rows, predicted_rows], minlength=length),
            np.bincount(matched, minlength=length),
            false_counts,
            np.bincount(truth.categories[is_missed], minlength=length),
        ],
        np.float64,
    )


def panoptic_quality(counts: MatchCounts, things: Collection[int], stuff: Collection[int]) -> PanopticQuality:
    """Return the quality from counts that are summed over all images, and the category ids of things and stuff."""
    by_category = {}
    for category in sorted({*things, *stuff}):
        iou, tp, fp, fn = counts[:, category].tolist()
        if tp + fp + fn:
            sq = iou / tp if tp else 0.0
            rq = tp / (tp + fp / 2 + fn / 2)
            by_category[category] = Quality(pq=sq * rq, sq=sq, rq=rq, categories=1)
    return PanopticQuality(
        all=_mean(list(by_category.values())),
        things=_mean([quality for category, quality in by_category.items() if category in things]),
        stuff=_mean([quality for category, quality in by_category.items() if category in stuff]),
        by_category=by_category,
    )


def _mean(qualities: list[Quality]) -> Quality | None:
    if not qualities:
        return None
    count = len(qualities)
    return Quality(
        pq=sum(quality.pq for quality in qualities) / count,
        sq=sum(quality.sq for quality in qualities) / count,
        rq=sum(quality.rq for quality in qualities) / count,
        categories=count,
    )
