"""The checkpoints of a run, as files: which there are, which are whole, and which are no longer needed.

A checkpoint is a directory. Its manifest is written last and names every other file with size and digest: without it,
or with another content than it says, there is no checkpoint.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from chipperf.errors import RecordError

if TYPE_CHECKING:
    from pathlib import Path

MANIFEST = "manifest.json"
SHARED = "shared.pt"

_NAME = re.compile(r"session(\d+)-step(\d+)")
_BLOCK_BYTES = 1 << 20


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FileDigest(_Model):
    """What a file of a checkpoint must be."""

    size_bytes: Annotated[int, Field(ge=0)]
    sha256: str


class CheckpointManifest(_Model):
    """What a checkpoint holds and who can continue from it.

    Attributes:
        format_version: Version of the files' content.
        run_id: The run.
        step: Optimizer steps that are done.
        world_size: Ranks of the run, each with a file of its own.
        written_at: When it was complete, UTC.
        torch: Version of torch.
        devices: Product name of each rank's device.
        files: The other files.
    """

    format_version: Literal[1] = 1
    run_id: str
    step: Annotated[int, Field(ge=0)]
    world_size: Annotated[int, Field(ge=1)]
    written_at: datetime
    torch: str
    devices: list[str]
    files: dict[str, FileDigest]


def checkpoint_name(session: int, step: int) -> str:
    """Return the directory's name; a session writes no two checkpoints after the same step."""
    return f"session{session:03d}-step{step:09d}"


def rank_file(rank: int) -> str:
    """Return the name of the file with what only one rank has."""
    return f"rank{rank}.pt"


def list_checkpoints(directory: Path) -> list[Path]:
    """Return everything that looks like a checkpoint, the newest first.

    The session counts before the step: after a fall back to an older checkpoint, new ones have fewer steps than the one
    that could not be read.
    """
    if not directory.is_dir():
        return []
    found = [(match, path) for path in directory.iterdir() if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found, key=lambda item: (int(item[0][1]), int(item[0][2])), reverse=True)]


def read_manifest(checkpoint: Path) -> CheckpointManifest:
    """Read what a checkpoint says of itself.

    Raises:
        RecordError: It is incomplete or damaged.
    """
    try:
        return CheckpointManifest.model_validate_json((checkpoint / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RecordError(f"checkpoint {checkpoint.name} is incomplete") from error
    except (OSError, ValueError, ValidationError) as error:
        raise RecordError(f"checkpoint {checkpoint.name}: {MANIFEST} cannot be read") from error


def verify_checkpoint(checkpoint: Path) -> CheckpointManifest:
    """Read every file of a checkpoint and compare it with the manifest.

    Raises:
        RecordError: A file is missing, or is not what was written.
    """
    manifest = read_manifest(checkpoint)
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
    """Return the newest checkpoint that is whole, if there is one, and what is wrong with each newer one."""
    faults: list[tuple[Path, str]] = []
    for checkpoint in list_checkpoints(directory):
        try:
            return (checkpoint, verify_checkpoint(checkpoint)), faults
        except RecordError as error:
            faults.append((checkpoint, error.message))
    return None, faults


def newest_complete_step(directory: Path) -> int | None:
    """Return the step of the newest checkpoint that has a manifest, without reading the other files."""
    for checkpoint in list_checkpoints(directory):
        try:
            return read_manifest(checkpoint).step
        except RecordError:
            continue
    return None


def prune(directory: Path, keep: int) -> None:
    """Remove all but the ``keep`` newest complete checkpoints, and whatever is incomplete beside them."""
    complete = 0
    for checkpoint in list_checkpoints(directory):
        complete += (checkpoint / MANIFEST).exists()
        if complete > keep or not (checkpoint / MANIFEST).exists():
            remove(checkpoint)


def remove(path: Path) -> None:
    """Remove a checkpoint, its manifest first: what a crash leaves of it is no checkpoint. Failure to is no error."""
    try:
        (path / MANIFEST).unlink(missing_ok=True)
    except OSError:
        return
    shutil.rmtree(path, ignore_errors=True)


def digest_of(path: Path) -> FileDigest:
    """Return size and digest of a file's content."""
    digest, size_bytes = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            size_bytes += len(block)
    return FileDigest(size_bytes=size_bytes, sha256=digest.hexdigest())
