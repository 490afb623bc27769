"""Reading image files of any format, and decoding to RGB like Pillow's ``convert("RGB")`` in the reference loader.

All functions that take a file's content name the file as ``name`` in errors.
"""

from __future__ import annotations

import io
import re
import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from chipperf.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"

_SCAN, _RESTART_INTERVAL = b"\xff\xda", b"\xff\xdd"

_FRAME = struct.Struct(">5sHH")
_BASELINE = b"\xff\xc0\x00\x11\x08"
"""How the frame header of a baseline JPEG of three components with 8 bits begins; height and width follow."""

_ROWS_LEFT = re.compile("Corrupt JPEG data: [0-9]+ extraneous bytes before marker 0xd9")
"""What libjpeg-turbo says of data between the last row of a header and the mark of the end."""

_CMYK_COLORSPACES = ("CMYK", "YCCK")
"""Color spaces for which libjpeg-turbo and Pillow round the conversion to RGB differently."""

_UPSAMPLING_MARGIN = 2
"""Rows below a region that must be decoded with it, because smooth chroma upsampling may read them."""


class Box(NamedTuple):
    """A rectangle of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


def decoder_name(*, region: bool = False) -> str:
    """Return the name of the JPEG decoder of :func:`decode_rgb`, or :func:`decode_region`, for a run's record."""
    return f"simplejpeg {simplejpeg.__version__} {'region' if region else 'whole'}"


def read_size(data: bytes, name: str) -> tuple[int, int]:
    """Return height and width in pixels from at least the header of a file, without decoding.

    Raises:
        DataError: The file has no image header.
    """
    if data.startswith(_JPEG_START):
        try:
            height, width, _, _ = simplejpeg.decode_jpeg_header(data)
            return int(height), int(width)
        except ValueError:
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

    Of a JPEG, the rows below the rectangle are not decoded. Rows of the result need not be contiguous.

    Raises:
        DataError: The data are empty, truncated or not an image.
    """
    bottom = box.top + box.height
    pixels = _decode_rows(data, bottom + _UPSAMPLING_MARGIN)
    if pixels is None:
        pixels = decode_rgb(data, name)
    return pixels[box.top : bottom, box.left : box.left + box.width]


def _decode_rows(data: bytes, rows: int) -> NDArray[np.uint8] | None:
    """Decode the first ``rows`` rows of a JPEG, or return ``None`` if the file has to be decoded as a whole.

    The decoder gets a header that states so few rows. It then complains of the data of the others, and does so first
    if those of the rows are sound. With restart markers, damage would read the same.
    """
    if not (data.startswith(_JPEG_START) and data.endswith(_JPEG_END)):
        return None
    try:
        height, width, colors, _ = simplejpeg.decode_jpeg_header(data)
        frame = data.index(_FRAME.pack(_BASELINE, height, width))
        header_end = data.index(_SCAN, frame)
        if rows >= height or colors in _CMYK_COLORSPACES or _RESTART_INTERVAL in data[:header_end]:
            return None
        fewer = bytearray(data)
        _FRAME.pack_into(fewer, frame, _BASELINE, rows, width)
        # The same bytes may stand in metadata before the frame header.
        if simplejpeg.decode_jpeg_header(fewer)[0] != rows:
            return None
    except ValueError:
        return None
    pixels = np.empty((rows, width, 3), np.uint8)
    try:
        simplejpeg.decode_jpeg(fewer, buffer=pixels)
    except ValueError as error:
        if not _ROWS_LEFT.fullmatch(str(error)):
            return None
    return pixels


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
