"""Deterministic sample dataset in COCO format: colored shapes on textured grounds.

It covers the cases that COCO code must handle: polygons, both kinds of run-length code (for shapes with a hole, and for
crowds), images without things, unlabeled pixels, category ids with gaps, and panoptic maps. A detector learns it
quickly: each kind of shape has its own hue, shapes do not overlap, and more than half of the images are close-ups.

Pixels are computed as in :mod:`chipperf.data.sample` and are the same on every machine. The bytes of PNG files differ
between compressors, so the content digest covers the pixels of the maps.
"""

from __future__ import annotations

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
    SAMPLE_TARGET_KEYS,
    TRAIN_SPLIT,
    coco_files,
    draw_segmentation,
    instances_name,
    panoptic_name,
)
from chipperf.data.generated_dataset import GeneratedDataset
from chipperf.data.sample import (
    checks,
    encode,
    linear_wave,
    map_in_order,
    rgb_levels,
    rings,
    shading,
    start_image,
)
from chipperf.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from chipperf.data.coco import TargetKind

COCO_GENERATOR_VERSION = 4
"""Increased whenever the generated pixels, annotations or target change."""

_BYTES_PER_PIXEL = 0.5

TARGETS: dict[TargetKind, float | None] = {"boxes": 0.1, "masks": 0.1, "panoptic": None}
"""Target quality by what is learned. First runs of ``demo`` reached those of boxes and masks after 18 of 24 epochs.

Panoptic quality has none: it counts sure predictions only, and the model of ``demo`` makes hardly any in half an hour.
"""

THINGS = {1: "circle", 2: "square", 3: "triangle", 5: "ring", 8: "cross"}
STUFF = {92: "stripes", 95: "checks", 101: "rings"}
"""Names by category id; things have ids up to 90 and stuff has larger ids, as in COCO."""

_EMPTY_SHARE = 0.06
_CLOSE_UP_SHARE = 0.6
_CLOSE_UP_RADII = (0.3, 0.46)
_RADII = (0.14, 0.3)
_MOST_OBJECTS = 4
_CROWD_SHARE = 0.15
_PLACEMENT_ATTEMPTS = 20
_GRAY_SEGMENT_ID = 1 + 256 + 65536
"""Segment ids are multiples of it: their colors in panoptic maps are gray, so all three channels matter."""

_UNLABELED_BAND_PX = 3
_UNLABELED_COLOR = [100, 100, 100]
_PNG_LEVEL = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CocoSampleOptions:
    """Contents of a sample dataset: number of images, and longer and shorter side of an image in pixels."""

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

_Circle = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Region:
    """An annotated part of a scene.

    Attributes:
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
    """A generated image of shape ``(height, width, 3)``, and its regions without overlap: things, then stuff."""

    pixels: NDArray[np.uint8]
    regions: tuple[Region, ...]

    @property
    def segment_map(self) -> NDArray[np.int32]:
        """Segment id of each pixel, shape ``(height, width)``; 0 is no segment."""
        return _region_numbers(self.pixels.shape[:2], self.regions).astype(np.int32) * _GRAY_SEGMENT_ID


def _region_numbers(shape: tuple[int, ...], regions: Sequence[Region]) -> NDArray[np.uint8]:
    """Return the region number of each pixel, counted from 1; 0 is no region."""
    numbers = np.zeros(shape, np.uint8)
    for number, region in enumerate(regions, start=1):
        numbers += np.uint8(number) * region.mask
    return numbers


def ensure_coco_sample(
    options: CocoSampleOptions | None = None,
    root: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Return the directory of a sample dataset; generate it if it does not exist, see :class:`.GeneratedDataset`.

    By default it has the size ``demo``. ``progress`` is called with the number of finished images and the total number.
    """
    options = options or SIZES["demo"]
    images = options.train_samples + options.val_samples
    return GeneratedDataset(
        directory_name=options.directory_name,
        name="chipperf-coco-sample",
        generator_version=COCO_GENERATOR_VERSION,
        options=asdict(options),
        train_samples=options.train_samples,
        eval_samples=options.val_samples,
        target={SAMPLE_TARGET_KEYS[kind]: target for kind, target in TARGETS.items()},
        needed_bytes=int(images * options.width * options.height * _BYTES_PER_PIXEL),
        generate=partial(_generate, options, progress),
        files=coco_files,
    ).ensure(root)


def render_scene(options: CocoSampleOptions, split: str, number: int) -> Scene:
    """Return image ``number`` of a split with its annotations; portrait images swap width and height."""
    canvas = _Canvas(*start_image(f"coco/{options.seed}/{split}/{number}", options.height, options.width))
    things = canvas.place_things()
    regions = (*things, *canvas.divide_ground(things))
    return Scene(canvas.paint(regions), regions)


@dataclass(frozen=True, slots=True)
class _Canvas:
    """Draws one scene. A circle is center x, center y and radius in pixels."""

    rng: np.random.RandomState
    height: int
    width: int

    def place_things(self) -> list[Region]:
        """Place one large thing (in more than half of the images) or several smaller ones."""
        things: list[Region] = []
        taken: list[_Circle] = []
        if self.rng.random_sample() < _EMPTY_SHARE:
            return things
        is_close_up = self.rng.random_sample() < _CLOSE_UP_SHARE
        radii = _CLOSE_UP_RADII if is_close_up else _RADII
        for _ in range(1 if is_close_up else self.rng.randint(2, _MOST_OBJECTS + 1)):
            circle = self._free_circle(radii, taken)
            if circle is not None:
                taken.append(circle)
                category_id = tuple(THINGS)[self.rng.randint(len(THINGS))]
                is_crowd = len(things) > 0 and self.rng.random_sample() < _CROWD_SHARE
                draw = self._crowd if is_crowd else self._thing
                things.append(draw(category_id, circle))
        return things

    def _free_circle(self, radii: tuple[float, float], taken: Sequence[_Circle]) -> _Circle | None:
        """Return a circle in the image that touches no taken one, if one is found."""
        for _ in range(_PLACEMENT_ATTEMPTS):
            radius = self.rng.uniform(*radii) * min(self.height, self.width)
            x = self.rng.uniform(radius, self.width - radius)
            y = self.rng.uniform(radius, self.height - radius)
            if all(
                math.sqrt((x - other_x) ** 2 + (y - other_y) ** 2) > radius + r + 4 for other_x, other_y, r in taken
            ):
                return x, y, radius
        return None

    def _thing(self, category_id: int, circle: _Circle) -> Region:
        name = THINGS[category_id]
        outline = self._outline(name, circle)
        mask = draw_segmentation([outline], self.height, self.width)
        if name != "ring":
            return Region(category_id, mask, [outline])
        x, y, radius = circle
        mask -= draw_segmentation([_polygon(x, y, _CIRCLE * (0.5 * radius))], self.height, self.width)
        code = coco_mask.encode(np.asfortranarray(mask))
        return Region(category_id, mask, {"size": [self.height, self.width], "counts": code["counts"].decode()})

    def _crowd(self, category_id: int, circle: _Circle) -> Region:
        """Return many small shapes as one region in run-length code, like COCO's crowds."""
        x, y, radius = circle
        mask = np.zeros((self.height, self.width), np.uint8)
        for row in (-0.5, 0.0, 0.5):
            for column in (-0.5, 0.0, 0.5):
                small = (x + column * radius, y + row * radius, self.rng.uniform(0.15, 0.2) * radius)
                mask |= draw_segmentation([self._outline(THINGS[category_id], small)], self.height, self.width)
        changes = np.flatnonzero(np.diff(mask.ravel(order="F"), prepend=0))
        counts = np.diff(np.concatenate([[0], changes, [mask.size]]))
        code = {"size": [self.height, self.width], "counts": counts.tolist()}
        return Region(category_id, mask, code, is_crowd=True)

    def _outline(self, name: str, circle: _Circle) -> list[float]:
        x, y, radius = circle
        angle = self.rng.uniform(-0.3, 0.3)
        turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        return _polygon(x, y, (_OUTLINES[name] * radius) @ turn)

    def divide_ground(self, things: Sequence[Region]) -> list[Region]:
        """Divide the area without things at a slanted horizon; a band along the horizon stays unlabeled."""
        upper, lower = self.rng.permutation(tuple(STUFF))[:2].tolist()
        slope = self.rng.uniform(-0.2, 0.2)
        horizon = self.height * self.rng.uniform(0.3, 0.7) + (np.arange(self.width) - self.width / 2) * slope
        rows, edge = np.arange(self.height, dtype=np.int16)[:, None], horizon.astype(np.int16)
        free = _region_numbers((self.height, self.width), things) == 0
        parts = ((upper, (rows < edge) & free), (lower, (rows >= edge + _UNLABELED_BAND_PX) & free))
        return [Region(category, pixels.astype(np.uint8), None) for category, pixels in parts if pixels.any()]

    def paint(self, regions: Sequence[Region]) -> NDArray[np.uint8]:
        """Paint stuff as dull textures and things as bright areas, with a brightness ramp and grain."""
        shape = (self.height, self.width)
        colors = [_UNLABELED_COLOR]
        light = shading(*shape, self.rng) // 3
        light += np.frombuffer(self.rng.bytes(self.height * self.width), np.int8).reshape(shape) >> 4
        for region in regions:
            if region.category_id in STUFF:
                colors.append(self.rng.randint(90, 150, 3).tolist())
                texture = _TEXTURES[STUFF[region.category_id]](*shape, self.rng)
                light += ((24 * texture) >> 7) * region.mask
            else:
                hue = (tuple(THINGS).index(region.category_id) + self.rng.uniform(-0.2, 0.2)) / len(THINGS) % 1
                saturation, value = self.rng.uniform(0.8, 1), self.rng.uniform(0.8, 1)
                colors.append(rgb_levels(hue, saturation=saturation, value=value))
        numbers = _region_numbers(shape, regions)
        pixels = np.empty((*shape, 3), np.uint8)
        for channel, levels in enumerate(np.array(colors, np.int16).T):
            pixels[:, :, channel] = np.clip(levels[numbers] + light, 0, 255)
        return pixels


def _polygon(x: float, y: float, corners: NDArray[np.float64]) -> list[float]:
    polygon: list[float] = np.round(corners + (x, y), 2).ravel().tolist()
    return polygon


def _generate(options: CocoSampleOptions, progress: Callable[[int, int], None] | None, directory: Path) -> str:
    for name in (TRAIN_SPLIT, EVAL_SPLIT, f"panoptic_{TRAIN_SPLIT}", f"panoptic_{EVAL_SPLIT}", "annotations"):
        (directory / name).mkdir()
    jobs = [(TRAIN_SPLIT, number) for number in range(options.train_samples)]
    jobs += [(EVAL_SPLIT, number) for number in range(options.val_samples)]
    described = list(map_in_order(partial(_write, options, directory), jobs, progress))
    content = hashlib.sha256(b"".join(image.digest for image in described))
    train, val = described[: options.train_samples], described[options.train_samples :]
    for split, images in ((TRAIN_SPLIT, train), (EVAL_SPLIT, val)):
        for name, document in ((instances_name(split), _instances(images)), (panoptic_name(split), _panoptic(images))):
            text = json.dumps(document, separators=(",", ":")).encode()
            (directory / name).write_bytes(text)
            content.update(hashlib.sha256(text).digest())
    return content.hexdigest()


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
        regions=[
            {
                "category_id": region.category_id,
                "iscrowd": int(region.is_crowd),
                "area": int(region.mask.sum(dtype=np.int64)),
                "bbox": coco_mask.toBbox(coco_mask.encode(np.asfortranarray(region.mask))).tolist(),
                "segmentation": region.segmentation,
            }
            for region in scene.regions
        ],
        digest=hashlib.sha256(data).digest() + hashlib.sha256(colors.tobytes()).digest(),
    )


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
        return {"id": number * _GRAY_SEGMENT_ID, **kept}

    return {
        "images": [described.image for described in images],
        "annotations": [
            {
                "image_id": described.image["id"],
                "file_name": described.image["file_name"].replace(".jpg", ".png"),
                "segments_info": [segment(number, region) for number, region in enumerate(described.regions, start=1)],
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
