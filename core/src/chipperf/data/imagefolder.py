"""ImageFolder layout: ``train/`` and ``val/`` with one directory of images per class."""

from __future__ import annotations

import os
from array import array
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from chipperf.data.dataset_identity import identify_directory
from chipperf.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chipperf.data.dataset_identity import DatasetIdentity, ReferenceDataset

TRAIN_SPLIT = "train"
EVAL_SPLIT = "val"

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"})
"""Lower-case file name suffixes of images, the same set as in torchvision's ImageFolder."""

_LAYOUT_HINT = (
    "expected DIR/train/<class>/*.jpg and DIR/val/<class>/*.jpg; `perf data check CASE DIR` lists every problem"
)
_NAMES_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Split:
    """The image files of one split, stored so that workers share them without copying.

    Every forked worker would copy a list of a million ``str`` page by page, because reference counting writes to it.
    Flat buffers are not copied.

    Attributes:
        directory: Directory of the split.
        classes: Class names in sorted order; a label is an index into it.
        names: Paths relative to ``directory``, as concatenated file-system bytes.
        ends: Offset in ``names`` at which each path ends.
        class_ends: Cumulative number of samples after each class.
    """

    directory: Path
    classes: tuple[str, ...]
    names: bytes
    ends: array[int]
    class_ends: array[int]

    def __len__(self) -> int:
        return len(self.ends)

    def relative_path(self, index: int) -> str:
        """Return the path of a sample relative to the split's directory."""
        start = self.ends[index - 1] if index else 0
        return os.fsdecode(self.names[start : self.ends[index]])

    def path(self, index: int) -> str:
        """Return the path of a sample."""
        return os.path.join(self.directory, self.relative_path(index))

    def label(self, index: int) -> int:
        """Return the label of a sample."""
        return bisect_right(self.class_ends, index)


@dataclass(frozen=True, slots=True)
class ImageFolder:
    """A dataset directory with two splits of the same classes.

    Attributes:
        root: Directory that holds ``train`` and ``val``.
        train: Training split.
        val: Evaluation split.
    """

    root: Path
    train: Split
    val: Split

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in label order."""
        return self.train.classes


def scan_imagefolder(root: str | os.PathLike[str]) -> ImageFolder:
    """List the images below ``root``.

    Raises:
        DataError: A directory is missing, unreadable or empty, a class has no image, or the two splits differ in their
            classes.
    """
    root = Path(root)
    if not root.is_dir():
        what = "is not a directory" if root.exists() else "does not exist"
        raise DataError(f"data directory {root} {what}", hint=_LAYOUT_HINT)
    train, val = scan_split(root / TRAIN_SPLIT), scan_split(root / EVAL_SPLIT)
    if train.classes != val.classes:
        raise DataError(f"{root}: {describe_class_difference(train.classes, val.classes)}", hint=_LAYOUT_HINT)
    return ImageFolder(root, train, val)


def scan_split(directory: Path) -> Split:
    """List the images of one split in one pass over its directory tree.

    Raises:
        DataError: The directory is missing or unreadable, has no classes, or a class has no image.
    """
    classes = class_directories(directory)
    if not classes:
        raise DataError(f"{directory} holds no class directories", hint=_LAYOUT_HINT)
    names = bytearray()
    ends, class_ends = array("Q"), array("Q")
    for name in classes:
        prefix = os.fsencode(name) + b"/"
        paths = sorted(path for path in _walk(os.path.join(directory, name)) if is_image_name(path))
        if not paths:
            raise DataError(f"class directory {directory / name} holds no images", hint=_LAYOUT_HINT)
        for path in paths:
            names += prefix + os.fsencode(path)
            ends.append(len(names))
        class_ends.append(len(ends))
    return Split(directory, classes, bytes(names), ends, class_ends)


def class_directories(directory: Path) -> tuple[str, ...]:
    """Return the sorted names of the directories directly below a split's directory.

    Raises:
        DataError: The directory is missing or cannot be read.
    """
    try:
        with os.scandir(directory) as entries:
            return tuple(sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")))
    except OSError as error:
        raise DataError(f"cannot list {directory}: {error.strerror}", hint=_LAYOUT_HINT) from error


def identify_imagefolder(folder: ImageFolder, reference: ReferenceDataset) -> DatasetIdentity:
    """Identify a directory of classified images, see :func:`.identify_directory`.

    Raises:
        DataError: A sample dataset was changed after it was generated, or a file disappeared.
    """
    return identify_directory(
        folder.root,
        imagefolder_files(folder.root),
        train_samples=len(folder.train),
        eval_samples=len(folder.val),
        classes=len(folder.classes),
        reference=reference,
        target_key="target_top1",
    )


def imagefolder_files(root: Path) -> Iterator[str]:
    """Yield the path, relative to ``root``, of every image in both splits of an ImageFolder directory.

    Raises:
        DataError: A directory cannot be read.
    """
    for split in (TRAIN_SPLIT, EVAL_SPLIT):
        yield from (f"{split}/{path}" for path in files_below(root / split) if is_image_name(path))


def files_below(directory: Path) -> list[str]:
    """Return the sorted paths, relative to ``directory``, of all files below it.

    Raises:
        DataError: The directory or one below it cannot be read.
    """
    return sorted(_walk(str(directory)))


def is_image_name(path: str) -> bool:
    """Return whether a file is an image, by its suffix."""
    return os.path.splitext(path)[1].lower() in IMAGE_SUFFIXES


def describe_class_difference(train: tuple[str, ...], val: tuple[str, ...]) -> str:
    """Return one clause that names the classes that only one of the two splits has."""
    only_train, only_val = sorted(set(train) - set(val)), sorted(set(val) - set(train))
    parts = [
        f"{len(names)} class(es) only in {split}: {', '.join(names[:_NAMES_SHOWN])}"
        + (", …" if len(names) > _NAMES_SHOWN else "")
        for split, names in ((TRAIN_SPLIT, only_train), (EVAL_SPLIT, only_val))
        if names
    ]
    return "train and val have different classes; " + "; ".join(parts)


def _walk(directory: str) -> Iterator[str]:
    """Yield the relative path of every file below ``directory``; symbolic links are followed."""
    pending = [""]
    while pending:
        relative = pending.pop()
        try:
            with os.scandir(os.path.join(directory, relative)) as entries:
                for entry in entries:
                    path = f"{relative}{entry.name}"
                    if entry.is_dir():
                        pending.append(f"{path}/")
                    else:
                        yield path
        except OSError as error:
            raise DataError(f"cannot list {os.path.join(directory, relative)}: {error.strerror}") from error
