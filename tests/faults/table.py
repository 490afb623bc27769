"""``make faults``: makes every drill and prints what came of it as a table; fails if one ended as it must not."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from acme_build import CompilerMissing
from chipperf.data.sample import SampleOptions, ensure_sample_dataset
from network_namespaces import two_machines

from faults.drills import DRILLS, Drill, Outcome, Workplace, run_drill

if TYPE_CHECKING:
    from collections.abc import Iterator

_HEADER = "| Fault | Exit code | After | Record | Cause | Earlier data | Left behind |"


def main() -> int:
    """Print the table; return 1 if an outcome is not the one that is required."""
    print(_HEADER, "|" + " --- |" * 7, sep="\n", flush=True)
    faults = 0
    with tempfile.TemporaryDirectory(prefix="chipperf-faults-") as scratch:
        options = SampleOptions(classes=3, train_per_class=8, val_per_class=3, width=96, height=72)
        images = ensure_sample_dataset(options, Path(scratch) / "images")
        for number, drill in enumerate(DRILLS):
            root = Path(scratch) / str(number)
            root.mkdir()
            row, passed = _row(drill, root, images)
            faults += not passed
            print(row, flush=True)
    return int(faults > 0)


def _row(drill: Drill, root: Path, images: Path) -> tuple[str, bool]:
    try:
        with ExitStack() as stack:
            disk = stack.enter_context(small_disk(root / "disk", wanted=drill.needs.endswith("disk")))
            machines = stack.enter_context(two_machines()) if drill.needs == "two machines" else None
            outcome = run_drill(drill, Workplace(root, images, disk, machines))
    except (CompilerMissing, PermissionError) as error:
        return f"| {drill} | not made: {error} | | | | | |", True
    except (AssertionError, subprocess.TimeoutExpired) as error:
        return f"| {drill} | **{type(error).__name__}: {str(error).splitlines()[0]}** | | | | | |", False
    passed = _is_required(drill, outcome)
    cells = (
        drill.fault if passed else f"**{drill.fault}: not as required**",
        str(outcome.exit_code),
        f"{outcome.seconds:.0f} s",
        outcome.state or "gone with its directory",
        outcome.failure_class or "",
        "intact" if outcome.earlier_intact else "**lost**",
        "nothing" if not outcome.orphans else f"**{len(outcome.orphans)} processes**",
    )
    return f"| {' | '.join(cells)} |", passed


def _is_required(drill: Drill, outcome: Outcome) -> bool:
    ended = (outcome.state, outcome.failure_class, outcome.exit_code)
    return (
        ended == (drill.state, drill.failure_class, drill.exit_code) and outcome.earlier_intact and not outcome.orphans
    )


@contextmanager
def small_disk(root: Path, *, wanted: bool) -> Iterator[Path | None]:
    """Make a file system of eight mebibytes.

    Raises:
        PermissionError: Mounting is not allowed.
    """
    if not wanted:
        yield None
        return
    root.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(root)], capture_output=True).returncode:
        raise PermissionError("mounting a file system needs root's rights")
    try:
        yield root
    finally:
        subprocess.run(["umount", str(root)], check=True)


if __name__ == "__main__":
    sys.exit(main())
