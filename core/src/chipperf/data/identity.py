"""Which dataset a run was made on, in a form that is the same on every machine and holds no path of this one."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chipperf.data.imagefolder import EVAL_SPLIT, TRAIN_SPLIT, files_below, is_image_name
from chipperf.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from chipperf.data.imagefolder import ImageFolder

MANIFEST_NAME = "dataset.json"
"""File at the root of a sample dataset that says what it is."""

LISTING_METHOD = "sha256 of sorted relative paths and sizes"
CONTENT_METHOD = "sha256 of all file contents at generation; paths and sizes verified"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedDataset:
    """Size by which a published dataset is known, and which a dataset for its benchmark has to have.

    Attributes:
        name: Name of the dataset.
        train_samples: Images in the training split.
        eval_samples: Images in the evaluation split.
        classes: Number of classes.
    """

    name: str
    train_samples: int
    eval_samples: int
    classes: int


IMAGENET2012 = ExpectedDataset(name="imagenet2012", train_samples=1_281_167, eval_samples=50_000, classes=1000)

COCO2017 = ExpectedDataset(name="coco2017", train_samples=118_287, eval_samples=5_000, classes=80)
"""Its classes are the categories of things."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetIdentity:
    """What a record says about its dataset.

    Attributes:
        name: Name of a published dataset, the name in a sample dataset's manifest, or the directory's base name.
        version: Version of a sample dataset; ``None`` where the files do not state one.
        fingerprint: Hexadecimal digest of the dataset.
        fingerprint_method: What the digest was computed from.
        train_samples: Images in the training split.
        eval_samples: Images in the evaluation split.
        classes: Number of classes.
        is_sample: Whether this is a generated sample and not a real dataset.
        target: Quality to reach, as a fraction, where the dataset itself states one.
    """

    name: str
    version: str | None
    fingerprint: str
    fingerprint_method: str
    train_samples: int
    eval_samples: int
    classes: int
    is_sample: bool
    target: float | None


def identify(folder: ImageFolder) -> DatasetIdentity:
    """Identify a directory of classified images; see :func:`identify_directory`.

    Raises:
        DataError: A sample dataset was changed after it was generated, or a file disappeared.
    """
    return identify_directory(
        folder.root,
        imagefolder_files(folder.root),
        train_samples=len(folder.train),
        eval_samples=len(folder.val),
        classes=len(folder.classes),
        published=IMAGENET2012,
        target_key="target_top1",
    )


def identify_directory(
    root: Path,
    paths: Iterable[str],
    *,
    train_samples: int,
    eval_samples: int,
    classes: int,
    published: ExpectedDataset,
    target_key: str,
) -> DatasetIdentity:
    """Identify a dataset directory.

    Reads the size of every file: seconds for ImageNet on a local disk. In a distributed run one rank is enough.

    Args:
        root: The directory.
        paths: Paths of the dataset's files relative to ``root``, always in the same order.
        train_samples: Images in the training split.
        eval_samples: Images in the evaluation split.
        classes: Number of classes.
        published: The dataset it is if it has that one's counts.
        target_key: Key of a sample dataset's manifest that holds the quality to reach.

    Raises:
        DataError: A sample dataset was changed after it was generated, or a file disappeared.
    """
    listing = listing_sha256(root, paths)
    manifest = read_manifest(root)
    counts = ExpectedDataset(
        name=published.name, train_samples=train_samples, eval_samples=eval_samples, classes=classes
    )
    if manifest is not None:
        return _identify_sample(root, manifest, listing, counts, target_key)
    return DatasetIdentity(
        name=published.name if counts == published else root.resolve().name,
        version=None,
        fingerprint=listing,
        fingerprint_method=LISTING_METHOD,
        train_samples=train_samples,
        eval_samples=eval_samples,
        classes=classes,
        is_sample=False,
        target=None,
    )


def imagefolder_files(root: Path) -> Iterator[str]:
    """Yield the path, relative to ``root``, of every image in both splits of an ImageFolder directory.

    Raises:
        DataError: A directory cannot be read.
    """
    for split in (TRAIN_SPLIT, EVAL_SPLIT):
        yield from (f"{split}/{path}" for path in files_below(root / split) if is_image_name(path))


def listing_sha256(root: Path, paths: Iterable[str]) -> str:
    """Return the digest over path and size in bytes of files.

    Args:
        root: Directory of the dataset.
        paths: Paths relative to it.

    Raises:
        DataError: A file cannot be read.
    """
    digest = hashlib.sha256()
    for path in paths:
        size_bytes = _size_bytes(os.path.join(root, path))
        digest.update(os.fsencode(path) + b"\0%d\n" % size_bytes)
    return digest.hexdigest()


def read_manifest(root: Path) -> dict[str, Any] | None:
    """Return the manifest of a sample dataset, or ``None`` if the directory has none.

    Raises:
        DataError: There is a manifest, but it cannot be read.
    """
    path = root / MANIFEST_NAME
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}", hint=f"remove {root} and generate it again") from error
    if not isinstance(manifest, dict):
        raise DataError(f"{path} is not a dataset manifest", hint=f"remove {root} and generate it again")
    return manifest


def _identify_sample(
    root: Path, manifest: dict[str, Any], listing: str, counts: ExpectedDataset, target_key: str
) -> DatasetIdentity:
    if manifest.get("listing_sha256") != listing:
        raise DataError(
            f"{root}: the images are not those of its {MANIFEST_NAME}: files were added, removed or changed",
            hint=f"generate it again, or remove {MANIFEST_NAME} to use the directory as a dataset of its own",
        )
    try:
        return DatasetIdentity(
            name=manifest["name"],
            version=manifest["version"],
            fingerprint=manifest["content_sha256"],
            fingerprint_method=CONTENT_METHOD,
            train_samples=counts.train_samples,
            eval_samples=counts.eval_samples,
            classes=counts.classes,
            is_sample=True,
            target=manifest[target_key],
        )
    except KeyError as error:
        path = root / MANIFEST_NAME
        raise DataError(f"{path} lacks the key {error}", hint=f"remove {root} and generate it again") from error


def _size_bytes(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
