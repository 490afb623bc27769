"""What programs that this interpreter starts import."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from chipperf.run import programs
from chipperf.run.programs import is_program, program

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


@pytest.mark.parametrize("version", [(3, 10), (3, 11)])
def test_program_is_known_by_its_command(version: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs.sys, "version_info", version)
    command = ["/another/python", *program("chipperf.train.worker")[1:], "/run", "0"]
    assert is_program(command, "chipperf.train.worker")
    assert not is_program(command, "chipperf.train.worker_environment")
    assert not is_program(["sleep", "1"], "chipperf.train.worker")


@pytest.mark.parametrize("parts", [["", "/lib"], ["/lib", ""], ["", ""]])
def test_empty_part_of_the_path_is_not_the_current_directory(parts: list[str], tmp_path: Path) -> None:
    for name in ("statistics", "typer", "torch"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported from the current directory')\n")
    script = (
        "import os, sys; from chipperf.__main__ import forget_empty_parts; forget_empty_parts();"
        "import chipperf.cli.main, statistics; print(os.environ['PYTHONPATH'])"
    )

    process = subprocess.run(
        [sys.executable, "-P", "-c", script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(parts)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )

    assert (process.stderr, process.stdout.strip()) == ("", "/lib" if "/lib" in parts else "")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_are_taken_by_nothing_else(closed: str, tmp_path: Path) -> None:
    script = f"""
import os
from chipperf.cli.main import _prepare_process
_prepare_process()
with open({str(tmp_path / "told")!r}, "w") as file:
    file.write(f"{{file.fileno()}} {{[os.get_inheritable(number) for number in range(3)]}}")
"""
    subprocess.run(["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-c", script], check=True)

    number, inheritable = (tmp_path / "told").read_text().split(maxsplit=1)
    assert int(number) > 2
    assert inheritable == "[True, True, True]"


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
