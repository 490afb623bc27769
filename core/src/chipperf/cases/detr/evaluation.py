"""Evaluation of detections and panoptic segmentations on a whole split, with every image counted once.

Each rank collects its predictions in compact arrays. After the last batch the ranks exchange them, and keep one
prediction per image. Then the main rank evaluates all of them with pycocotools.
"""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from chipperf.cases.detr.panoptic_quality import SegmentedImage, match_segments, panoptic_quality
from chipperf.data.dataset_check import first_few
from chipperf.errors import TrainingError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from chipperf.cases.detr.panoptic_quality import MatchCounts, PanopticQuality
    from chipperf.cases.detr.postprocess import Detections
    from chipperf.data.coco import InstanceSplit, PanopticSplit
    from chipperf.run.collectives import Collectives

RunLengthCode = dict[str, Any]
"""COCO's compressed run-length code of a mask: ``size`` and ``counts``."""

AveragePrecision = dict[str, float | None]
"""COCO's results by name, as fractions, in the order of :data:`COCO_RESULTS`; ``None`` if there is no such object."""

COCO_RESULTS = (
    *("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"),
    *("ar_1", "ar_10", "ar_100", "ar_small", "ar_medium", "ar_large"),
)
"""``ap`` is mAP: the mean over IoU thresholds from 0.50 to 0.95 and over categories. ``ap50`` and ``ap75`` use one
threshold. ``ar_*`` is the recall with that number of detections per image. Small objects have up to 32² pixels, medium
ones up to 96²."""

DETECTION = np.dtype([("image", np.int64), ("label", np.int64), ("score", np.float32), ("box", np.float32, 4)])
"""One detection: ids of image and category, score, and left, top, right and bottom in pixels of the image file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionQuality:
    """Quality of boxes and masks on a number of images; ``segm`` is ``None`` if there are no masks."""

    bbox: AveragePrecision
    segm: AveragePrecision | None
    images: int


class CollectedDetections(NamedTuple):
    """Detections on some images: rows of :data:`DETECTION`, at least one per image, and their masks if predicted."""

    rows: NDArray[np.void]
    masks: list[RunLengthCode] | None


def collect(
    image_ids: Sequence[int], detections: Detections, masks: Sequence[Sequence[RunLengthCode]] | None = None
) -> CollectedDetections:
    """Return the detections of a batch of images, with their masks if these are predicted."""
    queries = detections.labels.shape[1]
    rows = np.empty(len(image_ids) * queries, DETECTION)
    rows["image"] = np.repeat(np.array(image_ids, np.int64), queries)
    rows["label"] = detections.labels.flatten().cpu().numpy()
    rows["score"] = detections.scores.float().flatten().cpu().numpy()
    rows["box"] = detections.boxes.float().flatten(0, 1).cpu().numpy()
    return CollectedDetections(rows, None if masks is None else [code for codes in masks for code in codes])


def merge(parts: Sequence[CollectedDetections]) -> CollectedDetections:
    """Merge parts in ascending order of image ids; each image comes from the first part that has it."""
    rows = np.concatenate([np.empty(0, DETECTION), *(part.rows for part in parts)])
    part_of_row = np.repeat(np.arange(len(parts)), np.array([len(part.rows) for part in parts], np.int64))
    _, first_rows, images = np.unique(rows["image"], return_index=True, return_inverse=True)
    chosen = np.flatnonzero(part_of_row == part_of_row[first_rows][images])
    # A stable sort keeps the order of equal scores, so the result does not depend on which rank predicted an image.
    order = chosen[np.argsort(images[chosen], kind="stable")]
    masks = [mask for part in parts for mask in part.masks or ()]
    return CollectedDetections(rows[order], [masks[row] for row in order.tolist()] if masks else None)


class DetectionEvaluator:
    """Evaluates detections on the images of a split; masks only if it was read with segmentations."""

    def __init__(self, split: InstanceSplit) -> None:
        self._split = split
        self._truth: COCO | None = None

    def evaluate(
        self, parts: Sequence[CollectedDetections], collectives: Collectives, *, is_main: bool
    ) -> DetectionQuality:
        """Return the quality of all ranks' batches; the main rank evaluates, and every rank gets the same result.

        Raises:
            TrainingError: The ranks did not predict every image of the split, or a prediction is not finite.
            DataError: A segmentation cannot be drawn.
        """
        merged = merge(collectives.gather(merge(parts)))
        require_every_image(np.unique(merged.rows["image"]), self._split.images.ids)
        _require_finite(merged.rows)
        [quality, *_] = collectives.gather(self._evaluate(merged) if is_main else None)
        if quality is None:
            raise RuntimeError("no rank evaluated: rank 0 has to be the main rank")
        return quality

    def _evaluate(self, merged: CollectedDetections) -> DetectionQuality:
        if self._truth is None:
            self._truth = coco_index(coco_document(self._split))
        return DetectionQuality(
            bbox=average_precision(self._truth, merged, "bbox"),
            segm=None if merged.masks is None else average_precision(self._truth, merged, "segm"),
            images=len(self._split.images),
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
        found = sorted(self._dts[imgId, catId], key=lambda detection: -detection["score"])[:maxDet]
        if not found:
            return None
        thresholds = len(self.params.iouThrs)
        is_outside = [not aRng[0] <= detection["area"] <= aRng[1] for detection in found]
        return {
            "dtScores": [detection["score"] for detection in found],
            "dtMatches": np.zeros((thresholds, len(found))),
            "dtIgnore": np.array([is_outside] * thresholds),
            "gtIgnore": np.zeros(0),
        }


def average_precision(truth: COCO, detections: CollectedDetections, kind: Literal["bbox", "segm"]) -> AveragePrecision:
    """Return COCO's results for detections on the images of a split, computed by pycocotools."""
    content = {key: truth.dataset[key] for key in ("images", "categories")}
    predicted = coco_index(content | {"annotations": _as_annotations(detections, kind)})
    evaluation = QuickCocoEvaluation(truth, predicted, kind)
    with redirect_stdout(io.StringIO()):
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    # pycocotools returns -1 if there is no object to find.
    figures = (float(value) if value >= 0 else None for value in evaluation.stats)
    return dict(zip(COCO_RESULTS, figures, strict=True))


def coco_document(split: InstanceSplit) -> dict[str, Any]:
    """Return what was read of an annotation file as such a file has it, for pycocotools."""
    table, sizes = split.table, split.images.sizes.tolist()
    ids = split.images.ids.tolist()
    columns = (table.ids, table.labels, table.boxes, table.areas, table.is_crowd.astype(int))
    owners = table.owners().tolist()
    annotations: list[dict[str, Any]] = [
        {"id": number, "image_id": ids[index], "category_id": label, "bbox": box, "area": area, "iscrowd": crowd}
        for index, number, label, box, area, crowd in zip(owners, *(c.tolist() for c in columns), strict=True)
    ]
    if split.segmentations is not None:
        for row, index in enumerate(owners):
            annotations[row]["segmentation"] = split.mask_code(index, row)
    return {
        "images": [{"id": n, "height": size[0], "width": size[1]} for n, size in zip(ids, sizes, strict=True)],
        "categories": [{"id": number, "name": name} for number, name in split.things.items()],
        "annotations": annotations,
    }


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
    """Evaluates panoptic segmentations of a split; each rank compares its own images, so they stay there."""

    def __init__(self, split: PanopticSplit) -> None:
        self.split = split
        self._largest_category = max((*split.things, *split.stuff), default=0)
        self._counts: dict[int, MatchCounts] = {}

    def add(self, image_id: int, predicted: SegmentedImage) -> None:
        """Compare the segments of one image with its annotation.

        Raises:
            DataError: The image's panoptic map is missing or damaged, or contradicts the annotation.
        """
        index, table = self.split.images.position(image_id), self.split.table
        rows = table.rows(index)
        segment_map = self.split.segment_map(index)
        truth = SegmentedImage.from_map(segment_map, table.ids[rows], table.labels[rows], table.is_crowd[rows])
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
        require_every_image(np.array(ids, np.int64), self.split.images.ids)
        # The sums use the order of image ids, so they are the same for any number of ranks.
        total = np.sum([by_image[image_id] for image_id in ids], axis=0)
        return panoptic_quality(total, self.split.things, self.split.stuff)


def _require_finite(rows: NDArray[np.void]) -> None:
    finite = np.isfinite(rows["score"]) & np.isfinite(rows["box"]).all(axis=1)
    if not finite.all():
        ids = np.unique(rows["image"][~finite])
        raise TrainingError(
            f"predictions on {len(ids)} images are not finite: image ids {first_few(ids)}",
            failure_class="non_finite_prediction",
            hint="lower the learning rate, or use a precision with a larger range",
        )


def _as_annotations(detections: CollectedDetections, kind: Literal["bbox", "segm"]) -> list[dict[str, Any]]:
    rows = detections.rows
    columns = (rows["image"].tolist(), rows["label"].tolist(), rows["score"].tolist())
    common = [
        {"id": number, "image_id": image_id, "category_id": label, "score": score, "iscrowd": 0}
        for number, (image_id, label, score) in enumerate(zip(*columns, strict=True), start=1)
    ]
    if kind == "segm":
        codes = detections.masks or []
        # For more than 255 codes at once, pycocotools overflows a number of eight bits.
        areas = [int(coco_mask.area(code)) for code in codes]
        return [
            row | {"segmentation": code, "area": area} for row, code, area in zip(common, codes, areas, strict=True)
        ]
    boxes = rows["box"].copy()
    boxes[:, 2:] -= boxes[:, :2]
    return [row | {"bbox": box, "area": box[2] * box[3]} for row, box in zip(common, boxes.tolist(), strict=True)]
