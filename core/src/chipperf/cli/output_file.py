"""The file that ``--out`` names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chipperf.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


def require_directory(out: Path) -> None:
    """Refuse a file that cannot be written because there is no directory for it, before any work is done.

    Raises:
        UsageError: There is none.
    """
    if not out.parent.is_dir():
        raise UsageError(f"{out.parent} is not a directory", hint="create it, or choose another --out")
