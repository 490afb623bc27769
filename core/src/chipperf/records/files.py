"""Writing a file so that a crash or a full disk loses nothing."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from chipperf.errors import RecordError

if TYPE_CHECKING:
    from pathlib import Path


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write ``content`` to ``path`` so that a reader sees the old content or the new one, and a crash loses neither.

    Text is written as UTF-8.

    Raises:
        RecordError: The file cannot be written; what was there before is intact.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        try:
            with temporary.open("wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise disk_full(path) from error
        raise RecordError(
            f"cannot write {path}: {error.strerror}", hint="check that the directory still exists"
        ) from error


def disk_full(path: Path) -> RecordError:
    """Return the error that the disk has no room for ``path``."""
    return RecordError(
        f"the disk is full: cannot write {path}", hint="free some space; what was written before is intact"
    )
