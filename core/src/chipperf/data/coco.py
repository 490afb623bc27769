"""COCO layout: images in ``train2017/`` and ``val2017/``, their annotations in ``annotations/``.

Annotations are packed into a few flat arrays when they are read. The index of pycocotools keeps a dictionary per
annotation. For the 860 000 annotations of the training split it takes gigabytes, and every forked loader process copies
them page by page, because reference counting writes to them.
"""

from __future__ import annotations

import os
import pickle
from array import array
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pycocotools import mask as coco_mask

from chipperf.data.coco_annotations import (
    COCO_LAYOUT_HINT,
    Fault,
    absent_file_faults,
    category_faults,
    column,
    list_column,
    listed_faults,
    read_annotation_file,
    repeated_id_faults,
    text_column,
    unknown_image_faults,
)
from chipperf.data.dataset_identity import DatasetIdentity, ReferenceDataset, identify_directory
from chipperf.data.decode import decode_rgb
from chipperf.data.imagefolder import files_below
from chipperf.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

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
class PackedBytes:
    """Byte strings in one buffer, which forked loader processes share without copying it.

    Attributes:
        data: All strings, concatenated.
        ends: Offset at which each string ends.
    """

    data: bytes
    ends: array[int]

    @classmethod
    def pack(cls, items: Iterable[bytes]) -> PackedBytes:
        """Pack the strings in order."""
        data, ends = bytearray(), array("Q")
        for item in items:
            data += item
            ends.append(len(data))
        return cls(bytes(data), ends)

    def __getitem__(self, index: int) -> bytes:
        return self.data[self.ends[index - 1] if index else 0 : self.ends[index]]


@dataclass(frozen=True, slots=True)
class ImageTable:
    """The images of a split, sorted by id.

    Attributes:
        directory: Directory of the files.
        ids: Image ids, int64 of shape ``(N,)``.
        sizes: Height and width in pixels as annotated, int64 of shape ``(N, 2)``.
        names: File names.
    """

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
        """Return the index of the image with an id.

        Raises:
            DataError: No image has this id.
        """
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
        ends: Number of objects in all images up to and including each one, int64 of shape ``(N,)``.
        ids: Ids of annotations, unique in the file, or of segments, unique in their image; int64 of shape ``(A,)``.
        labels: Category ids, int64 of shape ``(A,)``.
        boxes: Left, top, width and height in pixels, float64 of shape ``(A, 4)``.
        areas: Areas in square pixels, float64 of shape ``(A,)``.
        is_crowd: Whether the region is a crowd (several objects as one region), bool of shape ``(A,)``.
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

    def objects(self, rows: slice) -> tuple[Objects, NDArray[np.int64]]:
        """Return the objects in ``rows`` except crowds, without masks, and their row numbers."""
        chosen = np.arange(rows.start, rows.stop)[~self.is_crowd[rows]]
        left_top, size = self.boxes[chosen, :2], self.boxes[chosen, 2:]
        boxes = np.concatenate([left_top, left_top + size], axis=1).astype(np.float32)
        return Objects(boxes, self.labels[chosen], self.areas[chosen].astype(np.float32), None), chosen


@dataclass(frozen=True, slots=True)
class InstanceSplit:
    """Images and their things.

    Attributes:
        images: The images.
        table: The annotations.
        things: Ids of the categories, ascending.
        segmentations: One pickle per annotation; ``None`` if masks are not needed.
    """

    images: ImageTable
    table: ObjectTable
    things: tuple[int, ...]
    segmentations: PackedBytes | None

    def objects(self, index: int, *, masks: bool) -> Objects:
        """Return the objects of an image except crowds, which do not separate their objects.

        Args:
            index: Index of the image in the split.
            masks: Whether to load masks.

        Raises:
            DataError: A segmentation cannot be drawn.
        """
        found, rows = self.table.objects(self.table.rows(index))
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
        images: The images.
        table: The segments.
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
        """Return the segments of an image except crowds.

        Args:
            index: Index of the image in the split.
            masks: Whether to load masks; the PNG file is read only for masks.

        Raises:
            DataError: The PNG file cannot be used.
        """
        found, rows = self.table.objects(self.table.rows(index))
        if not masks:
            return found
        drawn = self.segment_map(index) == self.table.ids[rows, None, None]
        return replace(found, masks=drawn.astype(np.uint8))


CocoSplit = InstanceSplit | PanopticSplit


@dataclass(frozen=True, slots=True)
class CocoData:
    """A dataset directory in COCO layout.

    Attributes:
        root: Directory that holds images and annotations.
        train: Training split.
        val: Evaluation split.
    """

    root: Path
    train: CocoSplit
    val: CocoSplit


def scan_coco(root: str | os.PathLike[str], kind: TargetKind = "boxes") -> CocoData:
    """Read the annotations of both splits and check that the files they name exist.

    Args:
        root: Dataset directory.
        kind: What the model learns; it decides which annotations are read.

    Raises:
        DataError: A directory or file is missing, or an annotation file is damaged or contradicts itself.
    """
    root = Path(root)
    if not root.is_dir():
        what = "is not a directory" if root.exists() else "does not exist"
        raise DataError(f"data directory {root} {what}", hint=COCO_LAYOUT_HINT)
    return CocoData(root, scan_coco_split(root, TRAIN_SPLIT, kind), scan_coco_split(root, EVAL_SPLIT, kind))


def scan_coco_split(root: Path, split: str, kind: TargetKind) -> CocoSplit:
    """Read the annotations of one split.

    Raises:
        DataError: A directory or file is missing, or the annotation file is damaged or contradicts itself.
    """
    if kind == "panoptic":
        panoptic, faults = read_panoptic(root, split)
        _raise_first(faults)
        return panoptic
    instances, faults = read_instances(root, split, masks=kind == "masks")
    _raise_first(faults)
    return instances


def identify_coco(data: CocoData, reference: ReferenceDataset) -> DatasetIdentity:
    """Identify a dataset directory by the paths and sizes of its files, see :func:`.identify_directory`.

    Raises:
        DataError: A sample dataset was changed after it was generated, or a file disappeared.
    """
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
    """Yield the sorted paths, relative to ``root``, of the images, annotation files and panoptic maps of both splits.

    Raises:
        DataError: A directory cannot be read.
    """
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


def read_instances(root: Path, split: str, *, masks: bool) -> tuple[InstanceSplit, list[Fault]]:
    """Read the instance annotations of a split and return them with their faults.

    If there are faults, the annotations may only be used to search for more faults.

    Args:
        root: Dataset directory.
        split: Name of the split.
        masks: Whether to keep segmentations.

    Raises:
        DataError: The file is missing or damaged, or an entry lacks a key or has a value of another type.
    """
    path = root / instances_name(split)
    document = read_annotation_file(path)
    entries = document["annotations"]
    images, image_names = _image_table(document["images"], root / split, path)
    image_ids = column(entries, "image_id", path, np.int64)
    unsorted = _object_columns(entries, path)
    categories = column(document["categories"], "id", path, np.int64)
    faults = [
        *repeated_id_faults("repeated-image", "image ids", images.ids, path),
        *repeated_id_faults("repeated-annotation", "annotation ids", unsorted.ids, path),
        # pycocotools treats a match with annotation 0 as no match.
        *listed_faults("annotation-id", "annotation ids are below 1", unsorted.ids[unsorted.ids < 1], path),
        *category_faults(categories, unsorted.labels, unsorted.ids, MAX_INSTANCE_CATEGORY, path),
        *unknown_image_faults(unsorted.ids, image_ids, images.ids, path),
        *absent_file_faults("images", "image-absent", image_names, root / split, path),
    ]
    order, ends = _order_by_image(image_ids, images.ids)
    pickles = (pickle.dumps(entries[row].get("segmentation")) for row in order.tolist()) if masks else None
    return InstanceSplit(
        images,
        _reordered(unsorted, order, ends),
        tuple(sorted(set(categories.tolist()))),
        None if pickles is None else PackedBytes.pack(pickles),
    ), faults


def read_panoptic(root: Path, split: str) -> tuple[PanopticSplit, list[Fault]]:
    """Read the panoptic annotations of a split and return them with their faults.

    If there are faults, the annotations may only be used to search for more faults.

    Raises:
        DataError: The file is missing or damaged, or an entry lacks a key or has a value of another type.
    """
    path = root / panoptic_name(split)
    maps = root / f"panoptic_{split}"
    document = read_annotation_file(path)
    annotations = document["annotations"]
    images, image_names = _image_table(document["images"], root / split, path)
    annotated = column(annotations, "image_id", path, np.int64)
    map_names = text_column(annotations, "file_name", path)
    segments = list_column(annotations, "segments_info", path)
    image_ids = np.repeat(annotated, [len(segment) for segment in segments])
    unsorted = _object_columns(list(chain.from_iterable(segments)), path)
    categories = column(document["categories"], "id", path, np.int64)
    is_thing = column(document["categories"], "isthing", path, np.int64) != 0
    faults = [
        *repeated_id_faults("repeated-image", "image ids", images.ids, path),
        *repeated_id_faults("repeated-annotation", "image ids of annotations", annotated, path),
        *category_faults(categories, unsorted.labels, unsorted.ids, MAX_PANOPTIC_CATEGORY, path),
        *listed_faults(
            "image-unknown", "annotations name images that are not listed", np.setdiff1d(annotated, images.ids), path
        ),
        *listed_faults("no-segments", "images have no annotation", np.setdiff1d(images.ids, annotated), path),
        *absent_file_faults("images", "image-absent", image_names, root / split, path),
        *absent_file_faults("panoptic maps", "map-absent", map_names, maps, path),
    ]
    order, ends = _order_by_image(image_ids, images.ids)
    name_order, _ = _order_by_image(annotated, images.ids)
    return PanopticSplit(
        images,
        _reordered(unsorted, order, ends),
        tuple(sorted(categories[is_thing].tolist())),
        tuple(sorted(categories[~is_thing].tolist())),
        maps,
        PackedBytes.pack(os.fsencode(map_names[row]) for row in name_order.tolist()),
    ), faults


def draw_segmentation(segmentation: Any, height: int, width: int) -> NDArray[np.uint8]:
    """Return a mask of shape ``(height, width)``: 1 on the pixels of a segmentation, 0 elsewhere.

    Args:
        segmentation: COCO polygons, a run-length code as a list of counts, or a compressed run-length code.
        height: Height of the image in pixels.
        width: Width of the image in pixels.

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
    """Return the segment ids of a panoptic PNG file: red + 256 green + 65536 blue, shape ``(height, width)``.

    Raises:
        DataError: The file cannot be decoded.
    """
    red, green, blue = np.moveaxis(decode_rgb(data, name).astype(np.int32), 2, 0)
    segments: NDArray[np.int32] = red + (green << 8) + (blue << 16)
    return segments


def read_file(path: str) -> bytes:
    """Return the content of a file.

    Raises:
        DataError: The file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def require_size(found: Sequence[int], annotated: NDArray[np.int64], path: str) -> None:
    """Check that a file has the height and width that its annotation states.

    Raises:
        DataError: The sizes differ, so boxes and masks would be misplaced.
    """
    height, width = annotated.tolist()
    if tuple(found[:2]) != (height, width):
        raise DataError(
            f"{path}: is {found[1]}x{found[0]} pixels, its annotation file says {width}x{height}",
            hint="images and annotations belong to different datasets; replace one of them",
        )


def _raise_first(faults: Iterable[Fault]) -> None:
    for fault in faults:
        raise DataError(fault.message, hint="`perf data check detr DIR` lists every problem")


def _image_table(entries: list[Any], directory: Path, path: Path) -> tuple[ImageTable, list[str]]:
    ids = column(entries, "id", path, np.int64)
    sizes = [column(entries, key, path, np.int64) for key in ("height", "width")]
    names = text_column(entries, "file_name", path)
    order = np.argsort(ids, kind="stable")
    packed = PackedBytes.pack(os.fsencode(names[row]) for row in order.tolist())
    return ImageTable(directory, ids[order], np.stack(sizes, axis=1)[order], packed), names


def _object_columns(entries: list[Any], path: Path) -> ObjectTable:
    """Return the objects in file order, before they are assigned to images."""
    return ObjectTable(
        ends=np.zeros(0, np.int64),
        ids=column(entries, "id", path, np.int64),
        labels=column(entries, "category_id", path, np.int64),
        boxes=column(entries, "bbox", path, np.float64, (4,)),
        areas=column(entries, "area", path, np.float64),
        is_crowd=column(entries, "iscrowd", path, np.int64, default=0) != 0,
    )


def _reordered(table: ObjectTable, order: NDArray[np.int64], ends: NDArray[np.int64]) -> ObjectTable:
    return ObjectTable(
        ends, table.ids[order], table.labels[order], table.boxes[order], table.areas[order], table.is_crowd[order]
    )


def _order_by_image(
    image_ids: NDArray[np.int64], images: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows of known images sorted by image, and the cumulative number of rows after each image."""
    order = np.argsort(image_ids, kind="stable")
    order = order[np.isin(image_ids[order], images)]
    return order, np.searchsorted(image_ids[order], images, side="right")
