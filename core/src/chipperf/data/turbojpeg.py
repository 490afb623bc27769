"""Binding to the TurboJPEG 3 C API, which can decode a region of a JPEG without the pixels around it.

Only the TurboJPEG layer of libjpeg-turbo is used, because it reports errors by return code. The libjpeg API uses
``longjmp``, which must not cross Python frames. Constants and semantics: ``turbojpeg.h`` of libjpeg-turbo 3.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import threading
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from chipperf.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

LIBRARY_VARIABLE = "PERF_LIBTURBOJPEG"
"""Environment variable: path of the shared library, or ``off`` to use none."""

_INIT_DECOMPRESS = 1
_PARAM_STOP_ON_WARNING = 0
_PARAM_SUBSAMPLING = 4
_PARAM_WIDTH = 5
_PARAM_HEIGHT = 6
_PIXEL_FORMAT_RGB = 0

_MCU_WIDTHS = (8, 16, 16, 8, 8, 32, 8)
"""Width in pixels of an MCU for TJSAMP_444, 422, 420, GRAY, 440, 411 and 441."""

_UPSAMPLING_MARGIN = 2
"""Pixels next to a region that must be decoded with it, because smooth chroma upsampling may read them."""


class Box(NamedTuple):
    """A rectangle of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


class TurboJpegError(Exception):
    """libjpeg-turbo refused the data or warned about them."""


class _Region(ctypes.Structure):
    _fields_ = (("x", ctypes.c_int), ("y", ctypes.c_int), ("w", ctypes.c_int), ("h", ctypes.c_int))


class TurboJpeg:
    """Decoder that uses one loaded library; every thread has its own handle."""

    def __init__(self, library: ctypes.CDLL) -> None:
        handle, size, integer = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
        signatures: dict[str, tuple[Any, tuple[Any, ...]]] = {
            "tj3Init": (handle, (integer,)),
            "tj3Destroy": (None, (handle,)),
            "tj3Set": (integer, (handle, integer, integer)),
            "tj3Get": (integer, (handle, integer)),
            "tj3DecompressHeader": (integer, (handle, ctypes.c_char_p, size)),
            "tj3SetCroppingRegion": (integer, (handle, _Region)),
            "tj3Decompress8": (integer, (handle, ctypes.c_char_p, size, ctypes.c_void_p, integer, integer)),
            "tj3GetErrorStr": (ctypes.c_char_p, (handle,)),
        }
        for name, (result, arguments) in signatures.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
        self._library = library
        self._threads = threading.local()

    def read_size(self, data: bytes) -> tuple[int, int]:
        """Return height and width in pixels from the header; raises like :meth:`decode_region`."""
        handle = self._read_header(data)
        return self._library.tj3Get(handle, _PARAM_HEIGHT), self._library.tj3Get(handle, _PARAM_WIDTH)

    def decode_region(self, data: bytes, box: Box) -> NDArray[np.uint8]:
        """Decode the pixels of ``box`` as RGB, shape ``(box.height, box.width, 3)``.

        The pixels equal those of a full decode: the columns next to the box that smooth chroma upsampling reads are
        decoded too, and then cut off.

        Raises:
            TurboJpegError: The data are damaged, or cannot be decoded to RGB or by region.
        """
        handle = self._read_header(data)
        subsampling = self._library.tj3Get(handle, _PARAM_SUBSAMPLING)
        if not 0 <= subsampling < len(_MCU_WIDTHS):
            raise TurboJpegError("unknown chroma subsampling")
        mcu_width = _MCU_WIDTHS[subsampling]
        image_width = self._library.tj3Get(handle, _PARAM_WIDTH)
        left = max(0, box.left - _UPSAMPLING_MARGIN) // mcu_width * mcu_width
        right = min(image_width, box.left + box.width + _UPSAMPLING_MARGIN)
        self._check(
            handle, self._library.tj3SetCroppingRegion(handle, _Region(left, box.top, right - left, box.height))
        )
        pixels = np.empty((box.height, right - left, 3), np.uint8)
        pitch = pixels.strides[0]
        status = self._library.tj3Decompress8(handle, data, len(data), pixels.ctypes.data, pitch, _PIXEL_FORMAT_RGB)
        self._check(handle, status)
        return pixels[:, box.left - left : box.left - left + box.width]

    def _read_header(self, data: bytes) -> int:
        """Return this thread's handle after it read the header of ``data``."""
        handle: int | None = getattr(self._threads, "handle", None)
        if handle is None:
            handle = self._library.tj3Init(_INIT_DECOMPRESS)
            if not handle:
                raise TurboJpegError("cannot create a decoder")
            self._library.tj3Set(handle, _PARAM_STOP_ON_WARNING, 1)
            self._threads.handle = handle
        self._check(handle, self._library.tj3DecompressHeader(handle, data, len(data)))
        return handle

    def _check(self, handle: int, status: int) -> None:
        if status:
            message = self._library.tj3GetErrorStr(handle).decode(errors="replace")
            # After a failed header read, the handle would continue at that point with the next image.
            self._library.tj3Destroy(handle)
            self._threads.handle = None
            raise TurboJpegError(message)


@lru_cache(maxsize=1)
def load_turbojpeg() -> TurboJpeg | None:
    """Return the decoder for the machine's libturbojpeg, or ``None`` if no library with region decoding exists.

    Raises:
        ConfigError: ``PERF_LIBTURBOJPEG`` names a library that cannot be loaded or is too old.
    """
    named = os.environ.get(LIBRARY_VARIABLE)
    if named == "off":
        return None
    path = named or ctypes.util.find_library("turbojpeg")
    if not path:
        return None
    try:
        return TurboJpeg(ctypes.CDLL(path))
    except (OSError, AttributeError) as error:
        if not named:
            return None
        raise ConfigError(
            f"{LIBRARY_VARIABLE}={named}: not a usable libturbojpeg ({error})",
            hint=f"name a libturbojpeg of libjpeg-turbo 3 or newer, or unset {LIBRARY_VARIABLE}",
        ) from error
