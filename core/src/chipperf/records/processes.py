"""The processes of a run, by which a run that was killed is told from one that goes on.

Each process writes a file ``process*.json`` into the run's directory and removes it at its end.
"""

from __future__ import annotations

import json
import platform
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from pathlib import Path


def write_process_file(path: Path) -> None:
    """Say in ``path`` that this process is one of the run's.

    Raises:
        OSError: The file cannot be written.
    """
    process = psutil.Process()
    identity = {"pid": process.pid, "created": process.create_time(), "host": platform.node()}
    path.write_text(json.dumps(identity), encoding="utf-8")


def process_files(directory: Path) -> list[Path]:
    """Return the files that the processes of the run in ``directory`` have written and not removed."""
    return list(directory.glob("process*.json"))


def has_live_process(directory: Path) -> bool:
    """Return False if the processes of the run are known to be gone. A process of another machine counts as alive."""
    return any(_is_alive(file) for file in process_files(directory))


def _is_alive(file: Path) -> bool:
    try:
        written = json.loads(file.read_text(encoding="utf-8"))
        if written["host"] != platform.node():
            return True
        found = psutil.Process(written["pid"])
        # Where nobody waits for orphans, one that has ended keeps its number.
        return abs(found.create_time() - written["created"]) < 1 and found.status() != psutil.STATUS_ZOMBIE
    except (OSError, ValueError, KeyError, TypeError, psutil.Error):
        return False
