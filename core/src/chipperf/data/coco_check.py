"""Validation of a dataset directory in COCO layout; it lists all problems."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from chipperf.data.coco import (
    EVAL_SPLIT,
    TRAIN_SPLIT,
    coco_files,
    instances_name,
    panoptic_name,
    read_instances,
    read_panoptic,
)
from chipperf.data.coco_annotations import first_few
from chipperf.data.dataset_check import (
    CheckReport,
    DatasetFinding,
    check_counts,
    check_manifest,
    error,
    read_images,
    warning,
)
from chipperf.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from chipperf.data.coco import CocoSplit
    from chipperf.data.coco_annotations import Fault
    from chipperf.data.dataset_identity import ReferenceDataset


def check_coco(
    root: str | os.PathLike[str],
    expected: ReferenceDataset | None = None,
    *,
    full: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> CheckReport:
    """Check annotations, counts and files of a dataset directory.

    Panoptic annotations are checked if they exist.

    Args:
        root: Directory with images and ``annotations``.
        expected: Dataset with the required sizes; ``None`` accepts any sizes.
        full: Whether to decode every image. Otherwise only headers are read.
        progress: Called with the number of images read and the total number.
    """
    root = Path(root)
    if not root.is_dir():
        return _report(root, [], 0, full, [error("layout", f"{root} is not a directory")])
    findings: list[DatasetFinding] = []
    splits: list[CocoSplit | None] = []
    for name in (TRAIN_SPLIT, EVAL_SPLIT):
        split, problems = _check_split(root, name)
        splits.append(split)
        findings += problems
    findings += check_manifest(root, coco_files)
    if expected is not None:
        findings += check_counts(*_counts(splits), expected, noun="images")
    images = [path for split in splits if split is not None for path in _present_images(split)]
    findings += read_images(images, full, progress)
    return _report(root, splits, len(images), full, findings)


def _check_split(root: Path, name: str) -> tuple[CocoSplit | None, list[DatasetFinding]]:
    findings: list[DatasetFinding] = []
    instances = None
    try:
        instances, faults = read_instances(root, name, masks=False)
        findings += _as_findings(faults)
        findings += _degenerate(instances, root / instances_name(name))
    except DataError as problem:
        findings.append(error("annotations", problem.message))
    if (root / panoptic_name(name)).exists():
        try:
            _, faults = read_panoptic(root, name)
            findings += _as_findings(faults)
        except DataError as problem:
            findings.append(error("annotations", problem.message))
    return instances, findings


def _as_findings(faults: list[Fault]) -> Iterator[DatasetFinding]:
    for fault in faults:
        yield error(fault.code, fault.message)


def _degenerate(split: CocoSplit, path: Path) -> Iterator[DatasetFinding]:
    table = split.table
    height_width = np.repeat(split.images.sizes, np.diff(table.ends, prepend=0), axis=0)
    left_top = np.maximum(table.boxes[:, :2], 0)
    right_bottom = np.minimum(table.boxes[:, :2] + table.boxes[:, 2:], height_width[:, ::-1])
    flat = table.ids[(right_bottom <= left_top).any(axis=1)]
    if len(flat):
        yield warning(
            "degenerate-box",
            f"{path}: {len(flat)} boxes have no area within their image and are not trained: {first_few(flat)}",
        )


def _present_images(split: CocoSplit) -> Iterator[str]:
    return (path for path in map(split.images.path, range(len(split.images))) if os.path.exists(path))


def _counts(splits: list[CocoSplit | None]) -> tuple[int, int, int]:
    train, val = splits
    return (
        0 if train is None else len(train.images),
        0 if val is None else len(val.images),
        0 if train is None else len(train.things),
    )


def _report(
    root: Path, splits: list[CocoSplit | None], images_read: int, full: bool, findings: list[DatasetFinding]
) -> CheckReport:
    train_samples, eval_samples, classes = _counts(splits) if splits else (0, 0, 0)
    return CheckReport(
        root=str(root),
        train_samples=train_samples,
        eval_samples=eval_samples,
        classes=classes,
        images_read=images_read,
        fully_decoded=full,
        findings=tuple(findings),
    )
