"""Finding and reading records on disk."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from chipperf.errors import UnusableRecord, distinct_keys, first_fault
from chipperf.records.event_metrics import measured_in_events
from chipperf.records.files import read_bounded
from chipperf.records.process_files import has_live_process
from chipperf.records.schema import METRICS_VERSION, SCHEMA_VERSION, Failure, Record, Status, unstated_field
from chipperf.records.upgrade import upgrade

RECORD_NAME: Final = "record.json"
"""Name of a record's file."""

_DOCUMENTS: Final = (".md", ".markdown", ".log", ".txt")
"""Endings of what ``perf report import`` reads."""

_LONGEST_INTEGER = 19
"""Number of characters of the largest allowed integer."""


def record_text(record: Record) -> str:
    """Return the content of the record's file."""
    return record.model_dump_json(indent=2) + "\n"


def find_records(directory: Path, *, onerror: Callable[[OSError], None] | None = None) -> Iterator[Path]:
    """Yield the files named ``record.json`` in a directory and its subdirectories, sorted by directory name.

    Args:
        directory: Directory to search. Links to directories are not followed.
        onerror: Called if a directory cannot be read; by default such directories are skipped.
    """
    for place, subdirectories, names in os.walk(directory, onerror=onerror):
        subdirectories.sort()
        if RECORD_NAME in names:
            yield Path(place) / RECORD_NAME


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRecord:
    """A record, its file, and the digest of the file's bytes in hexadecimal."""

    record: Record
    file: Path
    sha256: str


def read_record(path: Path) -> Record:
    """Return the record of a run, see :func:`read_stored`."""
    return read_stored(path).record


def read_stored(path: Path) -> StoredRecord:
    """Read the record of a run and the digest of its file.

    Args:
        path: A run's directory or its ``record.json``.

    Raises:
        UnusableRecord: There is none, it is not a record, or a newer chipperf wrote it; the message says where.
    """
    return parse_stored(*read_content(path))


def read_content(path: Path) -> tuple[Path, bytes]:
    """Return the file of a run's record and its bytes, see :func:`read_stored`."""
    file = path / RECORD_NAME if path.is_dir() else path
    try:
        content = read_bounded(file)
    except FileNotFoundError as error:
        below = min(path.glob(f"*/{RECORD_NAME}"), default=None) if path.is_dir() else None
        hint = (
            f"name the runs in it, such as {below.parent}"
            if below
            else "name a run's directory: 'perf train' prints it"
        )
        raise UnusableRecord(f"no record at {file}", hint=hint) from error
    except OSError as error:
        raise UnusableRecord(f"cannot read {file}: {error.strerror}", hint=_hint(file)) from error
    return file, content


def _hint(file: Path) -> str:
    """Return what to do about a file that is no record."""
    if file.name == RECORD_NAME:
        return "the file was edited, is incomplete, or is of another program"
    if file.suffix.casefold() in _DOCUMENTS:
        return f"{shlex.join(['perf', 'report', 'import', str(file)])} makes records of a report or log"
    return "name a run's directory; 'perf runs DIR' lists the runs below a directory"


def stored_digest(path: Path) -> str:
    """Return the SHA-256 of the file of a run's record, see :func:`read_stored`, without parsing it."""
    return hashlib.sha256(read_content(path)[1]).hexdigest()


def parse_stored(file: Path, content: bytes) -> StoredRecord:
    """Return the record that a file's bytes are, see :func:`read_stored`."""
    return StoredRecord(record=_parse_record(content, file), file=file, sha256=hashlib.sha256(content).hexdigest())


def _parse_record(text: bytes, file: Path) -> Record:
    try:
        content = json.loads(text.decode("utf-8"), parse_int=_parse_integer, object_pairs_hook=distinct_keys)
    except UnicodeDecodeError as error:
        raise UnusableRecord(f"{file} is not a record: byte {error.start} is not UTF-8", hint=_hint(file)) from error
    except json.JSONDecodeError as error:
        place = f"{file}:{error.lineno}:{error.colno}"
        raise UnusableRecord(f"{place}: not JSON: {error.msg}", hint=_hint(file)) from error
    except RecursionError as error:
        raise UnusableRecord(f"{file} is not a record: nested too deeply", hint=_hint(file)) from error
    except ValueError as error:
        raise UnusableRecord(f"{file} is not a record: {error}", hint=_hint(file)) from error
    _require_known_version(file, content)
    hint = "the file was edited or is incomplete"
    try:
        record = Record.model_validate(upgrade(content))
    except ValidationError as error:
        raise UnusableRecord(f"{file}: {first_fault(error)}", hint=hint) from error
    if lacking := unstated_field(record):
        raise UnusableRecord(f"{file}: {lacking}: Field required", hint=hint)
    if record.status.state == "running" and not has_live_process(file.parent, thorough=False):
        killed = Failure(failure_class="killed", message="the run's processes are gone and left no result")
        record = record.model_copy(update={"status": Status(state="killed", failure=killed)})
        return measured_in_events(record, file.with_name("events.jsonl"))
    return record


def _parse_integer(text: str) -> int:
    """Return an integer that fits into 64 bits. Arithmetic with floats fails on much larger integers."""
    if len(text) > _LONGEST_INTEGER:
        raise ValueError(f"a number has {len(text)} digits")
    return int(text)


def _require_known_version(file: Path, content: Any) -> None:
    if not isinstance(content, dict) or not isinstance(content.get("schema_version"), int):
        raise UnusableRecord(f"{file} is not a record: schema_version is missing", hint=_hint(file))
    for key, known in (("schema_version", SCHEMA_VERSION), ("metrics_version", METRICS_VERSION)):
        written = content.get(key, known)
        if isinstance(written, int) and written > known:
            writer = content.get("chipperf_version", "a newer version")
            raise UnusableRecord(
                f"{file} has {key} {written}; this chipperf reads up to {known}",
                hint=f"it was written by chipperf {writer}: pip install --upgrade chipperf",
            )
