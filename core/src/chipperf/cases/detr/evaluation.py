"""Evaluation of detections and panoptic segmentations on a whole split, with every image counted once.

Each rank collects its predictions in compact arrays. After the last batch the ranks exchange them, and keep one
prediction per image. Then the main rank evaluates all of them with pycocotools.
"""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from chipperf.cases.detr.panoptic_quality import (
    MatchCounts,
    PanopticQuality,
    SegmentedImage,
    match_segments,
    panoptic_quality,
)
from chipperf.data.coco import EVAL_SPLIT, instances_name
from chipperf.data.coco_annotations import read_annotation_file
from chipperf.data.dataset_check import first_few
from chipperf.errors import DataError, TrainingError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from chipperf.cases.detr.postprocess import Detections, PanopticSegmentation
    from chipperf.data.coco import PanopticSplit
    from chipperf.run.collectives import Collectives

RunLengthCode = dict[str, Any]
"""COCO's compressed run-length code of a mask: ``size`` and ``counts``."""

OverlapKind = Literal["bbox", "segm"]
"""Whether boxes or masks are compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AveragePrecision:
    """COCO's twelve results, as fractions; ``None`` if the split has no such object.

    ``ap`` is mAP: the mean over IoU thresholds from 0.50 to 0.95 and over categories. ``ap50`` and ``ap75`` use one
    threshold. ``ar_*`` is the recall with that number of detections per image. Small objects have up to 32² pixels,
    medium ones up to 96².
    """

    ap: float | None
    ap50: float | None
    ap75: float | None
    ap_small: float | None
    ap_medium: float | None
    ap_large: float | None
    ar_1: float | None
    ar_10: float | None
    ar_100: float | None
    ar_small: float | None
    ar_medium: float | None
    ar_large: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionQuality:
    """Quality of detections on a split.

    Attributes:
        bbox: Precision of the boxes.
        segm: Precision of the masks; ``None`` if there are no masks.
        images: Number of evaluated images.
    """

    bbox: AveragePrecision
    segm: AveragePrecision | None
    images: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectedDetections:
    """Detections on some images.

    Attributes:
        image_ids: Ids of all images, including images without detections, int64 of shape ``(I,)``.
        owners: Image id of each detection, int64 of shape ``(D,)``.
        labels: Category ids, int64 of shape ``(D,)``.
        scores: float32 of shape ``(D,)``.
        boxes: Left, top, right and bottom in pixels of the image file, float32 of shape ``(D, 4)``.
        masks: One run-length code per detection; ``None`` if masks are not predicted.
    """

    image_ids: NDArray[np.int64]
    owners: NDArray[np.int64]
    labels: NDArray[np.int64]
    scores: NDArray[np.float32]
    boxes: NDArray[np.float32]
    masks: tuple[RunLengthCode, ...] | None

    def without(self, images: set[int]) -> CollectedDetections:
        """Return the detections without these images."""
        unwanted = list(images)
        rows = np.flatnonzero(~np.isin(self.owners, unwanted))
        return CollectedDetections(
            image_ids=self.image_ids[~np.isin(self.image_ids, unwanted)],
            owners=self.owners[rows],
            labels=self.labels[rows],
            scores=self.scores[rows],
            boxes=self.boxes[rows],
            masks=None if self.masks is None else tuple(self.masks[row] for row in rows.tolist()),
        )


class DetectionCollector:
    """Collects the detections of one rank, batch by batch."""

    def __init__(self) -> None:
        self._parts: list[CollectedDetections] = []

    def add(
        self,
        image_ids: Sequence[int],
        detections: Detections,
        masks: Sequence[Sequence[RunLengthCode]] | None = None,
    ) -> None:
        """Add the detections of a batch.

        Args:
            image_ids: Ids of the ``B`` images, each once.
            detections: ``Q`` detections per image.
            masks: ``Q`` run-length codes per image, if masks are predicted.
        """
        scores, labels, boxes = (
            tensor.cpu().numpy() for tensor in (detections.scores.float(), detections.labels, detections.boxes.float())
        )
        self._parts.append(
            CollectedDetections(
                image_ids=np.array(image_ids, np.int64),
                owners=np.repeat(np.array(image_ids, np.int64), labels.shape[1]),
                labels=labels.reshape(-1),
                scores=scores.reshape(-1),
                boxes=boxes.reshape(-1, 4),
                masks=None if masks is None else tuple(code for codes in masks for code in codes),
            )
        )

    def collected(self) -> CollectedDetections:
        """Return all collected detections, each image once."""
        return merge(self._parts)


def merge(parts: Sequence[CollectedDetections]) -> CollectedDetections:
    """Merge parts in ascending order of image ids; each image comes from the first part that has it."""
    known: set[int] = set()
    fresh = []
    for part in parts:
        ids = set(part.image_ids.tolist())
        fresh.append(part if known.isdisjoint(ids) else part.without(known))
        known |= ids
    owners = np.concatenate([_NOTHING.owners, *(part.owners for part in fresh)])
    # A stable sort keeps the order of equal scores, so the result does not depend on which rank predicted an image.
    order = np.argsort(owners, kind="stable")
    masks = [mask for part in fresh for mask in part.masks or ()]
    return CollectedDetections(
        image_ids=np.array(sorted(known), np.int64),
        owners=owners[order],
        labels=np.concatenate([_NOTHING.labels, *(part.labels for part in fresh)])[order],
        scores=np.concatenate([_NOTHING.scores, *(part.scores for part in fresh)])[order],
        boxes=np.concatenate([_NOTHING.boxes, *(part.boxes for part in fresh)])[order],
        masks=tuple(masks[row] for row in order.tolist()) if masks else None,
    )


_NOTHING = CollectedDetections(
    image_ids=np.zeros(0, np.int64),
    owners=np.zeros(0, np.int64),
    labels=np.zeros(0, np.int64),
    scores=np.zeros(0, np.float32),
    boxes=np.zeros((0, 4), np.float32),
    masks=None,
)


class DetectionEvaluator:
    """Evaluates detections on the evaluation split of a dataset.

    Args:
        root: Directory of the dataset.
        image_ids: Ids of all images of the split.
    """

    def __init__(self, root: Path, image_ids: NDArray[np.int64]) -> None:
        self._annotations = root / instances_name(EVAL_SPLIT)
        self._image_ids = image_ids
        self._truth: COCO | None = None

    def evaluate(self, collected: CollectedDetections, collectives: Collectives, *, is_main: bool) -> DetectionQuality:
        """Return the quality of all ranks' detections; every rank gets the same result.

        Args:
            collected: Detections of this rank.
            collectives: Collectives over all ranks.
            is_main: True on rank 0, which evaluates.

        Raises:
            TrainingError: The ranks did not predict every image of the split, or a prediction is not finite.
            DataError: The annotation file cannot be used.
        """
        merged = merge(collectives.gather(collected))
        require_every_image(merged.image_ids, self._image_ids)
        _require_finite(merged)
        [quality, *_] = collectives.gather(self._evaluate(merged) if is_main else None)
        if quality is None:
            raise RuntimeError("no rank evaluated: rank 0 has to be the main rank")
        return quality

    def _evaluate(self, merged: CollectedDetections) -> DetectionQuality:
        if self._truth is None:
            document = read_annotation_file(self._annotations)
            for entry in document["annotations"]:
                entry.setdefault("iscrowd", 0)
            self._truth = coco_index(document)
        return DetectionQuality(
            bbox=average_precision(self._truth, merged, "bbox"),
            segm=None if merged.masks is None else average_precision(self._truth, merged, "segm"),
            images=len(merged.image_ids),
        )


class QuickCocoEvaluation(COCOeval):  # type: ignore[misc]  # pycocotools has no types
    """COCO's evaluation, with a fast path for categories without an object on an image.

    Nearly all pairs of image and category for which a detector has detections are of this kind, and cannot match. For
    each of them pycocotools runs the slow path four times.
    """

    def computeIoU(self, imgId: int, catId: int) -> Any:
        """Return the IoU of detections and objects."""
        return super().computeIoU(imgId, catId) if self._gts[imgId, catId] else []

    def evaluateImg(self, imgId: int, catId: int, aRng: list[float], maxDet: int) -> dict[str, Any] | None:
        """Return the matches of one category on one image; areas outside ``aRng`` are ignored."""
        if self._gts[imgId, catId]:
            matches: dict[str, Any] | None = super().evaluateImg(imgId, catId, aRng, maxDet)
            return matches
        found = sorted(self._dts[imgId, catId], key=_negative_score)[:maxDet]
        if not found:
            return None
        thresholds = len(self.params.iouThrs)
        is_outside = [not aRng[0] <= detection["area"] <= aRng[1] for detection in found]
        return {
            "dtScores": [detection["score"] for detection in found],
            "dtMatches": np.zeros((thresholds, len(found))),
            "dtIgnore": np.array([is_outside] * thresholds),
            "gtIgnore": _NO_OBJECTS,
        }


_NO_OBJECTS = np.zeros(0)


def _negative_score(detection: dict[str, Any]) -> float:
    return -float(detection["score"])


def average_precision(truth: COCO, detections: CollectedDetections, kind: OverlapKind) -> AveragePrecision:
    """Return COCO's results, computed by pycocotools.

    Args:
        truth: Annotations of the split.
        detections: Detections on the images of the split.
        kind: Whether boxes or masks are compared.
    """
    content = {key: truth.dataset[key] for key in ("images", "categories")}
    predicted = coco_index(content | {"annotations": _as_annotations(detections, kind)})
    evaluation = QuickCocoEvaluation(truth, predicted, kind)
    with redirect_stdout(io.StringIO()):
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    # pycocotools returns -1 if there is no object to find.
    figures = (float(value) if value >= 0 else None for value in evaluation.stats)
    return AveragePrecision(**dict(zip((field.name for field in fields(AveragePrecision)), figures, strict=True)))


def coco_index(document: dict[str, Any]) -> COCO:
    """Return pycocotools' index of annotations, and suppress its output."""
    index = COCO()
    index.dataset = document
    with redirect_stdout(io.StringIO()):
        index.createIndex()
    return index


def require_every_image(found: NDArray[np.int64], expected: NDArray[np.int64]) -> None:
    """Check that an evaluation covers exactly the images of its split.

    Raises:
        TrainingError: Images are missing or foreign; the error names them.
    """
    missing, foreign = np.setdiff1d(expected, found), np.setdiff1d(found, expected)
    problems = [
        f"{len(ids)} {what} ({first_few(ids)})"
        for what, ids in (("are missing", missing), ("are not in it", foreign))
        if len(ids)
    ]
    if problems:
        raise TrainingError(
            f"evaluation covers {len(found)} images, the split has {len(expected)}: {', '.join(problems)}",
            failure_class="evaluation_count",
            hint="let every rank predict its share of the evaluation loader's batches",
        )


class PanopticEvaluator:
    """Evaluates panoptic segmentations; each rank compares its own images, so they are not sent to other ranks.

    Args:
        split: Annotations of the evaluation split.
    """

    def __init__(self, split: PanopticSplit) -> None:
        self._split = split
        self._largest_category = max((*split.things, *split.stuff), default=0)
        self._counts: dict[int, MatchCounts] = {}

    def add(self, image_id: int, segmentation: PanopticSegmentation) -> None:
        """Compare the segmentation of one image with its annotation.

        Raises:
            DataError: The image's panoptic map is missing or damaged, or its segments differ from those in the
                annotation.
        """
        index = self._split.images.position(image_id)
        rows = self._split.table.rows(index)
        table = self._split.table
        segment_map = self._split.segment_map(index)
        try:
            truth = SegmentedImage.from_map(segment_map, table.ids[rows], table.labels[rows], table.is_crowd[rows])
        except ValueError as error:
            raise DataError(
                f"panoptic annotation of image {image_id}: {error}", hint="replace the map or the annotation file"
            ) from error
        predicted = SegmentedImage.from_map(
            segmentation.ids,
            np.array([segment["id"] for segment in segmentation.segments], np.int64),
            np.array([segment["category_id"] for segment in segmentation.segments], np.int64),
        )
        self._counts[image_id] = match_segments(truth, predicted, self._largest_category)

    def evaluate(self, collectives: Collectives) -> PanopticQuality:
        """Return the quality over all images of all ranks, each counted once, and reset the evaluator.

        Raises:
            TrainingError: The ranks did not predict every image of the split.
        """
        by_image: dict[int, MatchCounts] = {}
        for counts in collectives.gather(self._counts):
            by_image = counts | by_image
        self._counts = {}
        ids = sorted(by_image)
        require_every_image(np.array(ids, np.int64), self._split.images.ids)
        # The sums use the order of image ids, so they are the same for any number of ranks.
        total = MatchCounts(
            iou=np.sum([by_image[image_id].iou for image_id in ids], axis=0),
            tp=np.sum([by_image[image_id].tp for image_id in ids], axis=0),
            fp=np.sum([by_image[image_id].fp for image_id in ids], axis=0),
            fn=np.sum([by_image[image_id].fn for image_id in ids], axis=0),
        )
        return panoptic_quality(total, self._split.things, self._split.stuff)


def _require_finite(detections: CollectedDetections) -> None:
    finite = np.isfinite(detections.scores) & np.isfinite(detections.boxes).all(axis=1)
    if not finite.all():
        ids = np.unique(detections.owners[~finite])
        raise TrainingError(
            f"predictions on {len(ids)} images are not finite: image ids {first_few(ids)}",
            failure_class="non_finite_prediction",
            hint="lower the learning rate, or use a precision with a larger range",
        )


def _as_annotations(detections: CollectedDetections, kind: OverlapKind) -> list[dict[str, Any]]:
    columns = (detections.owners.tolist(), detections.labels.tolist(), detections.scores.tolist())
    common = [
        {"id": number, "image_id": image_id, "category_id": label, "score": score, "iscrowd": 0}
        for number, (image_id, label, score) in enumerate(zip(*columns, strict=True), start=1)
    ]
    if kind == "segm":
        codes = list(detections.masks or ())
        areas = coco_mask.area(codes).tolist() if codes else []
        return [
            row | {"segmentation": code, "area": area} for row, code, area in zip(common, codes, areas, strict=True)
        ]
    sizes = detections.boxes[:, 2:] - detections.boxes[:, :2]
    boxes = np.concatenate([detections.boxes[:, :2], sizes], axis=1).tolist()
    return [row | {"bbox": box, "area": box[2] * box[3]} for row, box in zip(common, boxes, strict=True)]
