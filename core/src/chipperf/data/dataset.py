"""Map-style torch dataset of the image files of one split."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from torch.utils.data import Dataset

from chipperf.errors import DataError

if TYPE_CHECKING:
    import torch

    from chipperf.data.imagefolder import Split


class SampleKey(NamedTuple):
    """Index of the sample to load, and the epoch for which it is loaded.

    The epoch is part of the key because persistent workers keep the dataset with which they started.
    """

    epoch: int
    sample: int


class ImageTransform(Protocol):
    """Decodes and transforms one image file to a uint8 tensor of shape ``(3, height, width)``."""

    def __call__(self, data: bytes, name: str, epoch: int, index: int) -> torch.Tensor:
        """Return the tensor of the file ``name`` with content ``data``."""
        ...


class ImageFolderDataset(Dataset[tuple["torch.Tensor", int]]):
    """Pairs of an image tensor and a label.

    Args:
        split: Files and labels.
        transform: Converts the content of a file to a tensor.
    """

    def __init__(self, split: Split, transform: ImageTransform) -> None:
        self._split = split
        self._transform = transform

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, key: SampleKey) -> tuple[torch.Tensor, int]:
        """Return the uint8 image of shape ``(3, height, width)`` and its label.

        Raises:
            DataError: The file cannot be read or decoded; the error names the file.
        """
        path = self._split.path(key.sample)
        try:
            with open(path, "rb") as file:
                data = file.read()
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from error
        return self._transform(data, path, key.epoch, key.sample), self._split.label(key.sample)
