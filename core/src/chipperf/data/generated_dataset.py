"""A sample dataset that is generated once and then kept, with a manifest that says what it is."""

from __future__ import annotations

import errno
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs

from chipperf.data.dataset_identity import MANIFEST_NAME, files_sha256, read_manifest
from chipperf.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping


def default_sample_root() -> Path:
    """Return the cache directory of sample datasets."""
    return Path(platformdirs.user_cache_dir("chipperf")) / "samples"


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedDataset:
    """A sample dataset that is generated when it is needed.

    Attributes:
        directory_name: Name that is unique to the options and the generator version.
        options: Contents of the dataset.
        target: Quality that a short run reaches, as a fraction, by its key in the manifest; ``None`` if none is known.
        needed_bytes: Estimated size on disk.
        generate: Writes the dataset to a directory, and returns the digest of its content.
        files: Lists the files that the manifest's ``files_sha256`` covers.
    """

    directory_name: str
    name: str
    generator_version: int
    options: Mapping[str, Any]
    train_samples: int
    eval_samples: int
    target: Mapping[str, float | None]
    needed_bytes: int
    generate: Callable[[Path], str]
    files: Callable[[Path], Iterable[str]]

    def ensure(self, root: Path | None) -> Path:
        """Return the dataset's directory below ``root``; generate the dataset if it does not exist.

        It is generated under a temporary name and renamed when it is complete. ``root`` is by default in the user's
        cache directory.

        Raises:
            DataError: The directory cannot be written, the disk is full, or something else has that name.
        """
        root = root or default_sample_root()
        destination = root / self.directory_name
        if destination.exists():
            self._require_complete(destination)
            return destination
        no_space = DataError(
            f"no space for the sample dataset in {root}: about {self.needed_bytes} bytes are needed",
            hint="free some space or name a directory on another disk",
        )
        try:
            root.mkdir(parents=True, exist_ok=True)
            if shutil.disk_usage(root).free < self.needed_bytes:
                raise no_space
            with tempfile.TemporaryDirectory(prefix=f".{self.directory_name}-", dir=root) as temporary:
                directory = Path(temporary)
                self._write_manifest(directory, self.generate(directory))
                self._publish(directory, destination)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise no_space from error
            raise DataError(
                f"cannot write the sample dataset to {root}: {error.strerror}",
                hint="name another directory that you may write to",
            ) from error
        return destination

    def _require_complete(self, directory: Path) -> None:
        manifest = read_manifest(directory)
        if manifest is None or manifest.get("files_sha256") != files_sha256(directory, self.files(directory)):
            raise DataError(
                f"{directory} is not a complete sample dataset of this version, or was changed",
                hint=f"remove {directory} and try again",
            )

    def _write_manifest(self, directory: Path, content_sha256: str) -> None:
        manifest = {
            "name": self.name,
            "version": f"{self.generator_version}",
            "kind": "generated sample, not a benchmark dataset",
            "generator_version": self.generator_version,
            "options": self.options,
            "train_samples": self.train_samples,
            "eval_samples": self.eval_samples,
            "content_sha256": content_sha256,
            "files_sha256": files_sha256(directory, self.files(directory)),
            **self.target,
        }
        (directory / MANIFEST_NAME).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")

    def _publish(self, directory: Path, destination: Path) -> None:
        try:
            directory.rename(destination)
        except OSError:
            # Another process generated the same dataset first.
            if not destination.exists():
                raise
            self._require_complete(destination)
        else:
            destination.chmod(0o755)
            # TemporaryDirectory removes its directory on exit, so the directory must exist.
            directory.mkdir()
