"""Deterministic sample dataset in COCO format: colored shapes on textured grounds.

It covers the cases that COCO code must handle: polygons, both kinds of run-length code (for shapes with a hole, and for
crowds), images without things, unlabeled pixels, category ids with gaps, and panoptic maps. A detector learns it
quickly: each kind of shape has its own hue, shapes do not overlap, and more than half of the images are close-ups.

Pixels are computed as in :mod:`chipperf.data.sample` and are the same on every machine. The bytes of PNG files differ
between compressors, so the content digest covers the pixels of the maps.
"""

from __future__ import annotations

import colorsys
import hashlib
import json
import math
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from chipperf.data.coco import (
    EVAL_SPLIT,
    SAMPLE_TARGET_KEY,
    TRAIN_SPLIT,
    coco_files,
    draw_segmentation,
    instances_name,
    panoptic_name,
)
from chipperf.data.dataset_identity import MANIFEST_NAME, listing_sha256
from chipperf.data.sample import (
    checks,
    default_sample_root,
    encode,
    ensure_generated,
    linear_wave,
    map_in_order,
    rings,
    shading,
)
from chipperf.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

COCO_GENERATOR_VERSION = 2
"""Increased whenever the generated pixels, annotations or target change."""

TARGET_BBOX_MAP = 0.1
"""Bounding box mAP, as a fraction, that the first run of the ``demo`` preset reached after 18 of 24 epochs."""

THINGS = {1: "circle", 2: "square", 3: "triangle", 5: "ring", 8: "cross"}
STUFF = {92: "stripes", 95: "checks", 101: "rings"}
"""Names by category id; things have ids up to 90 and stuff has larger ids, as in COCO."""

_PORTRAIT_SHARE = 0.25
_EMPTY_SHARE = 0.06
_CLOSE_UP_SHARE = 0.6
_CLOSE_UP_RADII = (0.3, 0.46)
_RADII = (0.14, 0.3)
_MOST_OBJECTS = 4
_CROWD_SHARE = 0.15
_PLACEMENT_ATTEMPTS = 20
_ESTIMATED_BYTES_PER_PIXEL = 0.5
_GREY_SEGMENT_ID = 1 + 256 + 65536
_UNLABELLED_BAND_PX = 3
_UNLABELED_COLOR = [100, 100, 100]
_PNG_LEVEL = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CocoSampleOptions:
    """Contents of a sample dataset.

    Attributes:
        train_samples: Training images.
        val_samples: Evaluation images.
        width: Longer side of an image in pixels.
        height: Shorter side of an image in pixels.
        seed: Seed of the generator.
    """

    train_samples: int = 600
    val_samples: int = 100
    width: int = 640
    height: int = 480
    seed: int = 0

    def __post_init__(self) -> None:
        for name, smallest in (("train_samples", 1), ("val_samples", 1), ("width", 32), ("height", 32)):
            if getattr(self, name) < smallest:
                raise ConfigError(f"sample dataset: {name} must be at least {smallest}, not {getattr(self, name)}")

    @property
    def directory_name(self) -> str:
        """Name that is unique to the options and the generator version."""
        counts = f"{self.train_samples}x{self.val_samples}"
        return f"coco-sample-v{COCO_GENERATOR_VERSION}-{counts}-{self.width}x{self.height}-seed{self.seed}"


SIZES = {
    "demo": CocoSampleOptions(),
    "tiny": CocoSampleOptions(train_samples=16, val_samples=8, width=128, height=96),
}
"""``demo`` has images of COCO's size; ``tiny`` is enough to check that all parts run."""


@dataclass(frozen=True, slots=True)
class Region:
    """An annotated part of a scene.

    Attributes:
        category_id: Category of the region.
        mask: 1 on the region's pixels, uint8 of shape ``(height, width)``.
        segmentation: COCO's description of the mask; ``None`` for stuff, which is only in panoptic maps.
        is_crowd: Whether it is a crowd: several objects as one region.
    """

    category_id: int
    mask: NDArray[np.uint8]
    segmentation: Any
    is_crowd: bool = False


@dataclass(frozen=True, slots=True)
class Scene:
    """A generated image and its regions.

    Attributes:
        pixels: RGB, uint8 of shape ``(height, width, 3)``.
        regions: Things first, then stuff; they do not overlap.
    """

    pixels: NDArray[np.uint8]
    regions: tuple[Region, ...]

    @property
    def segment_map(self) -> NDArray[np.int32]:
        """Segment id of each pixel, shape ``(height, width)``; 0 is no segment."""
        height, width = self.pixels.shape[:2]
        ids = np.array([0, *(segment_id(number) for number in range(len(self.regions)))], np.int32)
        segments: NDArray[np.int32] = ids[_region_numbers(height, width, self.regions)]
        return segments


def ensure_coco_sample(
    options: CocoSampleOptions | None = None,
    root: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Return the directory of a sample dataset; generate it if it does not exist.

    Args:
        options: Contents of the dataset; by default the size ``demo``.
        root: Directory that holds sample datasets; by default in the user's cache directory.
        progress: Called with the number of finished images and the total number.

    Raises:
        DataError: The directory cannot be written, the disk is full, or something else has that name.
    """
    options = options or SIZES["demo"]
    images = options.train_samples + options.val_samples
    return ensure_generated(
        root or default_sample_root(),
        options.directory_name,
        partial(_generate, options, progress),
        coco_files,
        estimated_bytes=int(images * options.width * options.height * _ESTIMATED_BYTES_PER_PIXEL),
    )


def segment_id(number: int) -> int:
    """Return the panoptic id of a scene's region; its color is gray, so all three channels matter."""
    return (number + 1) * _GREY_SEGMENT_ID


def render_scene(options: CocoSampleOptions, split: str, number: int) -> Scene:
    """Return image ``number`` of a split with its annotations; portrait images swap width and height."""
    key = hashlib.sha256(f"coco/{options.seed}/{split}/{number}".encode()).digest()
    rng = np.random.RandomState(np.frombuffer(key, np.uint32))
    height, width = options.height, options.width
    if rng.random_sample() < _PORTRAIT_SHARE:
        height, width = width, height
    things = _place_things(height, width, rng)
    stuff = _divide_ground(height, width, rng, things)
    pixels = _paint(height, width, rng, (*things, *stuff))
    return Scene(pixels, (*things, *stuff))


def _place_things(height: int, width: int, rng: np.random.RandomState) -> list[Region]:
    """Place one large thing (in more than half of the images) or several smaller ones."""
    things: list[Region] = []
    taken: list[tuple[float, float, float]] = []
    if rng.random_sample() < _EMPTY_SHARE:
        return things
    is_close_up = rng.random_sample() < _CLOSE_UP_SHARE
    radii = _CLOSE_UP_RADII if is_close_up else _RADII
    for _ in range(1 if is_close_up else rng.randint(2, _MOST_OBJECTS + 1)):
        circle = _free_circle(height, width, rng, radii, taken)
        if circle is not None:
            taken.append(circle)
            category_id = tuple(THINGS)[rng.randint(len(THINGS))]
            is_crowd = len(things) > 0 and rng.random_sample() < _CROWD_SHARE
            draw = _crowd if is_crowd else _thing
            things.append(draw(category_id, circle, height, width, rng))
    return things


def _free_circle(
    height: int,
    width: int,
    rng: np.random.RandomState,
    radii: tuple[float, float],
    taken: Sequence[tuple[float, float, float]],
) -> tuple[float, float, float] | None:
    """Return center x, center y and radius of a circle in the image that touches no taken one, if one is found."""
    for _ in range(_PLACEMENT_ATTEMPTS):
        radius = rng.uniform(*radii) * min(height, width)
        x, y = rng.uniform(radius, width - radius), rng.uniform(radius, height - radius)
        if all(math.sqrt((x - other_x) ** 2 + (y - other_y) ** 2) > radius + r + 4 for other_x, other_y, r in taken):
            return x, y, radius
    return None


def _thing(
    category_id: int, circle: tuple[float, float, float], height: int, width: int, rng: np.random.RandomState
) -> Region:
    name = THINGS[category_id]
    outline = _outline(name, circle, rng)
    mask = draw_segmentation([outline], height, width)
    if name != "ring":
        return Region(category_id, mask, [outline])
    x, y, radius = circle
    mask -= draw_segmentation([_polygon(x, y, _CIRCLE * (0.5 * radius))], height, width)
    code = coco_mask.encode(np.asfortranarray(mask))
    return Region(category_id, mask, {"size": [height, width], "counts": code["counts"].decode()})


def _crowd(
    category_id: int, circle: tuple[float, float, float], height: int, width: int, rng: np.random.RandomState
) -> Region:
    """Return many small shapes as one region in run-length code, like COCO's crowds."""
    x, y, radius = circle
    mask = np.zeros((height, width), np.uint8)
    for row in (-0.5, 0.0, 0.5):
        for column in (-0.5, 0.0, 0.5):
            small = (x + column * radius, y + row * radius, rng.uniform(0.15, 0.2) * radius)
            mask |= draw_segmentation([_outline(THINGS[category_id], small, rng)], height, width)
    changes = np.flatnonzero(np.diff(mask.ravel(order="F"), prepend=0))
    counts = np.diff(np.concatenate([[0], changes, [mask.size]]))
    return Region(category_id, mask, {"size": [height, width], "counts": counts.tolist()}, is_crowd=True)


def _outline(name: str, circle: tuple[float, float, float], rng: np.random.RandomState) -> list[float]:
    x, y, radius = circle
    corners = _OUTLINES[name] * radius
    angle = rng.uniform(-0.3, 0.3)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return _polygon(x, y, corners @ turn)


def _polygon(x: float, y: float, corners: NDArray[np.float64]) -> list[float]:
    polygon: list[float] = np.round(corners + (x, y), 2).ravel().tolist()
    return polygon


def _divide_ground(height: int, width: int, rng: np.random.RandomState, things: Sequence[Region]) -> list[Region]:
    """Divide the area without things at a slanted horizon; a band along the horizon stays unlabeled."""
    upper, lower = rng.permutation(tuple(STUFF))[:2].tolist()
    slope = rng.uniform(-0.2, 0.2)
    horizon = height * rng.uniform(0.3, 0.7) + (np.arange(width) - width / 2) * slope
    rows, edge = np.arange(height, dtype=np.int16)[:, None], horizon.astype(np.int16)
    covered = _region_numbers(height, width, things) > 0
    parts = ((upper, (rows < edge) & ~covered), (lower, (rows >= edge + _UNLABELLED_BAND_PX) & ~covered))
    return [Region(category, pixels.astype(np.uint8), None) for category, pixels in parts if pixels.any()]


def _paint(height: int, width: int, rng: np.random.RandomState, regions: Sequence[Region]) -> NDArray[np.uint8]:
    """Paint stuff as dull textures and things as bright areas, with a brightness ramp and grain."""
    colors = [_UNLABELED_COLOR]
    light = shading(height, width, rng) // 3
    light += np.frombuffer(rng.bytes(height * width), np.int8).reshape(height, width) >> 4
    for region in regions:
        if region.category_id in STUFF:
            colors.append(rng.randint(90, 150, 3).tolist())
            texture = _TEXTURES[STUFF[region.category_id]](height, width, rng)
            light += ((24 * texture) >> 7) * region.mask
        else:
            colors.append(_hue(region.category_id, rng))
    numbers = _region_numbers(height, width, regions)
    pixels = np.empty((height, width, 3), np.uint8)
    for channel, levels in enumerate(np.array(colors, np.int16).T):
        pixels[:, :, channel] = np.clip(levels[numbers] + light, 0, 255)
    return pixels


def _region_numbers(height: int, width: int, regions: Sequence[Region]) -> NDArray[np.uint8]:
    """Return the region number of each pixel, counted from 1; 0 is no region."""
    numbers = np.zeros((height, width), np.uint8)
    for number, region in enumerate(regions, start=1):
        numbers += np.uint8(number) * region.mask
    return numbers


def _hue(category_id: int, rng: np.random.RandomState) -> list[int]:
    hue = (tuple(THINGS).index(category_id) + rng.uniform(-0.2, 0.2)) / len(THINGS) % 1
    return [round(255 * part) for part in colorsys.hsv_to_rgb(hue, rng.uniform(0.8, 1), rng.uniform(0.8, 1))]


def _generate(options: CocoSampleOptions, progress: Callable[[int, int], None] | None, directory: Path) -> None:
    splits = ((TRAIN_SPLIT, options.train_samples), (EVAL_SPLIT, options.val_samples))
    jobs = [(split, number) for split, samples in splits for number in range(samples)]
    for split, _ in splits:
        (directory / split).mkdir()
        (directory / f"panoptic_{split}").mkdir()
    (directory / "annotations").mkdir()
    content = hashlib.sha256()
    described: dict[str, list[_Described]] = {split: [] for split, _ in splits}
    for (split, _), written in zip(
        jobs, map_in_order(partial(_write, options, directory), jobs, progress), strict=True
    ):
        described[split].append(written)
        content.update(written.digest)
    for split, images in described.items():
        for name, document in ((instances_name(split), _instances(images)), (panoptic_name(split), _panoptic(images))):
            text = json.dumps(document, separators=(",", ":")).encode()
            (directory / name).write_bytes(text)
            content.update(hashlib.sha256(text).digest())
    manifest = {
        "name": "chipperf-coco-sample",
        "version": f"{COCO_GENERATOR_VERSION}",
        "kind": "generated sample, not a benchmark dataset",
        "generator_version": COCO_GENERATOR_VERSION,
        "options": asdict(options),
        "train_samples": options.train_samples,
        "eval_samples": options.val_samples,
        "content_sha256": content.hexdigest(),
        "listing_sha256": listing_sha256(directory, coco_files(directory)),
        SAMPLE_TARGET_KEY: TARGET_BBOX_MAP,
    }
    (directory / MANIFEST_NAME).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


@dataclass(frozen=True, slots=True)
class _Described:
    """Annotation file entries of one image."""

    image: dict[str, Any]
    regions: list[dict[str, Any]]
    digest: bytes


def _write(options: CocoSampleOptions, directory: Path, job: tuple[str, int]) -> _Described:
    split, number = job
    scene = render_scene(options, split, number)
    segments = scene.segment_map
    # The ids of the two splits interleave, so the ids of each split have gaps.
    image_id = 2 * number + (1 if split == TRAIN_SPLIT else 2)
    name = f"{image_id:012d}"
    data = encode(scene.pixels)
    (directory / split / f"{name}.jpg").write_bytes(data)
    colors = np.ascontiguousarray(segments.astype("<i4")[:, :, None].view(np.uint8)[:, :, :3])
    Image.fromarray(colors).save(directory / f"panoptic_{split}" / f"{name}.png", compress_level=_PNG_LEVEL)
    height, width = segments.shape
    return _Described(
        image={"id": image_id, "file_name": f"{name}.jpg", "height": height, "width": width},
        regions=[_describe(region) for region in scene.regions],
        digest=hashlib.sha256(data).digest() + hashlib.sha256(colors.tobytes()).digest(),
    )


def _describe(region: Region) -> dict[str, Any]:
    code = coco_mask.encode(np.asfortranarray(region.mask))
    return {
        "category_id": region.category_id,
        "iscrowd": int(region.is_crowd),
        "area": int(region.mask.sum(dtype=np.int64)),
        "bbox": coco_mask.toBbox(code).tolist(),
        "segmentation": region.segmentation,
    }


def _instances(images: Sequence[_Described]) -> dict[str, Any]:
    things = [
        {"image_id": described.image["id"], **region}
        for described in images
        for region in described.regions
        if region["category_id"] in THINGS
    ]
    return {
        "images": [described.image for described in images],
        "annotations": [{"id": number, **thing} for number, thing in enumerate(things, start=1)],
        "categories": [{"id": number, "name": name, "supercategory": "shape"} for number, name in THINGS.items()],
    }


def _panoptic(images: Sequence[_Described]) -> dict[str, Any]:
    def segment(number: int, region: dict[str, Any]) -> dict[str, Any]:
        kept = {key: region[key] for key in ("category_id", "iscrowd", "area", "bbox")}
        return {"id": segment_id(number), **kept}

    return {
        "images": [described.image for described in images],
        "annotations": [
            {
                "image_id": described.image["id"],
                "file_name": described.image["file_name"].replace(".jpg", ".png"),
                "segments_info": [segment(number, region) for number, region in enumerate(described.regions)],
            }
            for described in images
        ],
        "categories": [
            {"id": number, "name": name, "supercategory": kind, "isthing": int(kind == "shape")}
            for kind, names in (("shape", THINGS), ("ground", STUFF))
            for number, name in names.items()
        ],
    }


def _regular(corners: int) -> NDArray[np.float64]:
    """Return the corners of a regular polygon on a circle of radius 1, with one corner on top."""
    angles = [2 * math.pi * corner / corners for corner in range(corners)]
    return np.array([(math.sin(angle), -math.cos(angle)) for angle in angles])


_CIRCLE = _regular(32)
_ARM = 0.35
_OUTLINES = {
    "circle": _CIRCLE,
    "ring": _CIRCLE,
    "triangle": _regular(3),
    "square": np.array([(-0.7, -0.7), (0.7, -0.7), (0.7, 0.7), (-0.7, 0.7)]),
    "cross": 0.9
    * np.array(
        [
            *((-_ARM, -1), (_ARM, -1), (_ARM, -_ARM), (1, -_ARM), (1, _ARM), (_ARM, _ARM)),
            *((_ARM, 1), (-_ARM, 1), (-_ARM, _ARM), (-1, _ARM), (-1, -_ARM), (-_ARM, -_ARM)),
        ]
    ),
}

_TEXTURES: dict[str, Callable[[int, int, np.random.RandomState], NDArray[np.int16]]] = {
    "stripes": partial(linear_wave, degrees=90),
    "checks": checks,
    "rings": rings,
}
