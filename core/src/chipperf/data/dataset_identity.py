"""Identity of a run's dataset: equal on every machine, and without local paths."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from chipperf.data.dataset_files import open_file, read_file
from chipperf.errors import DataError

MANIFEST_NAME = "dataset.json"
"""File at the root of a sample dataset that describes it."""

SAMPLED_FILES = 1000
"""Images of a dataset whose contents are part of its fingerprint: all of a small dataset, about 110 MB of ImageNet."""

_CHUNK_BYTES = 1 << 20
_MOST_BYTES = 1 << 30
"""Bytes of one file whose content is part of the fingerprint: all of an image or of COCO's annotations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceDataset:
    """The dataset for which a case is defined; a directory of the same sizes is identified as this dataset.

    Attributes:
        name: Name in records.
        title: Name in reports.
        train_samples: Samples in the training split.
        eval_samples: Samples in the evaluation split.
        classes: Number of classes; ``None`` if the samples have none.
    """

    name: str
    title: str
    train_samples: int
    eval_samples: int
    classes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetIdentity:
    """The dataset in a run's record, with sizes as in :class:`ReferenceDataset`.

    Attributes:
        name: Name of a published dataset, the name in a sample dataset's manifest, or the directory's base name.
        version: Version of a sample dataset; ``None`` if the files state none.
        fingerprint: Hexadecimal digest of the dataset.
        fingerprint_method: Input of the digest.
        is_sample: Whether the dataset is a generated sample.
        target: Target quality, as a fraction, if the dataset states one.
    """

    name: str
    version: str | None
    fingerprint: str
    fingerprint_method: str
    train_samples: int
    eval_samples: int
    classes: int | None
    is_sample: bool
    target: float | None


def identify_directory(
    root: Path,
    paths: Iterable[str],
    *,
    train_samples: int,
    eval_samples: int,
    classes: int | None,
    reference: ReferenceDataset,
    target_key: str,
    is_used: Callable[[str], bool] = bool,
) -> DatasetIdentity:
    """Identify a dataset directory.

    It reads the size of every file and the contents of some, see :func:`files_sha256`, which takes seconds for ImageNet
    on a local disk. In a distributed run one rank is enough.

    Args:
        paths: Paths of the dataset's files relative to ``root``, in a fixed order.
        train_samples: Samples in the training split.
        eval_samples: Samples in the evaluation split.
        classes: Number of classes; ``None`` if the samples have none.
        reference: Dataset that the directory holds if the sizes are equal.
        target_key: Manifest key of a sample dataset's target quality.
        is_used: Whether a path is of a file that is read; others may come and go. By default all are.

    Raises:
        DataError: A sample dataset was changed after it was generated, or a file disappeared.
    """
    sizes = (train_samples, eval_samples, classes)
    is_reference = sizes == (reference.train_samples, reference.eval_samples, reference.classes)
    manifest = read_manifest(root)
    found = DatasetIdentity(
        name=reference.name if is_reference else root.resolve().name,
        version=None,
        # A manifest covers every file.
        fingerprint=files_sha256(root, filter(is_used, paths) if manifest is None else paths),
        fingerprint_method=f"sha256 of paths, sizes, annotations and the contents of at most {SAMPLED_FILES} images",
        train_samples=train_samples,
        eval_samples=eval_samples,
        classes=classes,
        is_sample=False,
        target=None,
    )
    if manifest is None:
        return found
    if manifest.get("files_sha256") != found.fingerprint:
        raise DataError(
            f"{root}: the files are not those of its {MANIFEST_NAME}: files were added, removed or changed",
            hint=f"generate it again, or remove {MANIFEST_NAME} to use the directory as a dataset of its own",
        )
    try:
        return replace(
            found,
            name=manifest["name"],
            version=manifest["version"],
            fingerprint=manifest["content_sha256"],
            fingerprint_method="sha256 of all file contents at generation; paths and sizes verified",
            is_sample=True,
            target=manifest[target_key],
        )
    except KeyError as error:
        path = root / MANIFEST_NAME
        raise DataError(f"{path} lacks the key {error}", hint=f"remove {root} and generate it again") from error


def files_sha256(root: Path, paths: Iterable[str]) -> str:
    """Return the digest of files by their paths relative to ``root``, sizes in bytes, and contents.

    The contents are those of every annotation file and of at most :data:`SAMPLED_FILES` others, evenly spaced; of a
    file of more than 1 GiB, those of its chunks at equal distances.

    Raises:
        DataError: A file cannot be read, or changes meanwhile.
    """
    paths = list(paths)
    others = [path for path in paths if not path.endswith(".json")]
    sampled = set(others[:: -(-len(others) // SAMPLED_FILES) or 1])
    digest = hashlib.sha256()
    for path in paths:
        file = os.path.join(root, path)
        if path not in sampled and not path.endswith(".json"):
            try:
                digest.update(os.fsencode(path) + b"\0%d\n" % os.stat(file).st_size)
            except OSError as error:
                raise DataError(f"{file}: cannot be read: {error.strerror}") from error
            continue
        with open_file(file) as content:
            size_bytes = os.fstat(content.fileno()).st_size
            digest.update(os.fsencode(path) + b"\0%d\n" % size_bytes)
            # Of a larger file, the chunks are apart.
            step_bytes = max(_CHUNK_BYTES, (size_bytes - _CHUNK_BYTES) // (_MOST_BYTES // _CHUNK_BYTES))
            while chunk := content.read(_CHUNK_BYTES):
                digest.update(chunk)
                if len(chunk) == _CHUNK_BYTES:
                    content.seek(step_bytes - _CHUNK_BYTES, os.SEEK_CUR)
            is_read_whole = step_bytes == _CHUNK_BYTES
            if os.fstat(content.fileno()).st_size != size_bytes or (is_read_whole and content.tell() != size_bytes):
                raise DataError(f"{file}: changes while it is read", hint="wait until the dataset is complete")
    return digest.hexdigest()


def read_manifest(root: Path) -> dict[str, Any] | None:
    """Return the manifest of a sample dataset, or ``None`` if the directory has none; others use the name, too."""
    path = root / MANIFEST_NAME
    if not os.path.lexists(path):
        return None
    hint = f"if {root} is a sample, generate it again; if not, give {MANIFEST_NAME} another name"
    try:
        manifest = json.loads(read_file(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read: {error}", hint=hint) from error
    if not isinstance(manifest, dict):
        raise DataError(f"{path} is not a dataset manifest", hint=hint)
    # An earlier version's sample has no digest of its files, and must not pass for a dataset of the user.
    return manifest if manifest.keys() & {"content_sha256", "files_sha256"} else None
