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
    from pathlib import Path

    from chipperf.data.imagefolder import ImageFolder

MANIFEST_NAME = "dataset.json"
"""File at the root of a sample dataset that says what it is."""

IMAGENET2012_TRAIN_SAMPLES = 1_281_167
IMAGENET2012_EVAL_SAMPLES = 50_000
IMAGENET2012_CLASSES = 1000

LISTING_METHOD = "sha256 of sorted relative paths and sizes"
CONTENT_METHOD = "sha256 of all file contents at generation; paths and sizes verified"


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetIdentity:
    """What a record says about its dataset.

    Attributes:
        name: ``imagenet2012``, the name in a sample dataset's manifest, or the directory's base name.
        version: Version of a sample dataset; ``None`` where the files do not state one.
        fingerprint: Hexadecimal digest of the dataset.
        fingerprint_method: What the digest was computed from.
        train_samples: Images in the training split.
        eval_samples: Images in the evaluation split.
        classes: Number of classes.
        is_sample: Whether this is a generated sample and not a real dataset.
        target_top1: Accuracy to reach, as a fraction, where the dataset itself states one.
    """

    name: str
    version: str | None
    fingerprint: str
    fingerprint_method: str
    train_samples: int
    eval_samples: int
    classes: int
    is_sample: bool
    target_top1: float | None


def identify(folder: ImageFolder) -> DatasetIdentity:
    """Identify a dataset directory.

    Reads the size of every file: seconds for ImageNet on a local disk. In a distributed run one rank is enough.

    Raises:
        DataError: A sample dataset was changed after it was generated, or a file disappeared.
    """
    listing = listing_sha256(folder.root)
    manifest = read_manifest(folder.root)
    if manifest is not None:
        return _identify_sample(folder, manifest, listing)
    counts = (len(folder.train), len(folder.val), len(folder.classes))
    is_imagenet = counts == (IMAGENET2012_TRAIN_SAMPLES, IMAGENET2012_EVAL_SAMPLES, IMAGENET2012_CLASSES)
    return DatasetIdentity(
        name="imagenet2012" if is_imagenet else folder.root.resolve().name,
        version=None,
        fingerprint=listing,
        fingerprint_method=LISTING_METHOD,
        train_samples=len(folder.train),
        eval_samples=len(folder.val),
        classes=len(folder.classes),
        is_sample=False,
        target_top1=None,
    )


def listing_sha256(root: Path) -> str:
    """Return the digest over relative path and size in bytes of every image in both splits.

    Raises:
        DataError: A directory or file cannot be read.
    """
    digest = hashlib.sha256()
    for split in (TRAIN_SPLIT, EVAL_SPLIT):
        directory = root / split
        for path in files_below(directory):
            if is_image_name(path):
                size_bytes = _size_bytes(os.path.join(directory, path))
                digest.update(os.fsencode(f"{split}/{path}") + b"\0%d\n" % size_bytes)
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


def _identify_sample(folder: ImageFolder, manifest: dict[str, Any], listing: str) -> DatasetIdentity:
    if manifest.get("listing_sha256") != listing:
        raise DataError(
            f"{folder.root}: the images are not those of its {MANIFEST_NAME}: files were added, removed or changed",
            hint=f"generate it again, or remove {MANIFEST_NAME} to use the directory as a dataset of its own",
        )
    try:
        return DatasetIdentity(
            name=manifest["name"],
            version=manifest["version"],
            fingerprint=manifest["content_sha256"],
            fingerprint_method=CONTENT_METHOD,
            train_samples=len(folder.train),
            eval_samples=len(folder.val),
            classes=len(folder.classes),
            is_sample=True,
            target_top1=manifest["target_top1"],
        )
    except KeyError as error:
        path = folder.root / MANIFEST_NAME
        raise DataError(f"{path} lacks the key {error}", hint=f"remove {folder.root} and generate it again") from error


def _size_bytes(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
