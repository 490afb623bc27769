from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import pytest
from chipperf.data.coco_sample import SIZES, ensure_coco_sample
from chipperf.data.sample import SampleOptions, ensure_sample_dataset
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TINY = SampleOptions(classes=3, train_per_class=7, val_per_class=3, width=48, height=36)


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sample dataset of 21 training and 9 evaluation images; not to be written to."""
    return ensure_sample_dataset(TINY, tmp_path_factory.mktemp("sample"))


@pytest.fixture(scope="session")
def photo() -> Image.Image:
    """An RGB image with smooth areas, edges and grain, of odd size so that no JPEG block fits exactly."""
    rng = np.random.RandomState(0)
    rows, columns = np.mgrid[0:117, 0:163]
    channels = [rows * 2, columns, 128 + 100 * np.sin(rows * columns / 300)]
    pixels = np.stack(channels, axis=2) + rng.randint(-20, 21, (117, 163, 3))
    pixels[30:60, 40:90] = (250, 10, 30)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


@pytest.fixture(scope="session")
def encode() -> Callable[..., bytes]:
    """Encodes a Pillow image to the bytes of a file."""

    def to_bytes(image: Image.Image, file_format: str = "JPEG", **options: object) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, file_format, **options)
        return buffer.getvalue()

    return to_bytes


@pytest.fixture(scope="session")
def coco_sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sample dataset in COCO format of 16 training and 8 evaluation images; not to be written to."""
    return ensure_coco_sample(SIZES["tiny"], tmp_path_factory.mktemp("coco"))
