"""A vendor without cards: what ``perf plugins new`` makes, found through a hand-written dist-info.

Its metadata require nothing, which fails check A3; whatever else is static it fulfills.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chipperf.plugin.scaffold import NewPlugin, create_plugin
from support import FakeDistributions

if TYPE_CHECKING:
    from pathlib import Path

VENDOR = "doorchip"
PACKAGE = f"chipperf_{VENDOR}"
PASSING, FAILING, NEEDS_CAPABILITY, NEEDS_DEVICE = "A2", "A3", "S3", "S1"


def install(root: Path) -> Path:
    """Install the vendor into a directory that is to be on ``sys.path``; return the file of its hooks."""
    create_plugin(NewPlugin(name=VENDOR, title="Doorchip", device_type=VENDOR), root / "project")
    (root / "project" / "src" / PACKAGE).rename(root / PACKAGE)
    FakeDistributions(root).add(f"chipperf-{VENDOR}", f"[chipperf.vendors]\n{VENDOR} = {PACKAGE}.plugin\n")
    return root / PACKAGE / "plugin.py"
