"""Scalars in an event file of TensorBoard."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class ScalarWriter:
    """Writes to an event file of its own in a directory.

    Args:
        directory: Where TensorBoard is to look; created if it is not there.

    Raises:
        OSError: The directory or the file cannot be written.
    """

    def __init__(self, directory: Path) -> None:
        self._file = EventFileWriter(str(directory))

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Write scalars of one step, so that they are in the file even if the process is killed at once.

        Args:
            step: Optimizer steps until then.
            scalars: Value by tag.
        """
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        self._file.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
