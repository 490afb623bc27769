"""The event log: lines in FlagPerf's format with MLPerf's event names, the global rank and a monotonic clock."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from chipperf.errors import RecordError

if TYPE_CHECKING:
    from pathlib import Path

    from chipperf.records.schema import Window

LOG_MARK = "[PerfLog]"
"""What an event's line begins with in the output of a rank; FlagPerf's tools look for it."""


def window_value(window: Window) -> dict[str, object]:
    """Return the value of the event of a measurement window."""
    return {"samples": window.samples, "seconds": window.seconds, "loss": window.loss}


class EventLog:
    """Writes the events of one rank.

    Every event goes to the rank's output as ``[PerfLog] {json}``, the line that FlagPerf's tools read. The main process
    also appends the same object to ``events.jsonl`` and flushes after each line, so that a killed run keeps its events.
    """

    def __init__(self, path: Path | None, rank: int) -> None:
        self._rank = rank
        self._path = path
        self._file = path.open("a", encoding="utf-8") if path else None

    def write(self, event: str, value: object = None, **metadata: object) -> None:
        """Append an event with MLPerf's name, for example ``run_start``; the metadata are its epoch and step.

        If it cannot be written, for example on a full disk, a :class:`RecordError` says so.
        """
        clocks = {"time_ms": time.time_ns() // 1_000_000, "monotonic_ns": time.monotonic_ns()}
        entry = {"event": event.upper(), "value": value, "metadata": {"rank": self._rank, **clocks, **metadata}}
        line = json.dumps(entry)
        try:
            print(f"{LOG_MARK} {line}", flush=True)
            if self._file:
                self._file.write(line + "\n")
                self._file.flush()
        except OSError as error:
            raise RecordError(
                f"cannot write the event log {self._path}: {error.strerror}",
                hint="free some space or choose another directory with --out; earlier events are intact",
            ) from error

    def close(self) -> None:
        """Close the file."""
        if self._file:
            # Every event was flushed or raised an error, so only the event that did not fit is left.
            with suppress(OSError):
                self._file.close()
