"""What a check of a dataset directory finds, and what such checks have in common.

A check lists every problem and never stops at one.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Literal

from chipperf.data.dataset_identity import MANIFEST_NAME, listing_sha256, read_manifest
from chipperf.data.decode import decode_rgb, read_size
from chipperf.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from chipperf.data.dataset_identity import ReferenceDataset

Severity = Literal["error", "warning"]
"""``error``: training on the directory fails or measures something else. ``warning``: worth knowing."""

_HEADER_BYTES = 64 * 1024
_FILES_PER_TASK = 64
_THREADS = min(32, 4 * (os.cpu_count() or 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetFinding:
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
        train_samples: Samples in the training split.
        eval_samples: Samples in the evaluation split.
        classes: Classes in the training split; ``None`` if the samples have none.
        images_read: Images whose header or pixels were read; ``None`` if the samples are no images.
        fully_decoded: True if every sample was read completely.
        findings: Problems, in the order in which they were found.
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
        """What was read, in one line."""
        noun = "samples" if self.images_read is None else "images"
        text = f"{self.train_samples} training and {self.eval_samples} evaluation {noun}"
        if self.classes is not None:
            text += f" in {self.classes} classes"
        if self.images_read is not None:
            text += f"; {'decoded' if self.fully_decoded else 'read the headers of'} {self.images_read}"
        return text


def check_manifest(root: Path, files: Callable[[Path], Iterable[str]]) -> list[DatasetFinding]:
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
    return [error("manifest", f"{root}: the files are not those that its {MANIFEST_NAME} was written for")]


def check_counts(
    train_samples: int, eval_samples: int, classes: int | None, expected: ReferenceDataset, *, noun: str = "samples"
) -> list[DatasetFinding]:
    """Compare the sizes of a dataset with those that it must have; ``noun`` is what the samples are called."""
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


def read_images(paths: list[str], full: bool, progress: Callable[[int, int], None] | None) -> Iterator[DatasetFinding]:
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


def _read_batch(paths: Iterable[str], full: bool) -> tuple[int, list[DatasetFinding]]:
    read = [_read_image(path, full) for path in paths]
    return len(read), [finding for finding in read if finding is not None]


def _read_image(path: str, full: bool) -> DatasetFinding | None:
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


def error(code: str, message: str) -> DatasetFinding:
    """Return a finding that has to be put right."""
    return DatasetFinding(severity="error", code=code, message=message)


def warning(code: str, message: str) -> DatasetFinding:
    """Return a finding that is worth knowing."""
    return DatasetFinding(severity="warning", code=code, message=message)
