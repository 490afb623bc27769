"""Deterministic sample dataset for image classification: small, learnable, and labeled as generated.

Every class is a pattern (stripes, checks, rings …) in its own hue, at random scale, phase and brightness, with the size
and grain of photographs. All arithmetic uses integers or exactly rounded operations, and the random numbers come from
numpy's frozen legacy generator. So the pixels are the same on every machine.
"""

from __future__ import annotations

import colorsys
import hashlib
import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import simplejpeg

from chipperf.data.generated_dataset import GeneratedDataset
from chipperf.data.imagefolder import EVAL_SPLIT, TRAIN_SPLIT, imagefolder_files
from chipperf.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

J = TypeVar("J")
R = TypeVar("R")

GENERATOR_VERSION = 1
"""Increased whenever the generated pixels change."""

_JPEG_QUALITY = 90
_BYTES_PER_PIXEL = 0.7
_PORTRAIT_SHARE = 0.25
_PHASES = 256
_WAVE = np.round(127 * np.sin(2 * np.pi * np.arange(_PHASES) / _PHASES)).astype(np.int16)


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleOptions:
    """Contents of a sample dataset: images per class, and longer and shorter side of an image in pixels."""

    classes: int = 10
    train_per_class: int = 100
    val_per_class: int = 20
    width: int = 500
    height: int = 375
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("classes", "train_per_class", "val_per_class", "width", "height"):
            if getattr(self, name) < 1:
                raise ConfigError(f"sample dataset: {name} must be at least 1, not {getattr(self, name)}")

    @property
    def directory_name(self) -> str:
        """Name that is unique to the options and the generator version."""
        counts = f"{self.classes}x{self.train_per_class}x{self.val_per_class}"
        return f"sample-v{GENERATOR_VERSION}-{counts}-{self.width}x{self.height}-seed{self.seed}"


def ensure_sample_dataset(
    options: SampleOptions | None = None,
    root: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Return the directory of a sample dataset; generate it if it does not exist, see :class:`GeneratedDataset`.

    ``progress`` is called with the number of finished images and the total number.
    """
    options = options or SampleOptions()
    images = options.classes * (options.train_per_class + options.val_per_class)
    return GeneratedDataset(
        directory_name=options.directory_name,
        name=f"chipperf-sample-{options.classes}",
        generator_version=GENERATOR_VERSION,
        options=asdict(options),
        train_samples=options.classes * options.train_per_class,
        eval_samples=options.classes * options.val_per_class,
        # Five times the chance level, which any model that learns reaches in a short run; a small one also reaches 0.5.
        target={"target_top1": min(0.5, 5 / options.classes)},
        needed_bytes=int(images * options.width * options.height * _BYTES_PER_PIXEL),
        generate=partial(_generate, options, progress),
        files=imagefolder_files,
    ).ensure(root)


def _generate(options: SampleOptions, progress: Callable[[int, int], None] | None, directory: Path) -> str:
    jobs = [
        (split, label, number)
        for split, per_class in ((TRAIN_SPLIT, options.train_per_class), (EVAL_SPLIT, options.val_per_class))
        for label in range(options.classes)
        for number in range(per_class)
    ]
    names = class_names(options.classes)
    for split in (TRAIN_SPLIT, EVAL_SPLIT):
        for name in names:
            (directory / split / name).mkdir(parents=True)

    def write(job: tuple[str, int, int]) -> tuple[str, str]:
        split, label, number = job
        data = encode(render(options, split, label, number))
        relative = f"{split}/{names[label]}/{number:05d}.jpg"
        (directory / relative).write_bytes(data)
        return relative, hashlib.sha256(data).hexdigest()

    content = hashlib.sha256()
    for relative, digest in map_in_order(write, jobs, progress):
        content.update(f"{relative} {digest}\n".encode())
    return content.hexdigest()


def map_in_order(
    function: Callable[[J], R], jobs: Sequence[J], progress: Callable[[int, int], None] | None
) -> Iterator[R]:
    """Yield the function's results in the order of the jobs, computed with one thread per core.

    ``progress`` is called with the number of finished jobs and the total number.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            for done, result in enumerate(pool.map(function, jobs), start=1):
                yield result
                if progress is not None:
                    progress(done, len(jobs))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def class_names(classes: int) -> tuple[str, ...]:
    """Return one descriptive name per class, in label order."""
    digits = len(str(classes - 1))
    return tuple(
        f"class{label:0{digits}d}_hue{_hue_degrees(label, classes):03d}_{tuple(_PATTERNS)[label % len(_PATTERNS)]}"
        for label in range(classes)
    )


def _hue_degrees(label: int, classes: int) -> int:
    return label * 360 // classes


def render(options: SampleOptions, split: str, label: int, number: int) -> NDArray[np.uint8]:
    """Return the RGB pixels of one image, shape ``(height, width, 3)``; portrait images swap width and height."""
    rng, height, width = start_image(f"{options.seed}/{split}/{label}/{number}", options.height, options.width)
    wave = tuple(_PATTERNS.values())[label % len(_PATTERNS)](height, width, rng)
    shade = shading(height, width, rng)
    hue = (_hue_degrees(label, options.classes) + rng.uniform(-0.25, 0.25) * 360 / options.classes) / 360 % 1
    light = rgb_levels(hue, value=rng.uniform(0.7, 0.95), saturation=rng.uniform(0.5, 0.9))
    dark = rgb_levels(hue, value=rng.uniform(0.15, 0.4), saturation=rng.uniform(0.5, 0.9))
    pixels = np.empty((height, width, 3), np.uint8)
    for channel in range(3):
        middle, swing = (light[channel] + dark[channel]) // 2, (light[channel] - dark[channel]) // 2
        grain = np.frombuffer(rng.bytes(height * width), np.int8).reshape(height, width)
        values = middle + ((swing * wave) >> 7) + shade + (grain >> 3)
        pixels[:, :, channel] = np.clip(values, 0, 255)
    return pixels


def start_image(key: str, height: int, width: int) -> tuple[np.random.RandomState, int, int]:
    """Return the random numbers of the image with a key, and its height and width, swapped in portrait images."""
    rng = np.random.RandomState(np.frombuffer(hashlib.sha256(key.encode()).digest(), np.uint32))
    if rng.random_sample() < _PORTRAIT_SHARE:
        return rng, width, height
    return rng, height, width


def encode(pixels: NDArray[np.uint8]) -> bytes:
    """Return the JPEG file of an image, with the chroma subsampling of most photographs."""
    data: bytes = simplejpeg.encode_jpeg(pixels, quality=_JPEG_QUALITY, colorsubsampling="420")
    return data


def rgb_levels(hue: float, *, saturation: float, value: float) -> list[int]:
    """Return red, green and blue from 0 to 255 of a color whose parts are fractions."""
    return [round(255 * part) for part in colorsys.hsv_to_rgb(hue, saturation, value)]


def shading(height: int, width: int, rng: np.random.RandomState) -> NDArray[np.int16]:
    """Return a slanted brightness ramp, like light from one side."""
    slope_y, slope_x = rng.randint(-60, 61), rng.randint(-60, 61)
    rows = (np.arange(height) - height // 2) * slope_y // height
    columns = (np.arange(width) - width // 2) * slope_x // width
    return (rows[:, None] + columns).astype(np.int16)


def linear_wave(height: int, width: int, rng: np.random.RandomState, degrees: float) -> NDArray[np.int16]:
    """Return a plane wave, values -127 to 127, with 12 to 40 pixels per period in the direction ``degrees``."""
    period = rng.uniform(12, 40)
    angle = math.radians(degrees + rng.uniform(-10, 10))
    # Phases in 1/256 of a period, with 8 fractional bits.
    step_x = round(_PHASES * 256 * math.cos(angle) / period)
    step_y = round(_PHASES * 256 * math.sin(angle) / period)
    rows, columns = np.arange(height, dtype=np.int32)[:, None], np.arange(width, dtype=np.int32)
    phase = rng.randint(_PHASES * 256) + rows * step_y + columns * step_x
    wave: NDArray[np.int16] = _WAVE[phase >> 8 & _PHASES - 1]
    return wave


def _stripes_diagonal(height: int, width: int, rng: np.random.RandomState) -> NDArray[np.int16]:
    # Training flips images, so both diagonals are one class.
    return linear_wave(height, width, rng, 45 if rng.random_sample() < 0.5 else 135)


def checks(height: int, width: int, rng: np.random.RandomState) -> NDArray[np.int16]:
    """Return a chessboard pattern of the values -127 and 127."""
    rows, columns = linear_wave(height, width, rng, 90), linear_wave(height, width, rng, 0)
    same_sign: NDArray[np.int16] = ((rows > 0) == (columns > 0)).astype(np.int16)
    return 254 * same_sign - 127


def rings(height: int, width: int, rng: np.random.RandomState) -> NDArray[np.int16]:
    """Return a circular wave around a random point, values -127 to 127."""
    y, x = rng.randint(height), rng.randint(width)
    squares = (np.arange(height)[:, None] - y) ** 2 + (np.arange(width) - x) ** 2
    # IEEE 754 requires exact rounding of sqrt, so the phases are the same everywhere.
    phase = (np.sqrt(squares) * round(_PHASES * 256 / rng.uniform(12, 40))).astype(np.int64)
    wave: NDArray[np.int16] = _WAVE[phase >> 8 & _PHASES - 1]
    return wave


_PATTERNS: dict[str, Callable[[int, int, np.random.RandomState], NDArray[np.int16]]] = {
    "stripes-horizontal": partial(linear_wave, degrees=90),
    "rings": rings,
    "stripes-vertical": partial(linear_wave, degrees=0),
    "checks": checks,
    "stripes-diagonal": _stripes_diagonal,
}
