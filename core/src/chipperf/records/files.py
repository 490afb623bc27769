"""Writing files atomically: a crash or a full disk loses no data."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from chipperf.errors import RecordError

if TYPE_CHECKING:
    from pathlib import Path


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write ``content`` to ``path`` atomically: at any time, even after a crash, it has the old or the new content.

    Text is written as UTF-8.

    Raises:
        RecordError: The file cannot be written; the old content is intact.
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
    """Return the error for a disk without room for ``path``."""
    return RecordError(
        f"the disk is full: cannot write {path}", hint="free some space; what was written before is intact"
    )
