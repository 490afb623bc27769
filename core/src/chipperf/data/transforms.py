"""The reference recipe for ImageNet classification on uint8 pixels.

Training: random resized crop (Szegedy et al., "Going deeper with convolutions", 2015: area 8–100 %, aspect ratio
    3/4–4/3) to 224x224 and horizontal flip. Evaluation: shorter side to 256, then the central 224x224. Both resize
    bilinearly with antialiasing, as Pillow does. Normalization follows after collation, on the device, so that uint8 is
    copied instead of float32: a quarter of the bytes.
"""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import interpolate

from chipperf.data.decode import Box, decode_region, decode_rgb, read_size

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Mean of the RGB channels on the scale 0–1."""

IMAGENET_STD = (0.229, 0.224, 0.225)
"""Standard deviation of the RGB channels on the scale 0–1."""

_CROP_AREA = (0.08, 1.0)
_CROP_RATIO = (3 / 4, 4 / 3)
_CROP_ATTEMPTS = 10


class TrainingTransform:
    """Random resized crop of an encoded image to ``size`` x ``size`` pixels, and horizontal flip.

    The random numbers of a sample depend only on (seed, epoch, sample index), so a run sees the same pixels with any
    number of workers and ranks.
    """

    def __init__(self, seed: int, size: int = 224) -> None:
        self._seed = seed
        self._size = size

    def __call__(self, data: bytes, name: str, epoch: int, index: int) -> torch.Tensor:
        """Return the uint8 crop of shape ``(3, size, size)``, channels last in memory, of sample ``index`` in an epoch.

        Raises:
            DataError: The file cannot be decoded; the error has its ``name``.
        """
        rng = random.Random(f"{self._seed}/{epoch}/{index}")
        box = random_resized_crop_box(*read_size(data, name), rng)
        crop = resize(decode_region(data, box, name), self._size, self._size)
        return crop.flip(-1) if rng.random() < 0.5 else crop


class EvaluationTransform:
    """Resize of an encoded image's shorter side to ``resize_to`` pixels, and central crop of ``size`` x ``size``."""

    def __init__(self, resize_to: int = 256, size: int = 224) -> None:
        self._resize_to = resize_to
        self._size = size

    def __call__(self, data: bytes, name: str, epoch: int, index: int) -> torch.Tensor:
        """Return the crop like :class:`TrainingTransform`; epoch and index have no effect."""
        pixels = decode_rgb(data, name)
        height, width = shorter_side_to(self._resize_to, *pixels.shape[:2])
        top, left = round((height - self._size) / 2), round((width - self._size) / 2)
        return resize(pixels, height, width)[:, top : top + self._size, left : left + self._size]


class Normalize:
    """Scales collated uint8 images on a device to float32 with zero mean and unit standard deviation per channel."""

    def __init__(self, device: torch.device) -> None:
        self._scale = torch.tensor([1 / (255 * deviation) for deviation in IMAGENET_STD], device=device)
        offset = [-mean / deviation for mean, deviation in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)]
        self._offset = torch.tensor(offset, device=device)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Return ``(images / 255 - mean) / std`` of uint8 images ``(N, C, H, W)`` in the same memory format."""
        normalized = images.float()
        if images.is_contiguous(memory_format=torch.channels_last):
            # With C innermost, broadcasting (C, 1, 1) would loop over three elements, several times slower on a CPU. So
            # one operand is a whole image row with interleaved channels.
            count, channels, height, width = images.shape
            values = normalized.permute(0, 2, 3, 1).view(count * height, width * channels)
            scale, offset = self._scale.repeat(width), self._offset.repeat(width)
        else:
            values, scale, offset = normalized, self._scale.view(-1, 1, 1), self._offset.view(-1, 1, 1)
        torch.addcmul(offset, values, scale, out=values)
        return normalized


def random_resized_crop_box(height: int, width: int, rng: random.Random) -> Box:
    """Draw a crop with the distribution of torchvision's ``RandomResizedCrop``.

    The area fraction and the logarithm of the aspect ratio are uniform. After ten crops that do not fit the image, the
    result is the largest central crop with an allowed ratio.

    Only ``rng.random()`` is used, because its sequence is the same in all Python versions.
    """
    log_ratio = (math.log(_CROP_RATIO[0]), math.log(_CROP_RATIO[1]))
    for _ in range(_CROP_ATTEMPTS):
        crop_area = height * width * _uniform(rng, *_CROP_AREA)
        aspect = math.exp(_uniform(rng, *log_ratio))
        crop_width = round(math.sqrt(crop_area * aspect))
        crop_height = round(math.sqrt(crop_area / aspect))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            top, left = draw_integer(rng, 0, height - crop_height), draw_integer(rng, 0, width - crop_width)
            return Box(top, left, crop_height, crop_width)
    crop_width = min(width, round(height * _CROP_RATIO[1]))
    crop_height = min(height, round(width / _CROP_RATIO[0]))
    return Box((height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width)


def draw_integer(rng: random.Random, low: int, high: int) -> int:
    """Draw from ``low`` to ``high`` inclusive with ``random()``, whose sequence is the same in all Python versions."""
    return low + int(rng.random() * (high - low + 1))


def shorter_side_to(length: int, height: int, width: int, *, longest: int | None = None) -> tuple[int, int]:
    """Return height and width with the shorter side scaled to ``length``; the longer is rounded down as in torchvision.

    The scale is smaller if the longer side would exceed ``longest``.
    """
    shorter, longer = min(height, width), max(height, width)
    if longest is not None and longer / shorter * length > longest:
        length = max(1, round(longest * shorter / longer))
    longer = int(length * longer / shorter)
    return (length, longer) if height <= width else (longer, length)


def resize(pixels: NDArray[np.uint8], height: int, width: int) -> torch.Tensor:
    """Resize RGB pixels ``(h, w, 3)`` bilinearly with antialiasing.

    The result has shape ``(3, height, width)``, channels last in memory.
    """
    # torch recognizes views in this order as channels last. After a permutation first, torch would transpose the
    # pixels.
    images = torch.from_numpy(pixels).unsqueeze(0).permute(0, 3, 1, 2)
    if _has_native_uint8_resize():
        resized = interpolate(images, (height, width), mode="bilinear", antialias=True)
    else:
        resized = interpolate(images.float(), (height, width), mode="bilinear", antialias=True).round_().to(torch.uint8)
    return resized[0]


def resize_name() -> str:
    """Return the name of the implementation of :func:`resize` on this machine, for a run's record."""
    arithmetic = "uint8" if _has_native_uint8_resize() else "float32"
    return f"torch {torch.__version__} antialiased bilinear {arithmetic}"


def _has_native_uint8_resize() -> bool:
    # On other machines torch rounds uint8 resizes differently from Pillow, and is slower than in float32.
    # torch 2.0 has neither the function nor these kernels.
    return hasattr(torch.backends, "cpu") and torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")


def _uniform(rng: random.Random, low: float, high: float) -> float:
    return low + (high - low) * rng.random()
