"""Validation of a dataset directory in ImageFolder layout; it lists all problems."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from chipperf.data.dataset_check import (
    CheckReport,
    DatasetFinding,
    check_counts,
    check_manifest,
    error,
    read_images,
    warning,
)
from chipperf.data.imagefolder import (
    EVAL_SPLIT,
    TRAIN_SPLIT,
    class_directories,
    describe_class_difference,
    files_below,
    imagefolder_files,
    is_image_name,
)
from chipperf.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable

    from chipperf.data.dataset_identity import ReferenceDataset


def check_imagefolder(
    root: str | os.PathLike[str],
    expected: ReferenceDataset | None = None,
    *,
    full: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> CheckReport:
    """Check layout, counts and files of a dataset directory.

    Args:
        root: Directory with ``train`` and ``val``.
        expected: Dataset with the required sizes; ``None`` accepts any sizes.
        full: Whether to decode every image. Otherwise only headers are read.
        progress: Called with the number of images read and the total number.
    """
    root = Path(root)
    if not root.is_dir():
        return _report(root, [], full, [error("layout", f"{root} is not a directory")])
    splits = [_list_split(root / name) for name in (TRAIN_SPLIT, EVAL_SPLIT)]
    train, val = splits
    findings = [finding for split in splits for finding in split.findings]
    findings += _compare_classes(train, val)
    findings += check_manifest(root, imagefolder_files)
    if expected is not None:
        findings += check_counts(len(train.images), len(val.images), len(train.classes), expected, noun="images")
    images = [path for split in splits for path in split.images]
    findings += read_images(images, full, progress)
    return _report(root, splits, full, findings)


@dataclass(frozen=True, slots=True)
class _SplitListing:
    name: str
    classes: tuple[str, ...]
    images: list[str]
    findings: list[DatasetFinding]


def _list_split(directory: Path) -> _SplitListing:
    try:
        classes = class_directories(directory)
    except DataError as problem:
        return _SplitListing(directory.name, (), [], [error("layout", problem.message)])
    findings: list[DatasetFinding] = []
    images: list[str] = []
    if not classes:
        findings.append(error("no-classes", f"{directory} holds no class directories"))
    for name, count in Counter(name.casefold() for name in classes).items():
        if count > 1:
            same = ", ".join(other for other in classes if other.casefold() == name)
            findings.append(
                warning("case-only-difference", f"{directory}: classes differ in upper and lower case only: {same}")
            )
    for name in classes:
        found, problems = _list_class(directory / name)
        images += found
        findings += problems
    return _SplitListing(directory.name, classes, images, findings)


def _list_class(directory: Path) -> tuple[list[str], list[DatasetFinding]]:
    try:
        paths = files_below(directory)
    except DataError as problem:
        return [], [error("layout", problem.message)]
    images = [os.path.join(directory, path) for path in paths if is_image_name(path)]
    findings = [
        warning("not-an-image", f"{directory / path} is ignored: its name is not that of an image")
        for path in paths
        if not is_image_name(path)
    ]
    if not images:
        findings.append(error("empty-class", f"class directory {directory} holds no images"))
    return images, findings


def _compare_classes(train: _SplitListing, val: _SplitListing) -> list[DatasetFinding]:
    if not train.classes or not val.classes or train.classes == val.classes:
        return []
    return [error("class-difference", describe_class_difference(train.classes, val.classes))]


def _report(root: Path, splits: list[_SplitListing], full: bool, findings: list[DatasetFinding]) -> CheckReport:
    samples = {split.name: len(split.images) for split in splits}
    return CheckReport(
        root=str(root),
        train_samples=samples.get(TRAIN_SPLIT, 0),
        eval_samples=samples.get(EVAL_SPLIT, 0),
        classes=len(splits[0].classes) if splits else 0,
        images_read=sum(samples.values()),
        fully_decoded=full,
        findings=tuple(findings),
    )
