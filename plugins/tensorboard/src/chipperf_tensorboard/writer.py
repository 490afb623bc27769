"""Scalars in an event file of TensorBoard."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class ScalarWriter:
    """Writes to an event file of its own in a directory, so that TensorBoard shows each step once.

    Args:
        directory: Where TensorBoard is to look; created if it is not there.
        step: Last step of former sessions that counts. TensorBoard forgets what they wrote of later steps.

    Raises:
        OSError: The directory or the file cannot be written.
    """

    def __init__(self, directory: Path, step: int = 0) -> None:
        self._written = _read_places(directory, step) if directory.is_dir() else set()
        self._file = EventFileWriter(str(directory))
        session = SessionLog(status=SessionLog.START)
        self._file.add_event(Event(wall_time=time.time(), step=step + 1, session_log=session))

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Write scalars of one step, so that they are in the file even if the process is killed at once.

        Args:
            step: Optimizer steps until then.
            scalars: Value by tag.
        """
        new = {tag: value for tag, value in scalars.items() if (tag, step) not in self._written}
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in new.items()]
        self._file.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _read_places(directory: Path, step: int) -> set[tuple[str, int]]:
    """Return tag and step of all scalars that former sessions wrote up to a step."""
    events = EventAccumulator(str(directory), size_guidance={SCALARS: 0})
    events.Reload()
    tags = events.Tags()[SCALARS]
    return {(tag, event.step) for tag in tags for event in events.Scalars(tag) if event.step <= step}
