"""The event log: FlagPerf's line shape with MLPerf's vocabulary, a true global rank and a monotonic clock."""

from __future__ import annotations

import json
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from chipperf.errors import RecordError

if TYPE_CHECKING:
    from pathlib import Path


class EventLog:
    """Writes events of one rank.

    Every event goes to the rank's output as ``[PerfLog] {json}``, the line FlagPerf's tools look for. The main process
    also appends the same object to ``events.jsonl``, flushed line by line so that a killed run keeps its events.
    """

    def __init__(self, path: Path | None, rank: int) -> None:
        self._rank = rank
        self._path = path
        self._file = path.open("a", encoding="utf-8") if path else None

    def write(self, event: str, value: object = None, **metadata: object) -> None:
        """Append an event.

        Args:
            event: Name in MLPerf's vocabulary, for example ``run_start``.
            value: What it carries; JSON-serialisable.
            **metadata: Where it belongs: epoch, step.

        Raises:
            RecordError: It cannot be written, for example because the disk is full.
        """
        entry: dict[str, Any] = {
            "event": event.upper(),
            "value": value,
            "metadata": {
                "rank": self._rank,
                "time_ms": time.time_ns() // 1_000_000,
                "monotonic_ns": time.monotonic_ns(),
                **metadata,
            },
        }
        line = json.dumps(entry, ensure_ascii=False)
        try:
            print(f"[PerfLog] {line}", file=sys.stdout, flush=True)
            if self._file:
                self._file.write(line + "\n")
                self._file.flush()
        except OSError as error:
            raise RecordError(
                f"cannot write the event log {self._path}: {error.strerror}",
                hint="free some space or choose another directory with --out; what was written before is intact",
            ) from error

    def close(self) -> None:
        """Close the file."""
        if self._file:
            # Every event was flushed, or its error raised: what is left is the event that did not fit.
            with suppress(OSError):
                self._file.close()
