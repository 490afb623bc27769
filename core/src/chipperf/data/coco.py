"""COCO layout: images in ``train2017/`` and ``val2017/``, their annotations in ``annotations/``.

Annotations are packed into a few flat arrays when they are read. The index of pycocotools keeps a dictionary per
annotation. For the 860 000 annotations of the training split it takes gigabytes, and every forked loader process copies
them page by page, because reference counting writes to them.
"""

from __future__ import annotations

import os
import pickle
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pycocotools import mask as coco_mask

from chipperf.data.coco_annotations import COCO_LAYOUT_HINT, AnnotationFile
from chipperf.data.dataset_check import ImageListing, check_images, error, first_few, raise_first, warning
from chipperf.data.dataset_identity import DatasetIdentity, ReferenceDataset, identify_directory
from chipperf.data.decode import decode_rgb, read_file
from chipperf.data.imagefolder import PackedBytes, files_below, require_directory
from chipperf.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from chipperf.data.dataset_check import CheckReport, DatasetFinding

TRAIN_SPLIT = "train2017"
EVAL_SPLIT = "val2017"

MAX_INSTANCE_CATEGORY = 90
MAX_PANOPTIC_CATEGORY = 200
"""Largest category ids of COCO: things, and things with stuff. Models have one output per id, starting at 0."""

SAMPLE_TARGET_KEY = "target_bbox_map"
"""Manifest key of a sample dataset: target bounding box mAP, as a fraction."""

TargetKind = Literal["boxes", "masks", "panoptic"]
"""What a model learns: boxes of things, boxes and masks of things, or segments of things and stuff."""

_MIN_POLYGON_NUMBERS = 6


@dataclass(frozen=True, slots=True)
class ImageTable:
    """The images of a split, sorted by id; ``sizes`` of shape ``(N, 2)`` are height and width as annotated."""

    directory: Path
    ids: NDArray[np.int64]
    sizes: NDArray[np.int64]
    names: PackedBytes

    def __len__(self) -> int:
        return len(self.ids)

    def path(self, index: int) -> str:
        """Return the path of an image."""
        return os.path.join(self.directory, os.fsdecode(self.names[index]))

    def position(self, image_id: int) -> int:
        """Return the index of the image with an id; raises :class:`DataError` if there is none."""
        index = int(np.searchsorted(self.ids, image_id))
        if index == len(self.ids) or self.ids[index] != image_id:
            raise DataError(f"{self.directory}: no image has the id {image_id}")
        return index


@dataclass(frozen=True, slots=True)
class Objects:
    """The objects of one image.

    Attributes:
        boxes: Left, top, right and bottom in pixels, float32 of shape ``(n, 4)``.
        labels: Category ids, int64 of shape ``(n,)``.
        areas: Areas of the segments in square pixels, float32 of shape ``(n,)``.
        masks: 1 on an object's pixels, uint8 of shape ``(n, height, width)``; ``None`` if not requested.
    """

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    areas: NDArray[np.float32]
    masks: NDArray[np.uint8] | None

    def select(self, chosen: NDArray[Any]) -> Objects:
        """Return the objects that a boolean mask or an array of indices selects."""
        masks = None if self.masks is None else self.masks[chosen]
        return Objects(self.boxes[chosen], self.labels[chosen], self.areas[chosen], masks)


@dataclass(frozen=True, slots=True)
class ObjectTable:
    """Annotated objects or segments of all images of a split, grouped by image.

    Attributes:
        ends: Number of objects in all images up to and including each one, shape ``(N,)``.
        ids: Ids of annotations, unique in the file, or of segments, unique in their image; shape ``(A,)``.
        labels: Category ids, shape ``(A,)``.
        boxes: Left, top, width and height in pixels, shape ``(A, 4)``.
        areas: Areas in square pixels, shape ``(A,)``.
        is_crowd: Whether the region is a crowd (several objects as one region), shape ``(A,)``.
    """

    ends: NDArray[np.int64]
    ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    boxes: NDArray[np.float64]
    areas: NDArray[np.float64]
    is_crowd: NDArray[np.bool_]

    def rows(self, index: int) -> slice:
        """Return the rows of an image's objects."""
        return slice(int(self.ends[index - 1]) if index else 0, int(self.ends[index]))

    def objects(self, index: int) -> tuple[Objects, NDArray[np.int64]]:
        """Return the objects of an image except crowds, without masks, and their row numbers."""
        rows = self.rows(index)
        chosen = np.arange(rows.start, rows.stop)[~self.is_crowd[rows]]
        left_top, size = self.boxes[chosen, :2], self.boxes[chosen, 2:]
        boxes = np.concatenate([left_top, left_top + size], axis=1).astype(np.float32)
        return Objects(boxes, self.labels[chosen], self.areas[chosen].astype(np.float32), None), chosen


@dataclass(frozen=True, slots=True)
class InstanceSplit:
    """Images and their things.

    Attributes:
        things: Ids of the categories, ascending.
        segmentations: One pickle per annotation; ``None`` if masks are not needed.
    """

    images: ImageTable
    table: ObjectTable
    things: tuple[int, ...]
    segmentations: PackedBytes | None

    def objects(self, index: int, *, masks: bool) -> Objects:
        """Return the objects of an image except crowds, which do not separate their objects.

        Raises:
            DataError: A segmentation cannot be drawn.
        """
        found, rows = self.table.objects(index)
        if not masks:
            return found
        if self.segmentations is None:
            raise TypeError("the split was read without segmentations")
        height, width = self.images.sizes[index].tolist()
        drawn = np.zeros((len(rows), height, width), np.uint8)
        for number, row in enumerate(rows.tolist()):
            # Unpickling is safe: this program pickled the data itself.
            segmentation = pickle.loads(self.segmentations[row])
            try:
                drawn[number] = draw_segmentation(segmentation, height, width)
            except (ValueError, TypeError, KeyError) as error:
                raise DataError(
                    f"annotation {self.table.ids[row]} of {self.images.path(index)}: "
                    f"its segmentation cannot be drawn: {error}",
                    hint="put it right in the annotation file",
                ) from error
        return replace(found, masks=drawn)


@dataclass(frozen=True, slots=True)
class PanopticSplit:
    """Images and their segments of things and stuff.

    Attributes:
        things: Category ids of things, ascending.
        stuff: Category ids of stuff, ascending.
        maps: Directory of the PNG files; the color of a pixel is the id of its segment.
        map_names: File name of each image's PNG file.
    """

    images: ImageTable
    table: ObjectTable
    things: tuple[int, ...]
    stuff: tuple[int, ...]
    maps: Path
    map_names: PackedBytes

    def segment_map(self, index: int) -> NDArray[np.int32]:
        """Return the segment id of each pixel, shape ``(height, width)``; 0 is no segment.

        Raises:
            DataError: The file is missing, cannot be decoded, or differs in size from the image.
        """
        path = os.path.join(self.maps, os.fsdecode(self.map_names[index]))
        segments = decode_segment_map(read_file(path), path)
        require_size(segments.shape, self.images.sizes[index], path)
        return segments

    def objects(self, index: int, *, masks: bool) -> Objects:
        """Return the segments of an image except crowds; the PNG file is read only for masks."""
        found, rows = self.table.objects(index)
        if not masks:
            return found
        drawn = self.segment_map(index) == self.table.ids[rows, None, None]
        return replace(found, masks=drawn.astype(np.uint8))


CocoSplit = InstanceSplit | PanopticSplit


@dataclass(frozen=True, slots=True)
class CocoData:
    """A dataset directory in COCO layout."""

    root: Path
    train: CocoSplit
    val: CocoSplit


def scan_coco(root: str | os.PathLike[str], kind: TargetKind = "boxes") -> CocoData:
    """Read the annotations of both splits that a model needs, and check that the files they name exist.

    Raises:
        DataError: A directory or file is missing, or an annotation file is damaged or contradicts itself.
    """
    root = require_directory(root, COCO_LAYOUT_HINT)
    return CocoData(root, scan_coco_split(root, TRAIN_SPLIT, kind), scan_coco_split(root, EVAL_SPLIT, kind))


def scan_coco_split(root: Path, split: str, kind: TargetKind) -> CocoSplit:
    """Read the annotations of one split like :func:`scan_coco`."""
    found: CocoSplit
    if kind == "panoptic":
        found, faults = read_panoptic(root, split)
    else:
        found, faults = read_instances(root, split, masks=kind == "masks")
    raise_first(faults, "`perf data check detr DIR` lists every problem")
    return found


def check_coco(
    root: str | os.PathLike[str],
    expected: ReferenceDataset | None = None,
    *,
    full: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> CheckReport:
    """Check annotations, panoptic ones if they exist, counts and files of a directory, see :func:`.check_images`."""
    return check_images(root, _list_images, coco_files, expected, full=full, progress=progress)


def _list_images(root: Path) -> ImageListing:
    (train, findings), (val, others) = (_check_split(root, name) for name in (TRAIN_SPLIT, EVAL_SPLIT))
    tables = [split.images for split in (train, val) if split is not None]
    paths = (images.path(index) for images in tables for index in range(len(images)))
    return ImageListing(
        train_samples=0 if train is None else len(train.images),
        eval_samples=0 if val is None else len(val.images),
        classes=0 if train is None else len(train.things),
        images=[path for path in paths if os.path.exists(path)],
        findings=findings + others,
    )


def _check_split(root: Path, name: str) -> tuple[InstanceSplit | None, list[DatasetFinding]]:
    findings: list[DatasetFinding] = []
    instances = None
    try:
        instances, faults = read_instances(root, name, masks=False)
        findings += faults
        flat = _flat_boxes(instances)
        if len(flat):
            what = f"boxes have no area within their image and are not trained: {first_few(flat)}"
            findings.append(warning("degenerate-box", f"{root / instances_name(name)}: {len(flat)} {what}"))
    except DataError as problem:
        findings.append(error("annotations", problem.message))
    if (root / panoptic_name(name)).exists():
        try:
            findings += read_panoptic(root, name)[1]
        except DataError as problem:
            findings.append(error("annotations", problem.message))
    return instances, findings


def _flat_boxes(split: InstanceSplit) -> NDArray[np.int64]:
    """Return the ids of the annotations whose box has no area within its image."""
    table = split.table
    height_width = np.repeat(split.images.sizes, np.diff(table.ends, prepend=0), axis=0)
    left_top = np.maximum(table.boxes[:, :2], 0)
    right_bottom = np.minimum(table.boxes[:, :2] + table.boxes[:, 2:], height_width[:, ::-1])
    return table.ids[(right_bottom <= left_top).any(axis=1)]


def identify_coco(data: CocoData, reference: ReferenceDataset) -> DatasetIdentity:
    """Identify a dataset directory by the paths and sizes of its files, see :func:`.identify_directory`."""
    return identify_directory(
        data.root,
        coco_files(data.root),
        train_samples=len(data.train.images),
        eval_samples=len(data.val.images),
        classes=len(data.train.things),
        reference=reference,
        target_key=SAMPLE_TARGET_KEY,
    )


def coco_files(root: Path) -> Iterator[str]:
    """Yield the paths, relative to ``root``, of images, annotation files and panoptic maps of both splits, sorted."""
    for split in (TRAIN_SPLIT, EVAL_SPLIT):
        for name in (instances_name(split), panoptic_name(split)):
            if (root / name).exists():
                yield name
        for directory in (split, f"panoptic_{split}"):
            if directory == split or (root / directory).exists():
                yield from (f"{directory}/{path}" for path in files_below(root / directory))


def instances_name(split: str) -> str:
    """Return the path of a split's instance annotations relative to the dataset directory."""
    return f"annotations/instances_{split}.json"


def panoptic_name(split: str) -> str:
    """Return the path of a split's panoptic annotations relative to the dataset directory."""
    return f"annotations/panoptic_{split}.json"


def read_instances(root: Path, split: str, *, masks: bool) -> tuple[InstanceSplit, list[DatasetFinding]]:
    """Read the instance annotations of a split, with segmentations if wanted, and return them with their faults.

    If there are faults, the annotations may only be used to search for more faults.

    Raises:
        DataError: The file is missing or damaged, or an entry lacks a key or has a value of another type.
    """
    file = AnnotationFile(root / instances_name(split))
    images = _image_table(file, root / split)
    image_ids = file.numbers(file.annotations, "image_id")
    table = _object_columns(file, file.annotations)
    categories = file.numbers(file.categories, "id")
    file.report_repeated("repeated-image", "image ids", images.ids)
    file.report_repeated("repeated-annotation", "annotation ids", table.ids)
    # pycocotools treats a match with annotation 0 as no match.
    file.report("annotation-id", "annotation ids are below 1", table.ids[table.ids < 1])
    file.report_categories(categories, table.labels, table.ids, MAX_INSTANCE_CATEGORY)
    what = "annotations name an image that is not listed"
    file.report_unlisted("image-unknown", what, table.ids, image_ids, images.ids)
    file.report_absent("image-absent", "images", file.images, root / split)
    order, ends = _order_by_image(image_ids, images)
    segmentations = None
    if masks:
        pickles = (pickle.dumps(file.annotations[row].get("segmentation")) for row in order.tolist())
        segmentations = PackedBytes(pickles)
    things = tuple(sorted(set(categories.tolist())))
    return InstanceSplit(images, _reordered(table, order, ends), things, segmentations), file.faults


def read_panoptic(root: Path, split: str) -> tuple[PanopticSplit, list[DatasetFinding]]:
    """Read the panoptic annotations of a split like :func:`read_instances`."""
    file = AnnotationFile(root / panoptic_name(split))
    maps = root / f"panoptic_{split}"
    images = _image_table(file, root / split)
    annotated = file.numbers(file.annotations, "image_id")
    map_names = file.values(file.annotations, "file_name", str)
    segments = file.values(file.annotations, "segments_info", list)
    image_ids = np.repeat(annotated, [len(segment) for segment in segments])
    table = _object_columns(file, list(chain.from_iterable(segments)))
    categories = file.numbers(file.categories, "id")
    is_thing = file.numbers(file.categories, "isthing") != 0
    file.report_repeated("repeated-image", "image ids", images.ids)
    file.report_repeated("repeated-annotation", "image ids of annotations", annotated)
    file.report_categories(categories, table.labels, table.ids, MAX_PANOPTIC_CATEGORY)
    what = "annotations name images that are not listed"
    file.report("image-unknown", what, np.setdiff1d(annotated, images.ids))
    file.report("no-segments", "images have no annotation", np.setdiff1d(images.ids, annotated))
    file.report_absent("image-absent", "images", file.images, root / split)
    file.report_absent("map-absent", "panoptic maps", file.annotations, maps)
    order, ends = _order_by_image(image_ids, images)
    map_order, _ = _order_by_image(annotated, images)
    return PanopticSplit(
        images,
        _reordered(table, order, ends),
        tuple(sorted(categories[is_thing].tolist())),
        tuple(sorted(categories[~is_thing].tolist())),
        maps,
        PackedBytes(os.fsencode(map_names[row]) for row in map_order.tolist()),
    ), file.faults


def _image_table(file: AnnotationFile, directory: Path) -> ImageTable:
    ids = file.numbers(file.images, "id")
    sizes = np.stack([file.numbers(file.images, key) for key in ("height", "width")], axis=1)
    names = file.values(file.images, "file_name", str)
    order = np.argsort(ids, kind="stable")
    packed = PackedBytes(os.fsencode(names[row]) for row in order.tolist())
    return ImageTable(directory, ids[order], sizes[order], packed)


def _object_columns(file: AnnotationFile, entries: list[Any]) -> ObjectTable:
    """Return the objects in file order, before they are assigned to images."""
    return ObjectTable(
        ends=np.zeros(0, np.int64),
        ids=file.numbers(entries, "id"),
        labels=file.numbers(entries, "category_id"),
        boxes=file.numbers(entries, "bbox", np.float64, (4,)),
        areas=file.numbers(entries, "area", np.float64),
        is_crowd=file.numbers(entries, "iscrowd", default=0) != 0,
    )


def _reordered(table: ObjectTable, order: NDArray[np.int64], ends: NDArray[np.int64]) -> ObjectTable:
    return ObjectTable(
        ends, table.ids[order], table.labels[order], table.boxes[order], table.areas[order], table.is_crowd[order]
    )


def _order_by_image(image_ids: NDArray[np.int64], images: ImageTable) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows of known images sorted by image, and the cumulative number of rows after each image."""
    order = np.argsort(image_ids, kind="stable")
    order = order[np.isin(image_ids[order], images.ids)]
    return order, np.searchsorted(image_ids[order], images.ids, side="right")


def draw_segmentation(segmentation: Any, height: int, width: int) -> NDArray[np.uint8]:
    """Return a mask of shape ``(height, width)``: 1 on the pixels of a segmentation, 0 elsewhere.

    COCO knows polygons, run-length codes as lists of counts, and compressed run-length codes.

    Raises:
        ValueError: The segmentation has another form, or belongs to an image of another size.
    """
    if isinstance(segmentation, list):
        if not segmentation or any(len(polygon) < _MIN_POLYGON_NUMBERS for polygon in segmentation):
            raise ValueError("a polygon needs three points")
        code = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    else:
        if not isinstance(segmentation, dict) or list(segmentation["size"]) != [height, width]:
            raise ValueError(f"it is not a polygon or run-length code of {height}x{width} pixels")
        is_list = isinstance(segmentation["counts"], list)
        if is_list and sum(segmentation["counts"]) != height * width:
            raise ValueError(f"its counts do not add up to {height}x{width} pixels")
        code = coco_mask.frPyObjects(segmentation, height, width) if is_list else segmentation
    drawn: NDArray[np.uint8] = coco_mask.decode(code)
    return drawn


def decode_segment_map(data: bytes, name: str) -> NDArray[np.int32]:
    """Return the segment ids of a panoptic PNG file: red + 256 green + 65536 blue, shape ``(height, width)``."""
    red, green, blue = np.moveaxis(decode_rgb(data, name).astype(np.int32), 2, 0)
    segments: NDArray[np.int32] = red + (green << 8) + (blue << 16)
    return segments


def require_size(found: Sequence[int], annotated: NDArray[np.int64], path: str) -> None:
    """Raise :class:`DataError` if a file differs in size from its annotation: boxes and masks would be misplaced."""
    height, width = annotated.tolist()
    if tuple(found[:2]) != (height, width):
        raise DataError(
            f"{path}: is {found[1]}x{found[0]} pixels, its annotation file says {width}x{height}",
            hint="images and annotations belong to different datasets; replace one of them",
        )
