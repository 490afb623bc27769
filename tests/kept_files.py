"""What earlier versions of chipperf wrote, kept as they wrote it: ``tests/kept`` has a directory for each of them.

Another is of a layout of reports between two versions.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

V010 = Path(__file__).parent / "kept" / "v0.1.0"
LAYOUT_2 = Path(__file__).parent / "kept" / "layout-2"


def written_in(file: Path) -> Any:
    """Return what a JSON file says, with the names that its version gave the fields."""
    return json.loads(file.read_text(encoding="utf-8"))
