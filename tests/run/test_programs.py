"""What programs that this interpreter starts import."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from chipperf.run import programs
from chipperf.run.programs import program

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("version", [(3, 10), (3, 11)])
def test_current_directory_is_not_imported_from(
    version: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs.sys, "version_info", version)
    (tmp_path / "statistics.py").write_text("raise SystemExit('imported from the current directory')\n")

    process = subprocess.run([*program("chipperf"), "--version"], cwd=tmp_path, capture_output=True, text=True)

    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout.startswith("chipperf ")


def test_module_started_by_hand_is_not_imported_from_there_either(tmp_path: Path) -> None:
    """Nor are probes: they get the path of the program."""
    for name in ("statistics", "typer", "torch", "queue"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported from the current directory')\n")

    process = subprocess.run(
        [sys.executable, "-m", "chipperf", "doctor"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )

    assert process.returncode == 0, process.stderr
    assert "cpu (chipperf" in process.stdout
    assert "imported from" not in process.stdout + process.stderr
