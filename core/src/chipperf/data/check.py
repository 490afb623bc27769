"""Validation of a dataset directory before hours are spent on it: it lists every problem and never stops at one."""

from __future__ import annotations

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from chipperf.data.decode import decode_rgb, read_size
from chipperf.data.identity import (
    MANIFEST_NAME,
    ExpectedDataset,
    imagefolder_files,
    listing_sha256,
    read_manifest,
)
from chipperf.data.imagefolder import (
    EVAL_SPLIT,
    TRAIN_SPLIT,
    class_directories,
    describe_class_difference,
    files_below,
    is_image_name,
)
from chipperf.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Severity = Literal["error", "warning"]
"""``error``: training on the directory fails or measures something else. ``warning``: worth knowing."""

_HEADER_BYTES = 64 * 1024
_FILES_PER_TASK = 64
_THREADS = min(32, 4 * (os.cpu_count() or 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One problem.

    Attributes:
        severity: Whether it has to be put right.
        code: Stable identifier of the kind of problem.
        message: What is wrong, with file or directory and numbers.
    """

    severity: Severity
    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """Result of checking one directory.

    Attributes:
        root: The directory.
        train_samples: Images in the training split.
        eval_samples: Images in the evaluation split.
        classes: Classes in the training split.
        images_read: Images of which header or pixels were read.
        fully_decoded: Whether pixels were decoded, or only headers read.
        findings: Problems, in the order in which they were found.
    """

    root: str
    train_samples: int
    eval_samples: int
    classes: int
    images_read: int
    fully_decoded: bool
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether there is no finding of severity ``error``."""
        return all(finding.severity != "error" for finding in self.findings)


def check_imagefolder(
    root: str | os.PathLike[str],
    expected: ExpectedDataset | None = None,
    *,
    full: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> CheckReport:
    """Check layout, counts and files of a dataset directory.

    Args:
        root: Directory with ``train`` and ``val``.
        expected: Size the dataset has to have, if a case prescribes one.
        full: Decode every image instead of reading its header only.
        progress: Called with the number of images read and of all images.
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
        findings += check_counts(len(train.images), len(val.images), len(train.classes), expected)
    images = [path for split in splits for path in split.images]
    findings += read_images(images, full, progress)
    return _report(root, splits, full, findings)


@dataclass(frozen=True, slots=True)
class _SplitListing:
    name: str
    classes: tuple[str, ...]
    images: list[str]
    findings: list[Finding]


def _list_split(directory: Path) -> _SplitListing:
    try:
        classes = class_directories(directory)
    except DataError as problem:
        return _SplitListing(directory.name, (), [], [error("layout", problem.message)])
    findings: list[Finding] = []
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


def _list_class(directory: Path) -> tuple[list[str], list[Finding]]:
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


def _compare_classes(train: _SplitListing, val: _SplitListing) -> list[Finding]:
    if not train.classes or not val.classes or train.classes == val.classes:
        return []
    return [error("class-difference", describe_class_difference(train.classes, val.classes))]


def check_manifest(root: Path, files: Callable[[Path], Iterable[str]]) -> list[Finding]:
    """See whether a sample dataset still consists of the files it was generated with.

    Args:
        root: The dataset's directory.
        files: Lists the files that its manifest covers.
    """
    try:
        manifest = read_manifest(root)
        if manifest is None or manifest.get("listing_sha256") == listing_sha256(root, files(root)):
            return []
    except DataError as problem:
        return [error("manifest", problem.message)]
    return [error("manifest", f"{root}: the images are not those that its {MANIFEST_NAME} was written for")]


def check_counts(train_samples: int, eval_samples: int, classes: int, expected: ExpectedDataset) -> list[Finding]:
    """Compare the size of a dataset with the one it has to have."""
    comparisons = (
        ("train-count", "training images", train_samples, expected.train_samples),
        ("eval-count", "evaluation images", eval_samples, expected.eval_samples),
        ("class-count", "classes", classes, expected.classes),
    )
    return [
        error(code, f"{found} {what}; {expected.name} has {wanted}")
        for code, what, found, wanted in comparisons
        if found != wanted
    ]


def read_images(paths: list[str], full: bool, progress: Callable[[int, int], None] | None) -> Iterator[Finding]:
    """Yield what is wrong with image files.

    Args:
        paths: The files.
        full: Decode them instead of reading their headers only.
        progress: Called with the number of files read and of all files.
    """
    done = 0
    with ThreadPoolExecutor(_THREADS) as pool:
        batches = (paths[start : start + _FILES_PER_TASK] for start in range(0, len(paths), _FILES_PER_TASK))
        # A bounded number of tasks at a time: submitting a million would need memory for all of them, and Ctrl-C
        # would wait for them.
        while tasks := [pool.submit(_read_batch, batch, full) for batch in islice(batches, 4 * _THREADS)]:
            for task in tasks:
                count, findings = task.result()
                yield from findings
                done += count
                if progress is not None:
                    progress(done, len(paths))


def _read_batch(paths: Iterable[str], full: bool) -> tuple[int, list[Finding]]:
    read = [_read_image(path, full) for path in paths]
    return len(read), [finding for finding in read if finding is not None]


def _read_image(path: str, full: bool) -> Finding | None:
    try:
        with open(path, "rb") as file:
            data = file.read() if full else file.read(_HEADER_BYTES)
            if not data:
                return error("empty-file", f"{path} is empty")
            if full:
                decode_rgb(data, path)
                return None
            try:
                read_size(data, path)
            except DataError:
                # Some headers carry embedded profiles and previews of more than the first bytes.
                read_size(data + file.read(), path)
    except DataError as problem:
        return error("unreadable", problem.message)
    except OSError as problem:
        return error("unreadable", f"{path}: cannot be read: {problem.strerror}")
    return None


def _report(root: Path, splits: list[_SplitListing], full: bool, findings: list[Finding]) -> CheckReport:
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


def error(code: str, message: str) -> Finding:
    """Return a finding that has to be put right."""
    return Finding(severity="error", code=code, message=message)


def warning(code: str, message: str) -> Finding:
    """Return a finding that is worth knowing."""
    return Finding(severity="warning", code=code, message=message)
