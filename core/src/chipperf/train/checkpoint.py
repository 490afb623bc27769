"""Writing and reading of checkpoints: one file for the shared state, and one file per rank for its own state."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import pickle
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import torch

from chipperf.errors import RecordError
from chipperf.records.checkpoints import (
    MANIFEST,
    SHARED,
    CheckpointManifest,
    FileDigest,
    checkpoint_name,
    prune,
    rank_file,
    remove,
)
from chipperf.records.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from chipperf.plugin.types import Rank
    from chipperf.run.collectives import Collectives

State = dict[str, Any]
"""Tensors, numbers and texts in dictionaries, lists and tuples, which ``torch.load`` reads without running code."""


@dataclass(frozen=True, slots=True)
class CheckpointWriter:
    """Writes a run's checkpoints; every rank has a writer, and all ranks write at the same step.

    ``session`` counts the starts of the run's processes, and ``keep`` complete checkpoints are kept.
    """

    directory: Path
    run_id: str
    session: int
    keep: int
    rank: Rank
    collectives: Collectives

    def save(self, step: int, shared: State | None, own: State) -> str | None:
        """Write a checkpoint after ``step`` optimizer steps and remove old ones that are no longer needed.

        ``shared`` is the state that is the same on all ranks, given by the main rank, and ``own`` that of this rank
        only. Return ``None``, or why there is no checkpoint, the same on every rank; older checkpoints are intact.
        """
        checkpoint = self.directory / checkpoint_name(self.session, step)
        contents = {rank_file(self.rank.rank): own} | ({} if shared is None else {SHARED: shared})
        written: dict[str, FileDigest] = {}
        fault = None
        try:
            # Parents are not created, so that the directory of a deleted run does not come back.
            self.directory.mkdir(exist_ok=True)
            checkpoint.mkdir(exist_ok=True)
            for name, content in contents.items():
                written[name] = _write(checkpoint / name, content)
        except OSError as error:
            fault = _describe(error)
        reports = self.collectives.gather((written, fault))
        fault = next((fault for _, fault in reports if fault), None)
        if self.rank.is_main:
            if fault is None:
                files = {name: digest for digests, _ in reports for name, digest in digests.items()}
                fault = self._complete(checkpoint, step, files)
            if fault is not None:
                remove(checkpoint)
        return self.collectives.gather(fault)[0]

    def _complete(self, checkpoint: Path, step: int, files: Mapping[str, FileDigest]) -> str | None:
        manifest = CheckpointManifest(
            run_id=self.run_id,
            step=step,
            world_size=self.rank.world_size,
            written_at=datetime.now(timezone.utc),
            torch=torch.__version__,
            files=dict(sorted(files.items())),
        )
        try:
            _sync_directory(checkpoint)
            write_atomically(checkpoint / MANIFEST, manifest.model_dump_json(indent=2) + "\n")
            _sync_directory(checkpoint)
        except (OSError, RecordError) as error:
            return _describe(error)
        prune(self.directory, self.keep)
        return None


def read_checkpoint(checkpoint: Path, rank: int) -> tuple[State, State]:
    """Return the shared state and that of ``rank`` only, on the host; :class:`RecordError` if one is unreadable."""
    states = []
    for name in (SHARED, rank_file(rank)):
        try:
            states.append(torch.load(checkpoint / name, map_location="cpu", weights_only=True))
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise RecordError(
                f"checkpoint {checkpoint.name}: {name} cannot be loaded: {error}",
                hint="another version of torch may have written it; start the run again",
            ) from error
    return states[0], states[1]


def on_host(state: Any) -> Any:
    """Return the state with all tensors on the host, because tensors of some accelerators cannot be written."""
    if isinstance(state, torch.Tensor):
        return state.detach().cpu()
    if isinstance(state, dict):
        return {key: on_host(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(on_host(value) for value in state)
    return state


def _write(path: Path, content: State) -> FileDigest:
    """Write a file to the disk. Of errors, torch's own writer would not tell which one it was."""
    buffer = io.BytesIO()
    torch.save(on_host(content), buffer)
    saved = rest = buffer.getbuffer()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return FileDigest(size_bytes=len(saved), sha256=hashlib.sha256(saved).hexdigest())


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _describe(error: OSError | RecordError) -> str:
    """Return a fault without the name of a file, so that the same fault of another step is the same text."""
    cause = error.__cause__ if isinstance(error, RecordError) else error
    is_full = isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT)
    return "the disk is full" if is_full else getattr(cause, "strerror", None) or str(error)
