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

from chipperf.data.decode import decode_region, decode_rgb, read_size
from chipperf.data.turbojpeg import Box

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Mean of the RGB channels on the scale 0–1."""

IMAGENET_STD = (0.229, 0.224, 0.225)
"""Standard deviation of the RGB channels on the scale 0–1."""

CROP_AREA = (0.08, 1.0)
CROP_RATIO = (3 / 4, 4 / 3)
_CROP_ATTEMPTS = 10


class TrainingTransform:
    """Random resized crop and horizontal flip of an encoded image.

    The random numbers of a sample depend only on (seed, epoch, sample index), so a run sees the same pixels with any
    number of workers and ranks.

    Args:
        seed: Seed of the run.
        size: Height and width of the result in pixels.
    """

    def __init__(self, seed: int, size: int = 224) -> None:
        self._seed = seed
        self._size = size

    def __call__(self, data: bytes, name: str, epoch: int, index: int) -> torch.Tensor:
        """Return the uint8 crop of shape ``(3, size, size)``, channels last in memory.

        Args:
            data: Content of the image file.
            name: Name of the file for error messages.
            epoch: Epoch for which the sample is loaded.
            index: Index of the sample in the dataset.

        Raises:
            DataError: The file cannot be decoded.
        """
        rng = random.Random(f"{self._seed}/{epoch}/{index}")
        box = random_resized_crop_box(*read_size(data, name), rng)
        crop = resize(decode_region(data, box, name), self._size, self._size)
        return crop.flip(-1) if rng.random() < 0.5 else crop


class EvaluationTransform:
    """Resize of the shorter side and central crop of an encoded image.

    Args:
        resize_to: Length of the resized image's shorter side in pixels.
        size: Height and width of the result in pixels.
    """

    def __init__(self, resize_to: int = 256, size: int = 224) -> None:
        self._resize_to = resize_to
        self._size = size

    def __call__(self, data: bytes, name: str, epoch: int, index: int) -> torch.Tensor:
        """Return the uint8 crop of shape ``(3, size, size)``, channels last in memory.

        Epoch and index have no effect.

        Raises:
            DataError: The file cannot be decoded.
        """
        pixels = decode_rgb(data, name)
        height, width = _shorter_side_to(self._resize_to, *pixels.shape[:2])
        top, left = round((height - self._size) / 2), round((width - self._size) / 2)
        return resize(pixels, height, width)[:, top : top + self._size, left : left + self._size]


class Normalize:
    """Scales collated uint8 images to float32 with zero mean and unit standard deviation per channel.

    Args:
        device: Device of the images.
        mean: Mean per channel on the scale 0–1.
        std: Standard deviation per channel on the scale 0–1.
    """

    def __init__(
        self,
        device: torch.device,
        mean: tuple[float, ...] = IMAGENET_MEAN,
        std: tuple[float, ...] = IMAGENET_STD,
    ) -> None:
        self._scale = torch.tensor([1 / (255 * deviation) for deviation in std], device=device)
        offset = [-average / deviation for average, deviation in zip(mean, std, strict=True)]
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


def random_resized_crop_box(
    height: int,
    width: int,
    rng: random.Random,
    area: tuple[float, float] = CROP_AREA,
    ratio: tuple[float, float] = CROP_RATIO,
) -> Box:
    """Draw a crop with the distribution of torchvision's ``RandomResizedCrop``.

    The area fraction and the logarithm of the aspect ratio are uniform. After ten crops that do not fit the image, the
    result is the largest central crop with an allowed ratio.

    Only ``rng.random()`` is used, because its sequence is the same in all Python versions.
    """
    log_ratio = (math.log(ratio[0]), math.log(ratio[1]))
    for _ in range(_CROP_ATTEMPTS):
        crop_area = height * width * _uniform(rng, *area)
        aspect = math.exp(_uniform(rng, *log_ratio))
        crop_width = round(math.sqrt(crop_area * aspect))
        crop_height = round(math.sqrt(crop_area / aspect))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            top = int(rng.random() * (height - crop_height + 1))
            left = int(rng.random() * (width - crop_width + 1))
            return Box(top, left, crop_height, crop_width)
    crop_width = min(width, round(height * ratio[1]))
    crop_height = min(height, round(width / ratio[0]))
    return Box((height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width)


def resize(pixels: NDArray[np.uint8], height: int, width: int) -> torch.Tensor:
    """Resize RGB pixels bilinearly with antialiasing.

    Args:
        pixels: Pixels of shape ``(h, w, 3)``.
        height: Height of the result.
        width: Width of the result.

    Returns:
        uint8 tensor of shape ``(3, height, width)``, channels last in memory.
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
    return torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")


def _shorter_side_to(length: int, height: int, width: int) -> tuple[int, int]:
    """Return the size with the shorter side scaled to ``length``; the longer side is rounded down as in torchvision."""
    if height <= width:
        return length, int(length * width / height)
    return int(length * height / width), length


def _uniform(rng: random.Random, low: float, high: float) -> float:
    return low + (high - low) * rng.random()
