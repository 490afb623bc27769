"""Findings and common parts of dataset checks, which list all problems."""

from __future__ import annotations

import os
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from chipperf.data.dataset_files import open_file
from chipperf.data.dataset_identity import MANIFEST_NAME, files_sha256, read_manifest
from chipperf.data.decode import decode_rgb, read_size, require_size
from chipperf.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from chipperf.data.dataset_identity import ReferenceDataset

_HEADER_BYTES = 64 * 1024
_FILES_PER_TASK = 64
_THREADS = min(32, 4 * (os.cpu_count() or 1))
_CULPRITS_SHOWN = 5
_COMPRESSED = (".jpg", ".jpeg", ".png")
"""File name suffixes of images that are alike if they begin alike and have one size; others may begin with a margin."""

_REPEATED_SHARE = 0.01
"""Share of the evaluation images that may be in the training split too: published datasets have a few."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetFinding:
    """One problem of a dataset directory.

    Attributes:
        severity: ``error``: training fails or measures something else. ``warning``: for information.
        code: Stable identifier of the problem type.
        message: What is wrong, with the file or directory and numbers.
    """

    severity: Literal["error", "warning"]
    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """Result of checking one directory.

    Attributes:
        classes: Classes in the training split; ``None`` if the samples have none.
        images_read: Files of images and maps whose header or pixels were read; ``None`` if there are none.
        fully_decoded: True if every sample was read completely.
        findings: Problems in the order of discovery.
    """

    root: str
    train_samples: int
    eval_samples: int
    classes: int | None = None
    images_read: int | None = None
    fully_decoded: bool = False
    findings: tuple[DatasetFinding, ...]

    @property
    def ok(self) -> bool:
        """Whether there is no finding of severity ``error``."""
        return all(finding.severity != "error" for finding in self.findings)

    @property
    def summary(self) -> str:
        """One-line summary of what was read."""
        noun = "samples" if self.images_read is None else "images"
        text = f"{self.train_samples} training and {self.eval_samples} evaluation {noun}"
        if self.classes is not None:
            text += f" in {self.classes} classes"
        if self.images_read is not None:
            text += f"; {'decoded' if self.fully_decoded else 'read the headers of'} {self.images_read} files"
        return text


class ImageFile(NamedTuple):
    """An image file of a dataset.

    Attributes:
        size: Height and width in pixels that the annotation states; ``None`` if there is none.
        check: Called with all pixels; raises :class:`DataError` if they contradict the annotation.
        is_evaluated: Whether it is an image of the evaluation split.
    """

    path: str
    size: tuple[int, int] | None = None
    check: Callable[[NDArray[np.uint8]], object] | None = None
    is_evaluated: bool = False


def check_images(
    list_images: Callable[[Path, bool], tuple[CheckReport, list[ImageFile]]],
    list_files: Callable[[Path], Iterable[str]],
    root: str | os.PathLike[str],
    expected: ReferenceDataset | None = None,
    *,
    full: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> CheckReport:
    """Check layout, manifest, counts and files of a directory of images.

    Args:
        list_images: Checks the layout before any image is read; its second argument is ``full``.
        list_files: Lists the files that the manifest of a sample dataset covers.
        expected: Dataset with the required sizes; ``None`` accepts any sizes.
        full: Whether to decode every image. Otherwise only headers are read.
        progress: Called with the number of images read and the total number.
    """
    root = Path(root)
    if not root.is_dir():
        finding = error("layout", f"{root} {'is not a directory' if root.exists() else 'does not exist'}")
        return CheckReport(root=str(root), train_samples=0, eval_samples=0, images_read=0, findings=(finding,))
    report, files = list_images(root, full)
    findings = [*report.findings, *check_manifest(root, list_files)]
    if expected is not None:
        findings += check_counts(report.train_samples, report.eval_samples, report.classes, expected, noun="images")
    findings += _read_images(files, full, progress)
    return replace(report, images_read=len(files), fully_decoded=full, findings=tuple(findings))


def check_manifest(root: Path, list_files: Callable[[Path], Iterable[str]]) -> list[DatasetFinding]:
    """Check that the files of a sample dataset are unchanged since it was generated."""
    try:
        manifest = read_manifest(root)
        if manifest is None or manifest.get("files_sha256") == files_sha256(root, list_files(root)):
            return []
    except DataError as problem:
        return [error("manifest", problem.message)]
    return [error("manifest", f"{root}: the files are not those that its {MANIFEST_NAME} was written for")]


def check_counts(
    train_samples: int, eval_samples: int, classes: int | None, expected: ReferenceDataset, *, noun: str = "samples"
) -> list[DatasetFinding]:
    """Check that a dataset has the required sizes; ``noun`` names its samples in messages."""
    comparisons = (
        ("train-count", f"training {noun}", train_samples, expected.train_samples),
        ("eval-count", f"evaluation {noun}", eval_samples, expected.eval_samples),
        ("class-count", "classes", classes, expected.classes),
    )
    return [
        error(code, f"{found} {what}; {expected.name} has {wanted}")
        for code, what, found, wanted in comparisons
        if found != wanted
    ]


def _read_images(
    files: list[ImageFile], full: bool, progress: Callable[[int, int], None] | None
) -> Iterator[DatasetFinding]:
    def read(batch: list[ImageFile]) -> list[tuple[DatasetFinding | None, int]]:
        return [_read_image(file, full) for file in batch]

    contents = np.zeros(len(files), np.uint64)
    done = 0
    with ThreadPoolExecutor(_THREADS) as pool:
        batches = (files[start : start + _FILES_PER_TASK] for start in range(0, len(files), _FILES_PER_TASK))
        # The number of pending tasks is bounded: a million tasks would need much memory, and Ctrl-C would wait for
        # them.
        while tasks := [pool.submit(read, batch) for batch in islice(batches, 4 * _THREADS)]:
            for task in tasks:
                results = task.result()
                yield from (finding for finding, _ in results if finding is not None)
                contents[done : done + len(results)] = [content for _, content in results]
                done += len(results)
                if progress is not None:
                    progress(done, len(files))
    is_evaluated = np.array([file.is_evaluated for file in files], np.bool_)
    repeated = np.flatnonzero(is_evaluated & (contents > 0) & np.isin(contents, contents[~is_evaluated]))
    if len(repeated) > _REPEATED_SHARE * is_evaluated.sum():
        what = f"{len(repeated)} of {is_evaluated.sum()} evaluation images are training images, too"
        yield warning("repeated-images", f"{what}: {first_few([files[index].path for index in repeated])}")


def _read_image(image: ImageFile, full: bool) -> tuple[DatasetFinding | None, int]:
    """Return what is wrong with an image, and a number that tells its content, 0 if what was read does not."""
    path, size, check, _ = image
    content = 0
    try:
        with open_file(path) as file:
            data = file.read() if full else file.read(_HEADER_BYTES)
            if not data:
                return error("empty-file", f"{path} is empty"), content
            if full or len(data) < _HEADER_BYTES or path.lower().endswith(_COMPRESSED):
                content = (os.fstat(file.fileno()).st_size % 2**32 << 32) + zlib.crc32(data)
            if full:
                pixels = decode_rgb(data, path)
                found: Sequence[int] = pixels.shape
            else:
                try:
                    found = read_size(data, path)
                except DataError:
                    # Some headers have embedded profiles and previews that are longer than the first bytes.
                    found = read_size(data + file.read(), path)
    except DataError as problem:
        return error("unreadable", problem.message), content
    try:
        if size is not None:
            require_size(found, size, path)
        if full and check is not None:
            check(pixels)
    except DataError as problem:
        return error("contradiction", problem.message), content
    return None, content


def error(code: str, message: str) -> DatasetFinding:
    """Return a finding that must be fixed."""
    return DatasetFinding(severity="error", code=code, message=message)


def warning(code: str, message: str) -> DatasetFinding:
    """Return a finding for information."""
    return DatasetFinding(severity="warning", code=code, message=message)


def first_few(culprits: Sequence[Any] | NDArray[Any]) -> str:
    """Return the first culprits in one clause, and whether there are more."""
    shown = ", ".join(str(culprit) for culprit in culprits[:_CULPRITS_SHOWN])
    return shown + (", …" if len(culprits) > _CULPRITS_SHOWN else "")


def raise_first(findings: Iterable[DatasetFinding], hint: str) -> None:
    """Raise the first finding that must be fixed, if there is one, as a :class:`DataError`."""
    for finding in findings:
        if finding.severity == "error":
            raise DataError(finding.message, hint=hint)
