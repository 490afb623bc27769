"""Reading files within bounds, and writing them atomically: a crash or a full disk loses no data."""

from __future__ import annotations

import errno
import json
import os
import stat
from typing import TYPE_CHECKING, BinaryIO, Final, TypeVar

from chipperf.errors import RecordError, UnusableRecord, distinct_keys, first_fault

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import BaseModel

ModelT = TypeVar("ModelT", bound="BaseModel")

MAX_RECORD_BYTES: Final = 64 * 2**20
"""Largest size of a record and of what describes records. The record of a full ImageNet run has a few MiB."""


def open_regular(path: Path) -> BinaryIO:
    """Open a file to read bytes. A FIFO or device, which may never end, is an :class:`OSError`, as is a directory."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return path.open("rb")


def read_bounded(path: Path, max_bytes: int = MAX_RECORD_BYTES) -> bytes:
    """Return the content of a regular file; a larger one is an :class:`OSError` too."""
    with open_regular(path) as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise OSError(errno.EFBIG, f"it is larger than {max_bytes // 2**20} MiB", str(path))
    return content


def parse_model(model: type[ModelT], content: str | bytes) -> ModelT:
    """Return a model from JSON. A key that occurs twice is a :class:`ValidationError`, as is every other fault."""
    parsed = model.model_validate_json(content)
    try:
        json.loads(content, object_pairs_hook=distinct_keys)
    except ValueError as error:
        # Imported here: commands that only write files start without it.
        from pydantic_core import PydanticCustomError, ValidationError

        fault = PydanticCustomError("duplicate_key", "{fault}", {"fault": str(error)})
        raise ValidationError.from_exception_data(model.__name__, [{"type": fault, "input": None}]) from error
    return parsed


def read_model(model: type[ModelT], file: Path, *, hint: str) -> ModelT:
    """Read a model from a JSON file.

    Raises:
        UnusableRecord: The file cannot be read, or has another form; the message says where, and has the hint.
    """
    from pydantic import ValidationError

    try:
        return parse_model(model, read_bounded(file))
    except OSError as error:
        raise UnusableRecord(f"cannot read {file}: {error.strerror}", hint=hint) from error
    except ValidationError as error:
        raise UnusableRecord(f"{file}: {first_fault(error)}", hint=hint) from error


def write_atomically(path: Path, content: str | bytes, *, durable: bool = True) -> None:
    """Write ``content`` to ``path`` atomically: at any time, even after a crash, it has the old or the new content.

    Text is written as UTF-8. What can be made again need not be ``durable``: it does not wait for the disk, and only
    if the machine itself fails may it be lost.

    Raises:
        RecordError: The file cannot be written; the old content is intact.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        try:
            with temporary.open("wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                if durable:
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
