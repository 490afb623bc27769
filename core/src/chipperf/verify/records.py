"""Finding records in directories, by the digest of the file or by the run."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from chipperf.errors import UsageError
from chipperf.records.store import find_records

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

MAX_BYTES: Final = 256 * 2**20
"""Largest size of a record. The record of a full ImageNet run has a few MiB."""


class RecordFinder:
    """Finds files called ``record.json`` in directories, and single files with any name."""

    def __init__(self, places: Sequence[Path]) -> None:
        """Set the places to search. The files are read at the first search.

        Raises:
            UsageError: A place does not exist.
        """
        for place in places:
            if not place.exists():
                raise UsageError(f"{place} does not exist", hint="give --runs directories that contain runs")
        self._places = tuple(places)

    @cached_property
    def _by_digest(self) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for file in self._files():
            digest = _digest(file)
            if digest:
                found.setdefault(digest, file)
        return found

    @cached_property
    def _by_run(self) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for file in self._by_digest.values():
            run_id = _run_id(file)
            if run_id:
                found.setdefault(run_id, file)
        return found

    def by_digest(self, digest: str) -> Path | None:
        """Return the file whose SHA-256 begins with ``digest``, or ``None``."""
        if len(digest) == hashlib.sha256().digest_size * 2:
            return self._by_digest.get(digest)
        return next((file for full, file in self._by_digest.items() if full.startswith(digest)), None)

    def by_run(self, run_id: str) -> Path | None:
        """Return the file of a record with this run id, or ``None``."""
        return self._by_run.get(run_id)

    def _files(self) -> Iterator[Path]:
        for place in self._places:
            if place.is_file():
                yield place
            else:
                yield from find_records(place)


def _digest(file: Path) -> str | None:
    """Return a file's SHA-256, or ``None`` if the file cannot be a record."""
    try:
        if not file.is_file() or file.stat().st_size > MAX_BYTES:
            return None
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        return None


def _run_id(file: Path) -> str | None:
    try:
        content: Any = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    run_id = content.get("run_id") if isinstance(content, dict) else None
    return run_id if isinstance(run_id, str) else None
