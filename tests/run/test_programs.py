"""What programs that this interpreter starts import."""

from __future__ import annotations

import subprocess
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
