"""Deterministic sample dataset for image classification: small, learnable, and labeled as generated.

Every class is a pattern (stripes, checks, rings …) in its own hue, at random scale, phase and brightness, with the size
and grain of photographs. All arithmetic uses integers or exactly rounded operations, and the random numbers come from
numpy's frozen legacy generator. So the pixels are the same on every machine.
"""

from __future__ import annotations

import colorsys
import errno
import hashlib
import json
import math
import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import platformdirs
import simplejpeg

from chipperf.data.dataset_identity import MANIFEST_NAME, listing_sha256, read_manifest
from chipperf.data.imagefolder import EVAL_SPLIT, TRAIN_SPLIT, imagefolder_files
from chipperf.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

J = TypeVar("J")
R = TypeVar("R")

GENERATOR_VERSION = 1
"""Increased whenever the generated pixels change."""

_JPEG_QUALITY = 90
_PORTRAIT_SHARE = 0.25
_ESTIMATED_BYTES_PER_PIXEL = 0.7
_PHASES = 256
_WAVE = np.round(127 * np.sin(2 * np.pi * np.arange(_PHASES) / _PHASES)).astype(np.int16)


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleOptions:
    """Contents of a sample dataset.

    Attributes:
        classes: Number of classes.
        train_per_class: Training images per class.
        val_per_class: Evaluation images per class.
        width: Longer side of an image in pixels.
        height: Shorter side of an image in pixels.
        seed: Seed of the generator.
    """

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
    def images(self) -> int:
        """Number of images in both splits."""
        return self.classes * (self.train_per_class + self.val_per_class)

    @property
    def directory_name(self) -> str:
        """Name that is unique to the options and the generator version."""
        counts = f"{self.classes}x{self.train_per_class}x{self.val_per_class}"
        return f"sample-v{GENERATOR_VERSION}-{counts}-{self.width}x{self.height}-seed{self.seed}"

    @property
    def target_top1(self) -> float:
        """Top-1 accuracy, as a fraction, that any model that learns reaches in a short run.

        It is five times the chance level, but at most 0.5, so that a small model reaches it quickly.
        """
        return min(0.5, 5 / self.classes)


def default_sample_root() -> Path:
    """Return the cache directory of sample datasets."""
    return Path(platformdirs.user_cache_dir("chipperf")) / "datasets"


def ensure_sample_dataset(
    options: SampleOptions | None = None,
    root: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Return the directory of a sample dataset; generate it if it does not exist.

    The dataset is generated under a temporary name and renamed when it is complete.

    Args:
        options: Contents of the dataset.
        root: Directory that holds sample datasets; by default in the user's cache directory.
        progress: Called with the number of finished images and the total number.

    Raises:
        DataError: The directory cannot be written, the disk is full, or something else has that name.
    """
    options = options or SampleOptions()
    return ensure_generated(
        root or default_sample_root(),
        options.directory_name,
        lambda directory: _generate(options, directory, progress),
        imagefolder_files,
        estimated_bytes=int(options.images * options.width * options.height * _ESTIMATED_BYTES_PER_PIXEL),
    )


def ensure_generated(
    root: Path,
    name: str,
    generate: Callable[[Path], None],
    files: Callable[[Path], Iterable[str]],
    *,
    estimated_bytes: int,
) -> Path:
    """Return the directory ``name`` below ``root``; generate it if it does not exist.

    The dataset is generated under a temporary name and renamed when it is complete.

    Args:
        root: Directory that holds sample datasets.
        name: Name of the dataset's directory.
        generate: Writes the dataset, with its manifest, to a directory.
        files: Lists the files whose paths and sizes the manifest's ``listing_sha256`` covers.
        estimated_bytes: Estimated size of the dataset.

    Raises:
        DataError: The directory cannot be written, the disk is full, or something else has that name.
    """
    destination = root / name
    if destination.exists():
        _require_complete(destination, files)
        return destination
    try:
        root.mkdir(parents=True, exist_ok=True)
        _require_space(root, estimated_bytes)
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=root) as partial:
            generate(Path(partial))
            _publish(Path(partial), destination, files)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _no_space(root, estimated_bytes) from error
        raise DataError(
            f"cannot write the sample dataset to {root}: {error.strerror}",
            hint="name another directory that you may write to",
        ) from error
    return destination


def _require_complete(directory: Path, files: Callable[[Path], Iterable[str]]) -> None:
    manifest = read_manifest(directory)
    if manifest is None or manifest.get("listing_sha256") != listing_sha256(directory, files(directory)):
        raise DataError(
            f"{directory} is not a complete sample dataset, or was changed", hint=f"remove {directory} and try again"
        )


def _require_space(root: Path, needed_bytes: int) -> None:
    if shutil.disk_usage(root).free < needed_bytes:
        raise _no_space(root, needed_bytes)


def _no_space(root: Path, needed_bytes: int) -> DataError:
    return DataError(
        f"no space for the sample dataset in {root}: about {needed_bytes} bytes are needed",
        hint="free some space or name a directory on another disk",
    )


def _publish(partial: Path, destination: Path, files: Callable[[Path], Iterable[str]]) -> None:
    try:
        partial.rename(destination)
    except OSError:
        # Another process generated the same dataset first.
        if not destination.exists():
            raise
        _require_complete(destination, files)
    else:
        destination.chmod(0o755)
        # TemporaryDirectory removes its directory on exit, so the directory must exist.
        partial.mkdir()


def _generate(options: SampleOptions, directory: Path, progress: Callable[[int, int], None] | None) -> None:
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
    manifest = _manifest(options, content.hexdigest(), listing_sha256(directory, imagefolder_files(directory)))
    (directory / MANIFEST_NAME).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def map_in_order(
    function: Callable[[J], R], jobs: Sequence[J], progress: Callable[[int, int], None] | None
) -> Iterator[R]:
    """Yield the function's results in the order of the jobs, computed with one thread per core.

    Args:
        function: Called with one job.
        jobs: Arguments of the calls.
        progress: Called with the number of finished jobs and the total number.
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


def _manifest(options: SampleOptions, content_sha256: str, listing: str) -> dict[str, Any]:
    return {
        "name": f"chipperf-sample-{options.classes}",
        "version": f"{GENERATOR_VERSION}",
        "kind": "generated sample, not a benchmark dataset",
        "generator_version": GENERATOR_VERSION,
        "options": asdict(options),
        "train_samples": options.classes * options.train_per_class,
        "eval_samples": options.classes * options.val_per_class,
        "content_sha256": content_sha256,
        "listing_sha256": listing,
        "target_top1": options.target_top1,
    }


def class_names(classes: int) -> tuple[str, ...]:
    """Return one descriptive name per class, in label order."""
    digits = len(str(classes - 1))
    return tuple(
        f"class{label:0{digits}d}_hue{_hue_degrees(label, classes):03d}_{tuple(_PATTERNS)[label % len(_PATTERNS)]}"
        for label in range(classes)
    )


def render(options: SampleOptions, split: str, label: int, number: int) -> NDArray[np.uint8]:
    """Return the RGB pixels of one image, shape ``(height, width, 3)``; portrait images swap width and height."""
    key = hashlib.sha256(f"{options.seed}/{split}/{label}/{number}".encode()).digest()
    rng = np.random.RandomState(np.frombuffer(key, np.uint32))
    height, width = options.height, options.width
    if rng.random_sample() < _PORTRAIT_SHARE:
        height, width = width, height
    pattern = tuple(_PATTERNS.values())[label % len(_PATTERNS)]
    wave = pattern(height, width, rng)
    shade = shading(height, width, rng)
    hue = (_hue_degrees(label, options.classes) + rng.uniform(-0.25, 0.25) * 360 / options.classes) / 360 % 1
    light, dark = _color(hue, rng, bright=True), _color(hue, rng, bright=False)
    pixels = np.empty((height, width, 3), np.uint8)
    for channel in range(3):
        middle, swing = (light[channel] + dark[channel]) // 2, (light[channel] - dark[channel]) // 2
        grain = np.frombuffer(rng.bytes(height * width), np.int8).reshape(height, width)
        values = middle + ((swing * wave) >> 7) + shade + (grain >> 3)
        pixels[:, :, channel] = np.clip(values, 0, 255)
    return pixels


def encode(pixels: NDArray[np.uint8]) -> bytes:
    """Return the JPEG file of an image, with the chroma subsampling of most photographs."""
    data: bytes = simplejpeg.encode_jpeg(pixels, quality=_JPEG_QUALITY, colorsubsampling="420")
    return data


def _hue_degrees(label: int, classes: int) -> int:
    return label * 360 // classes


def _color(hue: float, rng: np.random.RandomState, *, bright: bool) -> list[int]:
    value = rng.uniform(0.7, 0.95) if bright else rng.uniform(0.15, 0.4)
    red, green, blue = colorsys.hsv_to_rgb(hue, rng.uniform(0.5, 0.9), value)
    return [round(255 * red), round(255 * green), round(255 * blue)]


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


def _stripes_horizontal(height: int, width: int, rng: np.random.RandomState) -> NDArray[np.int16]:
    return linear_wave(height, width, rng, 90)


def _stripes_vertical(height: int, width: int, rng: np.random.RandomState) -> NDArray[np.int16]:
    return linear_wave(height, width, rng, 0)


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


_PATTERNS = {
    "stripes-horizontal": _stripes_horizontal,
    "rings": rings,
    "stripes-vertical": _stripes_vertical,
    "checks": checks,
    "stripes-diagonal": _stripes_diagonal,
}
