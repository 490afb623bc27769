"""The checkpoint files of a run: listing, verifying and removing them.

A checkpoint is a directory. Its manifest is written last and names every other file with size and digest. A checkpoint
is valid only if it has a manifest and its files match the manifest.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from chipperf.errors import RecordError
from chipperf.records.files import open_regular, parse_model, read_bounded
from chipperf.records.schema import StrictModel

MANIFEST = "manifest.json"
SHARED = "shared.pt"

_NAME = re.compile(r"session(\d+)-step(\d+)")
_BLOCK_BYTES = 1 << 20


class FileDigest(StrictModel):
    """Expected size and digest of a file of a checkpoint."""

    size_bytes: Annotated[int, Field(ge=0)]
    sha256: str


class CheckpointManifest(StrictModel):
    """The content of a checkpoint after ``step`` completed optimizer steps, and the setup that can continue from it.

    Each of the ``world_size`` ranks has its own file. ``devices``, of earlier versions, are the ranks' devices.
    """

    format_version: Literal[1] = 1
    run_id: str
    step: Annotated[int, Field(ge=0)]
    world_size: Annotated[int, Field(ge=1)]
    written_at: datetime
    torch: str
    devices: list[str] = []
    files: dict[str, FileDigest]


def checkpoint_name(session: int, step: int) -> str:
    """Return the directory's name. A session writes at most one checkpoint per step."""
    return f"session{session:03d}-step{step:09d}"


def rank_file(rank: int) -> str:
    """Return the name of the file with the state of one rank."""
    return f"rank{rank}.pt"


def list_checkpoints(directory: Path) -> list[Path]:
    """Return all directories named like checkpoints, the newest first.

    The order is by session, then by step: a session that falls back to an older checkpoint writes new checkpoints with
    fewer steps than the unreadable one.
    """
    if not directory.is_dir():
        return []
    found = [(match, path) for path in directory.iterdir() if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found, key=lambda item: (int(item[0][1]), int(item[0][2])), reverse=True)]


def read_manifest(checkpoint: Path) -> CheckpointManifest:
    """Read the manifest of a checkpoint.

    Raises:
        RecordError: The manifest is missing or damaged.
    """
    try:
        manifest = parse_model(CheckpointManifest, read_bounded(checkpoint / MANIFEST))
    except FileNotFoundError as error:
        raise RecordError(f"checkpoint {checkpoint.name} is incomplete") from error
    except (OSError, ValueError, ValidationError) as error:
        raise RecordError(f"checkpoint {checkpoint.name}: {MANIFEST} cannot be read") from error
    # The record would say that the run continued there.
    if (named := _NAME.fullmatch(checkpoint.name)) and int(named[2]) != manifest.step:
        raise RecordError(f"checkpoint {checkpoint.name}: {MANIFEST} says step {manifest.step}")
    return manifest


def verify_checkpoint(checkpoint: Path) -> CheckpointManifest:
    """Read every file of a checkpoint and compare it with the manifest.

    Raises:
        RecordError: A file is missing or differs from the manifest.
    """
    manifest = read_manifest(checkpoint)
    if manifest.world_size >= len(manifest.files):
        named = f"{MANIFEST} names {len(manifest.files)} files for {manifest.world_size} ranks"
        raise RecordError(f"checkpoint {checkpoint.name}: {named}")
    for name in (SHARED, *(rank_file(rank) for rank in range(manifest.world_size))):
        if name not in manifest.files:
            raise RecordError(f"checkpoint {checkpoint.name}: {MANIFEST} does not name {name}")
    for name, expected in manifest.files.items():
        try:
            found = digest_of(checkpoint / name)
        except OSError as error:
            raise RecordError(f"checkpoint {checkpoint.name}: {name} cannot be read: {error.strerror}") from error
        if found.size_bytes != expected.size_bytes:
            raise RecordError(
                f"checkpoint {checkpoint.name}: {name} has {found.size_bytes} bytes instead of {expected.size_bytes}"
            )
        if found != expected:
            raise RecordError(f"checkpoint {checkpoint.name}: {name} does not have the checksum it was written with")
    return manifest


def newest_valid(directory: Path) -> tuple[tuple[Path, CheckpointManifest] | None, list[tuple[Path, str]]]:
    """Return the newest valid checkpoint, if any, and the fault of each newer checkpoint."""
    faults: list[tuple[Path, str]] = []
    for checkpoint in list_checkpoints(directory):
        try:
            return (checkpoint, verify_checkpoint(checkpoint)), faults
        except RecordError as error:
            faults.append((checkpoint, error.message))
    return None, faults


def newest_complete_step(directory: Path) -> int | None:
    """Return the step of the newest checkpoint with a manifest, without reading the other files."""
    for checkpoint in list_checkpoints(directory):
        try:
            return read_manifest(checkpoint).step
        except RecordError:
            continue
    return None


def prune(directory: Path, keep: int) -> None:
    """Remove all checkpoints except the ``keep`` newest complete ones. Incomplete checkpoints are removed too."""
    complete = 0
    for checkpoint in list_checkpoints(directory):
        complete += (checkpoint / MANIFEST).exists()
        if complete > keep or not (checkpoint / MANIFEST).exists():
            remove(checkpoint)


def remove(path: Path) -> None:
    """Remove a checkpoint, its manifest first, so that a crash leaves an invalid checkpoint. Ignore failures."""
    try:
        (path / MANIFEST).unlink(missing_ok=True)
    except OSError:
        return
    shutil.rmtree(path, ignore_errors=True)


def digest_of(path: Path) -> FileDigest:
    """Return the size and digest of a file's content."""
    digest, size_bytes = hashlib.sha256(), 0
    with open_regular(path) as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            size_bytes += len(block)
    return FileDigest(size_bytes=size_bytes, sha256=digest.hexdigest())
