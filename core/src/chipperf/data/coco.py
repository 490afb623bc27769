"""COCO layout: images in ``train2017/`` and ``val2017/``, their annotations in ``annotations/``.

Annotations are packed into a few flat arrays when they are read. The index of pycocotools keeps a dictionary per
annotation. For the 860 000 annotations of the training split it takes gigabytes, and every forked loader process copies
them page by page, because reference counting writes to them.
"""

from __future__ import annotations

import os
import pickle
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pycocotools import mask as coco_mask

from chipperf.data.coco_annotations import (
    COCO_LAYOUT_HINT,
    AnnotationFile,
    boxes,
    flags,
    numbers,
    of_type,
    segmentations,
    texts,
    whole_numbers,
)
from chipperf.data.dataset_check import CheckReport, ImageFile, check_images, error, first_few, raise_first, warning
from chipperf.data.dataset_files import files_below, read_file, require_directory
from chipperf.data.dataset_identity import DatasetIdentity, ReferenceDataset, identify_directory
from chipperf.data.decode import decode_rgb, require_size
from chipperf.data.imagefolder import PackedBytes
from chipperf.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from chipperf.data.dataset_check import DatasetFinding

TRAIN_SPLIT = "train2017"
EVAL_SPLIT = "val2017"

MAX_INSTANCE_CATEGORY = 90
MAX_PANOPTIC_CATEGORY = 200
"""Largest category ids of COCO: things, and things with stuff. Models have one output per id, starting at 0."""

TargetKind = Literal["boxes", "masks", "panoptic"]
"""What a model learns: boxes of things, boxes and masks of things, or segments of things and stuff."""

SAMPLE_TARGET_KEYS: dict[TargetKind, str] = {
    "boxes": "target_bbox_map",
    "masks": "target_segm_map",
    "panoptic": "target_pq",
}
"""Manifest key of a sample dataset's target, as a fraction: mAP of boxes, mAP of masks, or panoptic quality."""

_CHECK_HINT = "`perf data check detr DIR` lists every problem"
_MIN_POLYGON_NUMBERS = 6
_LARGEST_AREA = 1e10
"""Area in square pixels above which pycocotools ignores an object."""

_LARGEST_CODED_PX = 2**31
_FARTHEST = 10
"""Distance of a polygon from its image, in the longer side of the image, that can be drawn."""

_UNLIKELY_SHARE = 0.02
"""Share of annotations that may contradict themselves or repeat another: COCO has a few of these."""


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

    def size(self, index: int) -> tuple[int, int]:
        """Return height and width of an image as annotated."""
        height, width = self.sizes[index].tolist()
        return height, width

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
        masks: 1 on an object's pixels, uint8 of shape ``(n, height, width)``; ``None`` if not requested.
    """

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    masks: NDArray[np.uint8] | None

    def select(self, chosen: NDArray[Any]) -> Objects:
        """Return the objects that a boolean mask or an array of indices selects."""
        masks = None if self.masks is None else self.masks[chosen]
        return Objects(self.boxes[chosen], self.labels[chosen], masks)


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

    def owners(self) -> NDArray[np.int64]:
        """Return the index of each row's image."""
        return np.repeat(np.arange(len(self.ends)), np.diff(self.ends, prepend=0))

    def objects(self, index: int) -> tuple[Objects, NDArray[np.int64]]:
        """Return the objects of an image except crowds, without masks, and their row numbers."""
        rows = self.rows(index)
        chosen = np.arange(rows.start, rows.stop)[~self.is_crowd[rows]]
        left_top, size = self.boxes[chosen, :2], self.boxes[chosen, 2:]
        boxes = np.concatenate([left_top, left_top + size], axis=1).astype(np.float32)
        return Objects(boxes, self.labels[chosen], None), chosen


@dataclass(frozen=True, slots=True)
class InstanceSplit:
    """Images and their things.

    Attributes:
        path: The annotation file.
        things: Names of the categories by id, ascending; a name is empty if the file has none.
        segmentations: One pickle per annotation; ``None`` if masks are not needed.
    """

    path: Path
    images: ImageTable
    table: ObjectTable
    things: dict[int, str]
    segmentations: PackedBytes | None

    def objects(self, index: int, *, masks: bool) -> Objects:
        """Return the objects of an image except crowds, which do not separate their objects.

        Raises:
            DataError: A segmentation cannot be drawn.
        """
        found, rows = self.table.objects(index)
        if not masks:
            return found
        drawn = np.zeros((len(rows), *self.images.size(index)), np.uint8)
        for number, row in enumerate(rows.tolist()):
            drawn[number] = coco_mask.decode(self.mask_code(index, row))
        return replace(found, masks=drawn)

    def mask_code(self, index: int, row: int) -> dict[str, Any]:
        """Return the compressed run-length code of an annotation in a row of an image.

        Raises:
            DataError: The segmentation cannot be drawn.
        """
        if self.segmentations is None:
            raise TypeError("the split was read without segmentations")
        try:
            # Unpickling is safe: this program pickled the data itself.
            return encode_segmentation(pickle.loads(self.segmentations[row]), *self.images.size(index))
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(
                f"annotation {self.table.ids[row]} of {self.images.path(index)}: "
                f"its segmentation cannot be drawn: {error}",
                hint="correct it in the annotation file",
            ) from error


@dataclass(frozen=True, slots=True)
class PanopticSplit:
    """Images and their segments of things and stuff.

    Attributes:
        path: The annotation file.
        things: Names of the categories of things by id, ascending; a name is empty if the file has none.
        stuff: Names of the categories of stuff.
        maps: Directory of the PNG files; the color of a pixel is the id of its segment.
        map_names: File name of each image's PNG file.
    """

    path: Path
    images: ImageTable
    table: ObjectTable
    things: dict[int, str]
    stuff: dict[int, str]
    maps: Path
    map_names: PackedBytes

    def map_path(self, index: int) -> str:
        """Return the path of an image's PNG file."""
        return os.path.join(self.maps, os.fsdecode(self.map_names[index]))

    def segment_map(self, index: int) -> NDArray[np.int32]:
        """Return the segment id of each pixel, shape ``(height, width)``; 0 is no segment.

        Raises:
            DataError: The file is missing, cannot be decoded, or contradicts the annotation.
        """
        path = self.map_path(index)
        return self.segments(index, decode_rgb(read_file(path), path))

    def segments(self, index: int, pixels: NDArray[np.uint8]) -> NDArray[np.int32]:
        """Return the segment ids in the pixels of an image's PNG file.

        Raises:
            DataError: They differ in size from the image, or in their segments from the annotation.
        """
        path, ids = self.map_path(index), self.table.ids[self.table.rows(index)]
        require_size(pixels.shape, self.images.size(index), path)
        segments = decode_segment_ids(pixels)
        present = np.unique(segments)
        different = np.setxor1d(present[present != 0], ids)
        if len(different) or len(np.unique(ids)) < len(ids):
            what = f"differ in the segments {first_few(different)}" if len(different) else "repeat a segment"
            raise DataError(
                f"{path}: the map and the segments of image {self.images.ids[index]} in {self.path} {what}",
                hint="replace the map or the annotation file",
            )
        return segments

    def objects(self, index: int, *, masks: bool) -> Objects:
        """Return the segments of an image except crowds; the PNG file is read only for masks.

        With masks, the boxes are those of the segments' pixels. In two details the reference differs: it learns crowds
        too, and its boxes end at the centers of the last row and column of pixels, not at their edges.
        """
        found, rows = self.table.objects(index)
        if not masks:
            return found
        drawn = self.segment_map(index) == self.table.ids[rows, None, None]
        columns, lines = drawn.any(axis=1), drawn.any(axis=2)
        ends = [drawn.shape[2] - columns[:, ::-1].argmax(axis=1), drawn.shape[1] - lines[:, ::-1].argmax(axis=1)]
        corners = np.stack([columns.argmax(axis=1), lines.argmax(axis=1), *ends], axis=1)
        return replace(found, boxes=corners.astype(np.float32), masks=drawn.astype(np.uint8))


CocoSplit = InstanceSplit | PanopticSplit


@dataclass(frozen=True, slots=True)
class CocoData:
    """A dataset directory in COCO layout; ``truth`` has the objects against which boxes and masks are evaluated."""

    root: Path
    kind: TargetKind
    train: CocoSplit
    val: CocoSplit
    truth: InstanceSplit


def scan_coco(root: str | os.PathLike[str], kind: TargetKind = "boxes") -> CocoData:
    """Read the annotations of both splits that a model needs, and check that the files they name exist.

    Raises:
        DataError: A directory or file is missing, or an annotation file is damaged or contradicts itself or another.
    """
    root = require_directory(root, COCO_LAYOUT_HINT)
    train, val = (scan_coco_split(root, split, kind) for split in (TRAIN_SPLIT, EVAL_SPLIT))
    truth, faults = (val, []) if isinstance(val, InstanceSplit) else read_instances(root, EVAL_SPLIT, masks=True)
    raise_first([*faults, *_compare(train, val, truth)], _CHECK_HINT)
    return CocoData(root, kind, train, val, truth)


def scan_coco_split(root: Path, split: str, kind: TargetKind) -> CocoSplit:
    """Read the annotations of one split like :func:`scan_coco`."""
    found, faults = _read_split(root, split, kind)
    raise_first(faults, _CHECK_HINT)
    return found


def _read_split(root: Path, split: str, kind: TargetKind) -> tuple[CocoSplit, list[DatasetFinding]]:
    return read_panoptic(root, split) if kind == "panoptic" else read_instances(root, split, masks=kind == "masks")


def _list_images(root: Path, full: bool, kind: TargetKind) -> tuple[CheckReport, list[ImageFile]]:
    findings: list[DatasetFinding] = []
    found: dict[TargetKind, dict[str, CocoSplit]] = {"boxes": {}, "panoptic": {}}
    for part, splits in found.items():
        for name in (TRAIN_SPLIT, EVAL_SPLIT):
            # Segments are learned without the instances of their images, and evaluated with them.
            is_needed = part == "boxes" if kind != "panoptic" else part == "panoptic" or name == EVAL_SPLIT
            file = panoptic_name(name) if part == "panoptic" else instances_name(name)
            if is_needed or (root / file).exists():
                try:
                    splits[name], faults = _read_split(root, name, "masks" if part == "boxes" and full else part)
                    findings += faults
                except DataError as problem:
                    findings.append(error("annotations", problem.message))
    files = []
    for name, split in chain(*(splits.items() for splits in found.values())):
        sizes = [split.images.size(index) for index in range(len(split.images))]
        is_evaluated = name == EVAL_SPLIT
        files += [ImageFile(split.images.path(index), size, None, is_evaluated) for index, size in enumerate(sizes)]
        if isinstance(split, InstanceSplit):
            findings += _suspicious_boxes(split)
            is_drawn = kind == "masks" or (kind == "panoptic" and split is found["boxes"].get(EVAL_SPLIT))
            findings += _undrawable(split, is_drawn) if full else ()
        elif len(split.map_names) == len(sizes):
            maps = ((split.map_path(index), size, partial(split.segments, index)) for index, size in enumerate(sizes))
            files += [ImageFile(*of_image) for of_image in maps]
    for splits in found.values():
        if len(splits) == 2 and isinstance(truth := found["boxes"].get(EVAL_SPLIT), InstanceSplit):
            findings += _compare(splits[TRAIN_SPLIT], splits[EVAL_SPLIT], truth)
    learned = found["panoptic" if kind == "panoptic" else "boxes"]
    train, val = (learned.get(name) for name in (TRAIN_SPLIT, EVAL_SPLIT))
    report = CheckReport(
        root=str(root),
        train_samples=0 if train is None else len(train.images),
        eval_samples=0 if val is None else len(val.images),
        classes=0 if train is None else len(train.things),
        findings=tuple(findings),
    )
    # Panoptic annotations list the same images again.
    return report, [file for file in dict.fromkeys(files) if os.path.lexists(file.path)]


def _compare(train: CocoSplit, val: CocoSplit, truth: InstanceSplit) -> Iterator[DatasetFinding]:
    """Yield what the splits do not agree on, and what they lack; boxes are evaluated against ``truth``."""
    if train.table.is_crowd.all():
        yield error("no-objects", f"{train.path}: there is no object to learn, at most crowds")
    if val.table.is_crowd.all():
        what = "there is no object to find, at most crowds, so the quality is not defined"
        yield warning("no-objects", f"{val.path}: {what}")
    if turned := sorted(train.things.keys() & _stuff(val) | _stuff(train).keys() & val.things):
        what = f"{len(turned)} categories are things here and stuff in {train.path}, or the other way round"
        yield error("category-kinds", f"{val.path}: {what}: {first_few(turned)}")
    known = _categories(train)
    for other in (val,) if truth is val else (val, truth):
        renamed = [
            f"{number} is {known[number]!r} and {name!r}"
            for number, name in _categories(other).items()
            if name and known.get(number) and known[number] != name
        ]
        if renamed:
            what = f"{len(renamed)} category ids have other names than in {train.path}"
            yield error("category-names", f"{other.path}: {what}: {first_few(renamed)}")
        unlearned = np.setdiff1d(other.table.labels, list(known))
        if len(unlearned):
            what = f"objects have {len(unlearned)} categories that {train.path} does not list"
            yield error("category-unlearned", f"{other.path}: {what}: {first_few(unlearned)}")
    if different := np.setxor1d(val.images.ids, truth.images.ids).tolist():
        what = f"lists other images than {truth.path}: ids {first_few(different)}"
        yield error("image-difference", f"{val.path}: {what}")


def _stuff(split: CocoSplit) -> dict[int, str]:
    return split.stuff if isinstance(split, PanopticSplit) else {}


def _categories(split: CocoSplit) -> dict[int, str]:
    return split.things | _stuff(split)


def _suspicious_boxes(split: InstanceSplit) -> Iterator[DatasetFinding]:
    """Yield warnings of boxes that have no area within their image, or seem to be written in another way."""
    table = split.table
    left_top, size = table.boxes[:, :2], table.boxes[:, 2:]
    limits = split.images.sizes[table.owners(), ::-1]
    is_flat = (np.minimum(left_top + size, limits) <= np.maximum(left_top, 0)).any(axis=1)
    if is_flat.any():
        what = f"{is_flat.sum()} boxes have no area within their image and are not trained"
        yield warning("degenerate-box", f"{split.path}: {what}: {first_few(table.ids[is_flat])}")
    # As corners, all boxes would lie within their images; as sizes, some reach out of them.
    is_corners = ((left_top < size) & (size <= limits + 1)).all(axis=1)
    reaches_out = is_corners & (left_top + size > limits + 1).any(axis=1)
    for is_strange, is_example, what in (
        ((table.boxes <= 1).all(axis=1), ~is_flat, "fractions of the image"),
        (is_corners | is_flat, reaches_out, "left, top, right and bottom"),
    ):
        if is_strange.all() and is_example.any():
            row = int(np.argmax(is_example))
            width, height = limits[row].tolist()
            example = f"annotation {table.ids[row]} has {table.boxes[row].tolist()} on an image of {width}x{height}"
            meant = "COCO has left, top, width and height in pixels"
            yield warning("box-format", f"{split.path}: boxes seem to be {what}, where {meant}: {example}")
            return
    is_outside = ((left_top < -1) | (left_top + size > limits + 1)).any(axis=1) & ~is_flat
    areas, of_boxes = table.areas, size.prod(axis=1)
    is_foreign = ((areas > 1.1 * of_boxes + 16) | (1000 * areas < of_boxes)) & ~is_flat
    objects = np.column_stack([table.owners(), table.labels, table.boxes])
    is_repeated = np.ones(len(objects), np.bool_)
    is_repeated[np.unique(objects, axis=0, return_index=True)[1]] = False
    for code, rows, fewest, what in (
        ("repeated-object", is_repeated, _UNLIKELY_SHARE, "annotations have image, category and box of another"),
        ("box-outside", is_outside, 0, "boxes extend beyond their image: training cuts them off, evaluation does not"),
        ("odd-area", is_foreign, _UNLIKELY_SHARE, "areas cannot be those of their boxes in square pixels"),
    ):
        if rows.sum() > fewest * len(table.ids):
            yield warning(code, f"{split.path}: {rows.sum()} {what}: annotations {first_few(table.ids[rows])}")


def _undrawable(split: InstanceSplit, is_drawn: bool) -> Iterator[DatasetFinding]:
    """Yield a finding if segmentations cannot be drawn: a warning if training does not draw them, but others can be."""
    problems, drawn, outlines = [], [], []
    for row, index in enumerate(split.table.owners().tolist()):
        try:
            outlines.append(coco_mask.toBbox(split.mask_code(index, row)))
            drawn.append(row)
        except DataError as problem:
            problems.append(problem.message)
    found = np.stack([split.table.boxes[drawn], np.array(outlines).reshape(-1, 4)])
    starts, sizes = found[..., :2], found[..., 2:]
    overlap = ((starts + sizes).min(axis=0) - starts.max(axis=0)).clip(min=0).prod(axis=1)
    # The intersection is less than half of the union.
    is_elsewhere = (sizes[0] > 0).all(axis=1) & (3 * overlap < sizes.prod(axis=2).sum(axis=0))
    if is_elsewhere.sum() > _UNLIKELY_SHARE * len(drawn):
        what = f"{is_elsewhere.sum()} segmentations are not where their boxes are"
        examples = first_few(split.table.ids[drawn][is_elsewhere])
        yield warning("segmentation-elsewhere", f"{split.path}: {what}: annotations {examples}")
    if problems and (is_drawn or len(problems) < len(split.table.ids)):
        what = f"{len(problems)} segmentations cannot be drawn, so masks cannot be learned"
        report = error if is_drawn else warning
        yield report("segmentation", f"{split.path}: {what}: {problems[0]}")


def identify_coco(data: CocoData, reference: ReferenceDataset) -> DatasetIdentity:
    """Identify a dataset directory by its files except images that are not listed, see :func:`.identify_directory`."""
    tables = ((TRAIN_SPLIT, data.train.images), (EVAL_SPLIT, data.val.images))
    used = {f"{split}/{os.fsdecode(table.names[index])}" for split, table in tables for index in range(len(table))}
    return identify_directory(
        data.root,
        coco_files(data.root),
        train_samples=len(data.train.images),
        eval_samples=len(data.val.images),
        classes=len(data.train.things),
        reference=reference,
        target_key=SAMPLE_TARGET_KEYS[data.kind],
        is_used=lambda path: path in used or path.split("/")[0] not in (TRAIN_SPLIT, EVAL_SPLIT),
    )


def coco_files(root: Path) -> Iterator[str]:
    """Yield the paths, relative to ``root``, of images, annotation files and panoptic maps of both splits, sorted."""
    for split in (TRAIN_SPLIT, EVAL_SPLIT):
        directories = {instances_name(split): split, panoptic_name(split): f"panoptic_{split}"}
        yield from (name for name in directories if (root / name).exists())
        for name, directory in directories.items():
            if directory == split or (root / name).exists():
                yield from (f"{directory}/{path}" for path in files_below(root / directory))


def check_coco(
    root: Path, expected: ReferenceDataset | None = None, *, kind: TargetKind = "boxes", **options: Any
) -> CheckReport:
    """Check annotations, counts and files of a directory, and all others that exist, see :func:`.check_images`."""
    return check_images(partial(_list_images, kind=kind), coco_files, root, expected, **options)


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
    image_ids = file.column(file.annotations, "image_id", whole_numbers)
    table = _object_columns(file, file.annotations)
    drawn = file.column(file.annotations, "segmentation", segmentations, None)
    categories = file.column(file.categories, "id", whole_numbers)
    file.report_repeated("repeated-annotation", "annotation ids", table.ids)
    # pycocotools treats a match with annotation 0 as no match.
    file.report("annotation-id", "annotation ids are below 1", table.ids[table.ids < 1])
    is_ignored = (table.areas < 0) | (table.areas > _LARGEST_AREA)
    what = f"annotations have an area below 0 or above {_LARGEST_AREA:g}, which evaluation ignores"
    file.report("area-range", what, table.ids[is_ignored])
    file.report_categories(categories, table.labels, table.ids, MAX_INSTANCE_CATEGORY)
    what = "annotations name an image that is not listed"
    file.report_unlisted("image-unknown", what, table.ids, image_ids, images.ids)
    order, ends = _order_by_image(image_ids, images)
    packed = PackedBytes(pickle.dumps(drawn[row]) for row in order.tolist()) if masks else None
    things = _named(file, categories, np.ones(len(categories), np.bool_))
    return InstanceSplit(file.path, images, _reordered(table, order, ends), things, packed), file.faults


def read_panoptic(root: Path, split: str) -> tuple[PanopticSplit, list[DatasetFinding]]:
    """Read the panoptic annotations of a split like :func:`read_instances`."""
    file = AnnotationFile(root / panoptic_name(split))
    maps = root / f"panoptic_{split}"
    images = _image_table(file, root / split)
    annotated = file.column(file.annotations, "image_id", whole_numbers)
    map_names = file.column(file.annotations, "file_name", texts)
    segments = file.column(file.annotations, "segments_info", lambda values: of_type(values, list))
    image_ids = np.repeat(annotated, [len(segment) for segment in segments])
    table = _object_columns(file, list(chain.from_iterable(segments)))
    categories = file.column(file.categories, "id", whole_numbers)
    is_thing = file.column(file.categories, "isthing", flags)
    file.report_repeated("repeated-annotation", "image ids of annotations", annotated)
    file.report_categories(categories, table.labels, table.ids, MAX_PANOPTIC_CATEGORY)
    what = "annotations name images that are not listed"
    file.report("image-unknown", what, np.setdiff1d(annotated, images.ids))
    file.report("no-segments", "images have no annotation", np.setdiff1d(images.ids, annotated))
    file.report_absent("map-absent", "panoptic maps", map_names, maps)
    order, ends = _order_by_image(image_ids, images)
    map_order, _ = _order_by_image(annotated, images)
    return PanopticSplit(
        file.path,
        images,
        _reordered(table, order, ends),
        _named(file, categories, is_thing),
        _named(file, categories, ~is_thing),
        maps,
        PackedBytes(os.fsencode(map_names[row]) for row in map_order.tolist()),
    ), file.faults


def _image_table(file: AnnotationFile, directory: Path) -> ImageTable:
    ids = file.column(file.images, "id", whole_numbers)
    sizes = np.stack([file.column(file.images, key, whole_numbers) for key in ("height", "width")], axis=1)
    names = file.column(file.images, "file_name", texts)
    if not len(ids):
        file.faults.append(error("no-images", f"{file.path}: lists no images"))
    file.report_repeated("repeated-image", "image ids", ids)
    file.report_repeated("repeated-image", "images, with different ids,", np.array(names, np.str_))
    file.report_absent("image-absent", "images", names, directory)
    order = np.argsort(ids, kind="stable")
    packed = PackedBytes(os.fsencode(names[row]) for row in order.tolist())
    return ImageTable(directory, ids[order], sizes[order], packed)


def _named(file: AnnotationFile, ids: NDArray[np.int64], chosen: NDArray[np.bool_]) -> dict[int, str]:
    """Return the names of the chosen categories by id, ascending."""
    names = file.column(file.categories, "name", texts, "")
    return {
        number: name for number, name, is_chosen in sorted(zip(ids.tolist(), names, chosen, strict=True)) if is_chosen
    }


def _object_columns(file: AnnotationFile, entries: list[Any]) -> ObjectTable:
    """Return the objects in file order, before they are assigned to images."""
    return ObjectTable(
        ends=np.zeros(0, np.int64),
        ids=file.column(entries, "id", whole_numbers),
        labels=file.column(entries, "category_id", whole_numbers),
        boxes=file.column(entries, "bbox", boxes),
        areas=file.column(entries, "area", numbers),
        is_crowd=file.column(entries, "iscrowd", flags, 0),
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


def encode_segmentation(segmentation: Any, height: int, width: int) -> dict[str, Any]:
    """Return the compressed run-length code of a segmentation: 1 on its pixels, 0 elsewhere.

    COCO knows polygons, run-length codes as lists of counts, and compressed run-length codes.

    Raises:
        ValueError: The segmentation has another form, or belongs to an image of another size.
    """
    if height * width > _LARGEST_CODED_PX:
        raise ValueError(f"an image of {height}x{width} pixels is too large")
    if isinstance(segmentation, list):
        if not segmentation or any(len(polygon) < _MIN_POLYGON_NUMBERS or len(polygon) % 2 for polygon in segmentation):
            raise ValueError("a polygon needs three points")
        # pycocotools counts pixels along the edges, and crashes where there are too many.
        if max(map(abs, chain.from_iterable(segmentation))) > _FARTHEST * max(height, width):
            raise ValueError(f"a polygon lies far outside the {height}x{width} pixels")
        code: dict[str, Any] = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
        return code
    if not isinstance(segmentation, dict) or segmentation["size"] != [height, width]:
        raise ValueError(f"it is not a polygon or run-length code of {height}x{width} pixels")
    counts = segmentation["counts"]
    # pycocotools draws a code that ends early as if the other pixels were 0.
    lengths = _run_lengths(counts) if isinstance(counts, str) else counts
    if min(lengths, default=0) < 0 or sum(lengths) != height * width:
        raise ValueError(f"its counts do not add up to {height}x{width} pixels")
    code = segmentation if lengths is not counts else coco_mask.frPyObjects(segmentation, height, width)
    return code


def _run_lengths(text: str) -> list[int]:
    """Return the counts in a compressed run-length code: five bits per character, from the third on as differences."""
    counts: list[int] = []
    value = shift = 0
    for character in text.encode("ascii"):
        bits = character - ord("0")
        if not 0 <= bits < 64:
            raise ValueError("it is not a run-length code")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            negative = 1 << shift if bits & 16 else 0
            counts.append(value - negative + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return counts if not shift else []


def draw_segmentation(segmentation: Any, height: int, width: int) -> NDArray[np.uint8]:
    """Return the mask of a segmentation, shape ``(height, width)``; errors as in :func:`encode_segmentation`."""
    drawn: NDArray[np.uint8] = coco_mask.decode(encode_segmentation(segmentation, height, width))
    return drawn


def decode_segment_ids(pixels: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Return the segment ids in a panoptic map, shape ``(height, width)``: red + 256 green + 65536 blue."""
    segments: NDArray[np.int32] = pixels.astype(np.int32) @ np.array([1, 256, 65536], np.int32)
    return segments
