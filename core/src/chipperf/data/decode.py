"""Reading image files of any format, and decoding to RGB like Pillow's ``convert("RGB")`` in the reference loader.

All functions that take a file's content name the file as ``name`` in errors.
"""

from __future__ import annotations

import io
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from chipperf.data.turbojpeg import Box, TurboJpegError, load_turbojpeg
from chipperf.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

_JPEG_START = b"\xff\xd8"

_CMYK_COLORSPACES = ("CMYK", "YCCK")
"""Color spaces for which libjpeg-turbo and Pillow round the conversion to RGB differently."""


def decoder_name() -> str:
    """Return the name of the decoder that :func:`decode_region` uses for JPEG files, for a run's record."""
    return whole_decoder_name() if load_turbojpeg() is None else "libjpeg-turbo 3 region"


def whole_decoder_name() -> str:
    """Return the name of the decoder that :func:`decode_rgb` uses for JPEG files, for a run's record."""
    return f"simplejpeg {simplejpeg.__version__} whole"


def read_size(data: bytes, name: str) -> tuple[int, int]:
    """Return height and width in pixels from at least the header of a file, without decoding.

    Raises:
        DataError: The file has no image header.
    """
    if data.startswith(_JPEG_START):
        turbojpeg = load_turbojpeg()
        try:
            if turbojpeg is not None:
                return turbojpeg.read_size(data)
            height, width, _, _ = simplejpeg.decode_jpeg_header(data)
            return int(height), int(width)
        except (TurboJpegError, ValueError):
            pass
    with _pillow_image(data, name) as image:
        return image.height, image.width


def decode_rgb(data: bytes, name: str) -> NDArray[np.uint8]:
    """Decode an image to RGB, shape ``(height, width, 3)``.

    libjpeg-turbo decodes JPEG. Pillow decodes other formats, and JPEG files that libjpeg-turbo refuses or warns about.
    So Pillow decides what is readable: CMYK, palettes, grayscale, 16 bits, misnamed files.

    Raises:
        DataError: The data are empty, truncated or not an image.
    """
    if data.startswith(_JPEG_START):
        try:
            if simplejpeg.decode_jpeg_header(data)[2] not in _CMYK_COLORSPACES:
                pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data)
                return pixels
        except ValueError:
            pass
    with _pillow_image(data, name) as image:
        if image.mode.startswith("I"):
            high_byte = np.clip(np.asarray(image) >> 8, 0, 255).astype(np.uint8)
            return np.repeat(high_byte[:, :, None], 3, axis=2)
        if image.mode == "P" and "transparency" in image.info:
            return np.array(image.convert("RGBA").convert("RGB"))
        return np.array(image.convert("RGB"))


def decode_region(data: bytes, box: Box, name: str) -> NDArray[np.uint8]:
    """Decode a rectangle of an image to RGB, with the same pixels as ``decode_rgb(data)``.

    With libjpeg-turbo 3, only this rectangle of a JPEG is decoded. Rows of the result need not be contiguous.

    Raises:
        DataError: The data are empty, truncated or not an image.
    """
    turbojpeg = load_turbojpeg()
    if turbojpeg is not None and data.startswith(_JPEG_START):
        try:
            return turbojpeg.decode_region(data, box)
        except TurboJpegError:
            pass
    pixels = decode_rgb(data, name)
    return pixels[box.top : box.top + box.height, box.left : box.left + box.width]


def require_size(found: Sequence[int], annotated: Sequence[int], path: str) -> None:
    """Raise :class:`DataError` if a file differs in size from its annotation: boxes and masks would be misplaced."""
    height, width = annotated
    if tuple(found[:2]) != (height, width):
        turned = ", perhaps as its EXIF orientation turns it" if tuple(found[:2]) == (width, height) else ""
        raise DataError(
            f"{path}: is {found[1]}x{found[0]} pixels, its annotation file says {width}x{height}{turned}",
            hint="images and annotations belong to different datasets, or to other sizes; replace one of them",
        )


@contextmanager
def _pillow_image(data: bytes, name: str) -> Iterator[Image.Image]:
    """Open an image with Pillow; any error in the block becomes a :class:`DataError`."""
    if not data:
        raise DataError(
            f"{name}: the file is empty", hint="replace or remove it; `perf data check DIR` lists all such files"
        )
    try:
        with Image.open(io.BytesIO(data)) as image:
            yield image
    # Pillow's format plugins raise many exception types for damaged data (OSError, SyntaxError, struct.error,
    # ValueError, …).
    except Exception as error:
        reason = "not a known image format" if isinstance(error, UnidentifiedImageError) else str(error)
        raise DataError(
            f"{name}: cannot be decoded: {reason}",
            hint="replace or remove it; `perf data check --full DIR` lists all such files",
        ) from error
