"""Decoding of image files of any format to RGB, like Pillow's ``convert("RGB")`` in the reference loader."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from chipperf.data.turbojpeg import Box, TurboJpegError, load_turbojpeg
from chipperf.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_JPEG_START = b"\xff\xd8"

_CMYK_COLORSPACES = ("CMYK", "YCCK")
"""Color spaces for which libjpeg-turbo and Pillow round the conversion to RGB differently."""


def decoder_name() -> str:
    """Return the name of the decoder that :func:`decode_region` uses for JPEG files, for a run's record."""
    turbojpeg = load_turbojpeg()
    if turbojpeg is not None:
        return "libjpeg-turbo 3 region"
    return whole_decoder_name()


def whole_decoder_name() -> str:
    """Return the name of the decoder that :func:`decode_rgb` uses for JPEG files, for a run's record."""
    return f"simplejpeg {simplejpeg.__version__} whole"


def read_size(data: bytes, name: str) -> tuple[int, int]:
    """Return height and width in pixels without decoding.

    Args:
        data: Content of the file, or at least its header.
        name: Name of the file for error messages.

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
    with _open(data, name) as image:
        return image.height, image.width


def decode_rgb(data: bytes, name: str) -> NDArray[np.uint8]:
    """Decode an image to RGB, shape ``(height, width, 3)``.

    libjpeg-turbo decodes JPEG. Pillow decodes other formats, and JPEG files that libjpeg-turbo refuses or warns about.
    So Pillow decides what is readable: CMYK, palettes, grayscale, 16 bits, misnamed files.

    Args:
        data: Content of the file.
        name: Name of the file for error messages.

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
    with _open(data, name) as image:
        return _to_rgb(image, name)


def decode_region(data: bytes, box: Box, name: str) -> NDArray[np.uint8]:
    """Decode a rectangle of an image to RGB, with the same pixels as ``decode_rgb(data)``.

    With libjpeg-turbo 3, only this rectangle of a JPEG is decoded.

    Args:
        data: Content of the file.
        box: Rectangle inside the image.
        name: Name of the file for error messages.

    Returns:
        Pixels of shape ``(box.height, box.width, 3)``; rows need not be contiguous.

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


def _open(data: bytes, name: str) -> Image.Image:
    if not data:
        raise DataError(
            f"{name}: the file is empty", hint="replace or remove it; `perf data check DIR` lists all such files"
        )
    try:
        return Image.open(io.BytesIO(data))
    except Exception as error:
        raise _unreadable(name, error) from error


def _to_rgb(image: Image.Image, name: str) -> NDArray[np.uint8]:
    # Pillow's format plugins raise many exception types for damaged data (OSError, SyntaxError, struct.error,
    # ValueError, …).
    try:
        if image.mode.startswith("I"):
            high_byte = np.clip(np.asarray(image) >> 8, 0, 255).astype(np.uint8)
            return np.repeat(high_byte[:, :, None], 3, axis=2)
        if image.mode == "P" and "transparency" in image.info:
            image = image.convert("RGBA")
        return np.array(image.convert("RGB"))
    except Exception as error:
        raise _unreadable(name, error) from error


def _unreadable(name: str, error: Exception) -> DataError:
    reason = "not a known image format" if isinstance(error, UnidentifiedImageError) else str(error)
    return DataError(
        f"{name}: cannot be decoded: {reason}",
        hint="replace or remove it; `perf data check --full DIR` lists all such files",
    )
