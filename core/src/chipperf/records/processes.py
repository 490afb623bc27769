"""The process files of a run, which tell a killed run from a running one.

Each process writes a file ``process*.json`` into the run's directory and removes it when it ends.
"""

from __future__ import annotations

import json
import platform
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from pathlib import Path


def write_process_file(path: Path) -> None:
    """Write the identity of this process to ``path``.

    Raises:
        OSError: The file cannot be written.
    """
    process = psutil.Process()
    identity = {"pid": process.pid, "created": process.create_time(), "host": platform.node()}
    path.write_text(json.dumps(identity), encoding="utf-8")


def process_files(directory: Path) -> list[Path]:
    """Return the process files in the directory of a run."""
    return list(directory.glob("process*.json"))


def has_live_process(directory: Path) -> bool:
    """Return whether a process of the run may be alive. A process of another machine counts as alive."""
    return any(_is_alive(file) for file in process_files(directory))


def _is_alive(file: Path) -> bool:
    try:
        written = json.loads(file.read_text(encoding="utf-8"))
        if written["host"] != platform.node():
            return True
        found = psutil.Process(written["pid"])
        # Without a parent that waits for it, an ended process keeps its number as a zombie.
        return abs(found.create_time() - written["created"]) < 1 and found.status() != psutil.STATUS_ZOMBIE
    except (OSError, ValueError, KeyError, TypeError, psutil.Error):
        return False
