"""Listing and reading the files of a dataset. Nothing else is read: a FIFO, for example, would never end."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from chipperf.errors import DataError, MissingDataset


def require_directory(root: str | os.PathLike[str], hint: str, *, parts: Sequence[str] = ()) -> Path:
    """Return the path of a dataset directory; a :class:`MissingDataset` says that it is none, or lacks a part."""
    root = Path(root)
    if not root.is_dir():
        what = "is not a directory" if root.exists() else "does not exist"
        raise MissingDataset(f"the dataset directory {root} {what}", hint=hint)
    if lacking := [part for part in parts if not (root / part).is_dir()]:
        raise MissingDataset(f"the dataset directory {root} has no {', no '.join(lacking)}{_held(root)}", hint=hint)
    return root


def _held(directory: Path) -> str:
    with suppress(OSError):
        names = sorted(name for name in os.listdir(directory) if not name.startswith("."))
        return f"; {directory} holds {', '.join([*names[:5], *(['…'] if names[5:] else [])]) or 'nothing'}"
    return ""


def files_below(directory: Path, hidden: list[str] | None = None) -> list[str]:
    """Return the sorted paths, relative to ``directory``, of all files below it; symbolic links are followed.

    Names that begin with a dot are left out, and added to ``hidden``: programs keep copies and thumbnails there.

    Raises:
        DataError: The directory or one below it cannot be read, or a link leads back to a directory that holds it.
    """
    found = []
    pending: list[tuple[str, tuple[os.stat_result, ...]]] = [("", ())]
    while pending:
        relative, above = pending.pop()
        try:
            here = os.stat(os.path.join(directory, relative))
            if any(os.path.samestat(here, other) for other in above):
                link = os.path.join(directory, relative).rstrip("/")
                raise DataError(f"{link}: leads back to a directory that holds it", hint="remove this link")
            with os.scandir(os.path.join(directory, relative)) as entries:
                for entry in entries:
                    path = f"{relative}{entry.name}"
                    if entry.name.startswith("."):
                        if hidden is not None:
                            hidden.append(os.path.join(directory, path))
                    elif entry.is_dir():
                        pending.append((f"{path}/", (*above, here)))
                    else:
                        found.append(path)
        except OSError as error:
            raise unlistable(Path(directory, relative), error) from error
    return sorted(found)


def unlistable(directory: Path, error: OSError) -> DataError:
    """Return the error for a directory that cannot be listed; if it is missing, with the names beside it."""
    what = f"cannot list {directory}: {error.strerror}"
    if isinstance(error, FileNotFoundError):
        what += _held(directory.parent)
    return DataError(what)


@contextmanager
def open_file(path: str | os.PathLike[str], buffering: int = -1) -> Iterator[BinaryIO]:
    """Open a file for reading; raises :class:`DataError` if it cannot be read or is not a regular file."""
    try:
        # Without the flag, opening a FIFO waits for a writer.
        with open(
            path, "rb", buffering=buffering, opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)
        ) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise DataError(f"{path}: is not a regular file", hint="replace or remove it")
            yield file
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def read_file(path: str | os.PathLike[str]) -> bytes:
    """Return the content of a file; raises :class:`DataError` if it cannot be read."""
    # A buffer would take more system calls than the one read.
    with open_file(path, buffering=0) as file:
        return file.read()
