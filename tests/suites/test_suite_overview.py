"""What a terminal shows of a suite while it runs."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from chipperf.cli.live import _SuitePicture
from chipperf.suites.state import Attempt, SuiteDirectory, SuiteRun, SuiteState
from chipperf.suites.suite_plan import PlannedRun
from fake_training import PROGRAM
from rich.console import Console
from support import perf_environment

if TYPE_CHECKING:
    from pathlib import Path

    from fake_training import FakeTraining

NOW = datetime(2026, 1, 2, tzinfo=timezone.utc)


def run(number: int) -> SuiteRun:
    return SuiteRun(
        planned=PlannedRun(
            configuration="resnet50-fp32-1x1",
            repeat=number,
            case="resnet50",
            precision="fp32",
            topology="1x1",
            seed=number,
            arguments=("resnet50",),
        )
    )


def drawn(picture: _SuitePicture) -> list[str]:
    console = Console(file=io.StringIO(), width=140)
    console.print(picture.draw())
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_a_long_suite_shows_the_runs_around_the_current_one(tmp_path: Path) -> None:
    state = SuiteState(file="suite.toml", runs=[run(number) for number in range(1, 101)])
    for done in state.runs[:49]:
        done.state = "completed"
        done.attempts.append(Attempt(directory=done.planned.name, started_at=NOW, seconds=90.0, exit_code=0))
    failed = state.runs[47]
    failed.state = "failed"
    failed.attempts[-1] = failed.attempts[-1].model_copy(update={"error": "no [bold] memory", "exit_code": 1})
    current = state.runs[49]
    current.state = "running"
    current.attempts.append(Attempt(directory=current.planned.name, started_at=NOW))
    directory = tmp_path / current.planned.name
    directory.mkdir(parents=True)
    progress = {"phase": "training", "step": 3, "steps": 9, "samples_per_s": 12.34}
    (directory / "progress.json").write_text(json.dumps(progress))
    picture = _SuitePicture(state, SuiteDirectory(tmp_path))
    picture.show(current)

    lines = drawn(picture)

    assert lines[0].strip() == "44 before"
    assert [line.split()[:2] for line in lines[1:10]] == [
        [state.runs[place].state, state.runs[place].planned.name] for place in range(44, 53)
    ]
    assert lines[4].endswith("after 1m30s: no [bold] memory")
    assert "training  step 3 of 9  12.3 samples/s" in lines[6]
    assert lines[10].strip() == "47 more"
    assert lines[11].startswith("48 of 100 completed, 1 failed")


def test_a_suite_on_a_terminal_leaves_its_summary(fake: FakeTraining) -> None:
    fake.write('[[run]]\ncase = "resnet50"\nrepeats = 2\n')
    terminal, end = pty.openpty()

    process = subprocess.Popen(
        [sys.executable, str(PROGRAM), "suite", "suite.toml", "--out", "out"],
        cwd=fake.directory,
        env=perf_environment(FAKE_TRAIN=str(fake.directory), TERM="xterm", COLUMNS="120"),
        stdout=subprocess.PIPE,
        stderr=end,
    )
    os.close(end)
    summary, _ = process.communicate(timeout=60)
    shown = os.read(terminal, 65536).decode()
    os.close(terminal)

    assert process.returncode == 0
    assert "resnet50-fp32-1x1/repeat-1" in shown
    assert "of 2 completed" in shown
    assert "2/2" in summary.decode()
    assert fake.states() == ["completed"] * 2
