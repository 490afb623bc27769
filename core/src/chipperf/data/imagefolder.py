"""ImageFolder layout: ``train/`` and ``val/`` with one directory of images per class."""

from __future__ import annotations

import os
import unicodedata
from array import array
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from chipperf.data.dataset_check import CheckReport, ImageFile, check_images, error, first_few, raise_first, warning
from chipperf.data.dataset_files import files_below, require_directory, unlistable
from chipperf.data.dataset_identity import identify_directory
from chipperf.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from chipperf.data.dataset_check import DatasetFinding
    from chipperf.data.dataset_identity import DatasetIdentity, ReferenceDataset

TRAIN_SPLIT = "train"
EVAL_SPLIT = "val"

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"})
"""Lower-case file name suffixes of images, the same set as in torchvision's ImageFolder."""

_SORTED_BY = "; valprep.sh of github.com/soumith/imagenetloader.torch does it for ImageNet's validation images"

_LAYOUT_HINT = (
    "expected DIR/train/<class>/*.jpg and DIR/val/<class>/*.jpg; `perf data check CASE DIR` lists every problem"
)


class PackedBytes:
    """Byte strings in one buffer, which forked loader processes share without copying it.

    Every forked worker would copy a list of a million ``str`` page by page, because reference counting writes to it.
    """

    def __init__(self, items: Iterable[bytes] = ()) -> None:
        self._data = bytearray()
        self._ends = array("Q")
        for item in items:
            self.append(item)

    def append(self, item: bytes) -> None:
        """Add a string at the end."""
        self._data += item
        self._ends.append(len(self._data))

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> bytes:
        return bytes(self._data[self._ends[index - 1] if index else 0 : self._ends[index]])


@dataclass(frozen=True, slots=True)
class Split:
    """The image files of one split, stored so that workers share them without copying.

    Attributes:
        classes: Class names in sorted order; a label is an index into it.
        names: Paths relative to ``directory``.
        class_ends: Cumulative number of samples after each class.
    """

    directory: Path
    classes: tuple[str, ...]
    names: PackedBytes
    class_ends: array[int]

    def __len__(self) -> int:
        return len(self.names)

    def relative_path(self, index: int) -> str:
        """Return the path of a sample relative to the split's directory."""
        return os.fsdecode(self.names[index])

    def path(self, index: int) -> str:
        """Return the path of a sample."""
        return os.path.join(self.directory, self.relative_path(index))

    def label(self, index: int) -> int:
        """Return the label of a sample."""
        return bisect_right(self.class_ends, index)


@dataclass(frozen=True, slots=True)
class ImageFolder:
    """A dataset directory with two splits of the same classes."""

    root: Path
    train: Split
    val: Split

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in label order."""
        return self.train.classes


def scan_imagefolder(root: str | os.PathLike[str]) -> ImageFolder:
    """List the images below ``root``, in one pass over its directory tree.

    Raises:
        DataError: A directory is missing, unreadable or empty, a class has no image, there is one class only, or the
            two splits differ in their classes.
    """
    folder, findings = _read_folder(require_directory(root, _LAYOUT_HINT))
    raise_first(findings, _LAYOUT_HINT)
    return folder


def _list_images(root: Path, _: bool) -> tuple[CheckReport, list[ImageFile]]:
    folder, findings = _read_folder(root)
    report = CheckReport(
        root=str(root),
        train_samples=len(folder.train),
        eval_samples=len(folder.val),
        classes=len(folder.classes),
        findings=tuple(findings),
    )
    splits = (folder.train, folder.val)
    files = (ImageFile(s.path(index), is_evaluated=s is folder.val) for s in splits for index in range(len(s)))
    return report, list(files)


def _read_folder(root: Path) -> tuple[ImageFolder, list[DatasetFinding]]:
    """Return the images of both splits, and the problems of their directories."""
    (train, findings), (val, others) = (read_split(root / name) for name in (TRAIN_SPLIT, EVAL_SPLIT))
    findings += others
    if train.classes and val.classes and train.classes != val.classes:
        findings.append(error("class-difference", f"{root}: {_describe_class_difference(train.classes, val.classes)}"))
    elif len(train.classes) == 1:
        what = f"{train.directory} has one class, {train.classes[0]!r}, but a classification needs two"
        paths = [train.relative_path(index).split("/") for index in range(len(train))]
        if inner := sorted({path[1] for path in paths if len(path) > 2}):
            what += f"; its images lie in {len(inner)} directories within it: move these up ({first_few(inner)})"
        findings.append(error("one-class", what))
    return ImageFolder(root, train, val), findings


def read_split(directory: Path) -> tuple[Split, list[DatasetFinding]]:
    """Return the images of one split, and the problems of its directories."""
    names, class_ends = PackedBytes(), array("Q")
    hidden: list[str] = []
    try:
        classes, loose = _class_directories(directory, hidden)
    except DataError as problem:
        return Split(directory, (), names, class_ends), [error("layout", problem.message)]
    findings = []
    if loose:
        what = f"{len(loose)} images lie in no class directory and are ignored: {first_few(loose)}"
        findings.append(warning("loose-images", f"{directory}: {what}"))
    if not classes:
        what = f"{directory} holds no class directories"
        if loose:
            what += f", but {len(loose)} images: sort them into one directory for each class"
            what += _SORTED_BY if directory.name == EVAL_SPLIT else ""
        findings = [error("no-classes", what)]
    for name, count in Counter(map(_letters, classes)).items():
        if count > 1:
            same = ", ".join(other for other in classes if _letters(other) == name)
            what = "classes differ in upper and lower case only, or in the coding of accents"
            findings.append(warning("case-only-difference", f"{directory}: {what}: {same}"))
    nested = []
    for name in classes:
        images, problems = _list_class(directory / name, hidden)
        for path in images:
            names.append(os.fsencode(f"{name}/{path}"))
        class_ends.append(len(names))
        findings += problems
        if images and all("/" in path for path in images):
            nested.append(name)
    if nested:
        what = f"all images of {len(nested)} classes lie in directories within them, which are not distinguished"
        findings.append(warning("nested-class", f"{directory}: {what}: {first_few(nested)}"))
    if hidden:
        what = f"{len(hidden)} files or directories are left out, as their names begin with a dot"
        findings.append(warning("hidden", f"{directory}: {what}: {first_few(hidden)}"))
    return Split(directory, classes, names, class_ends), findings


def _list_class(directory: Path, hidden: list[str]) -> tuple[list[str], list[DatasetFinding]]:
    try:
        paths = files_below(directory, hidden)
    except DataError as problem:
        return [], [error("layout", problem.message)]
    images = [path for path in paths if _is_image_name(path)]
    findings = []
    if others := [str(directory / path) for path in paths if not _is_image_name(path)]:
        what = f"{len(others)} files are ignored, as their names are not those of images: {first_few(others)}"
        findings.append(warning("not-an-image", what))
    if not images:
        findings.append(error("empty-class", f"class directory {directory} holds no images"))
    return images, findings


def _class_directories(directory: Path, hidden: list[str]) -> tuple[tuple[str, ...], list[str]]:
    """Return the names of the classes, and of the images beside them; add hidden directories to ``hidden``."""
    try:
        with os.scandir(directory) as entries:
            is_directory = {entry.name: entry.is_dir() for entry in entries}
    except OSError as error:
        raise unlistable(directory, error) from error
    names = [name for name in sorted(is_directory) if not name.startswith(".")]
    hidden += [str(directory / name) for name in sorted(is_directory) if is_directory[name] and name.startswith(".")]
    loose = [name for name in names if not is_directory[name] and _is_image_name(name)]
    return tuple(name for name in names if is_directory[name]), loose


def _describe_class_difference(train: tuple[str, ...], val: tuple[str, ...]) -> str:
    only_train, only_val = sorted(set(train) - set(val)), sorted(set(val) - set(train))
    parts = [
        f"{len(names)} class(es) only in {split}: {first_few(names)}"
        for split, names in ((TRAIN_SPLIT, only_train), (EVAL_SPLIT, only_val))
        if names
    ]
    if set(map(_letters, train)) == set(map(_letters, val)):
        parts.append("they differ in upper and lower case only, or in the coding of accents")
    return "train and val have different classes; " + "; ".join(parts)


def _letters(name: str) -> str:
    """Return a name as a reader sees it, in lower case."""
    return unicodedata.normalize("NFC", name).casefold()


def identify_imagefolder(folder: ImageFolder, reference: ReferenceDataset) -> DatasetIdentity:
    """Identify a directory of classified images, see :func:`.identify_directory`."""
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
    """Yield the path, relative to ``root``, of every image in both splits of an ImageFolder directory."""
    for split in (TRAIN_SPLIT, EVAL_SPLIT):
        yield from (f"{split}/{path}" for path in files_below(root / split) if _is_image_name(path))


check_imagefolder = partial(check_images, _list_images, imagefolder_files)
"""Checks layout, counts and files of a dataset directory, see :func:`.check_images`."""


def _is_image_name(path: str) -> bool:
    return os.path.splitext(path)[1].lower() in IMAGE_SUFFIXES
