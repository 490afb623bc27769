"""A suite that an earlier version ran: its state is read, and it goes on where it was."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest
from chipperf.cli.main import app
from chipperf.records.store import read_record
from chipperf.suites.state import SuiteDirectory
from kept_files import V010, written_in
from typer.testing import CliRunner

if TYPE_CHECKING:
    from pathlib import Path

RESULTS = V010 / "suite" / "results"


def test_state_is_read() -> None:
    state = SuiteDirectory(RESULTS).load()

    assert state is not None
    assert state.model_dump(mode="json") == written_in(RESULTS / "suite.json")
    assert [run.state for run in state.runs] == ["completed", "completed", "failed"]
    assert state.runs[2].attempts[0].error == "the training loss is nan between steps 2 and 2"
    for run in state.runs:
        assert read_record(RESULTS / run.attempts[0].directory).status.state == run.state


@pytest.mark.parametrize(("option", "runs"), [("--resume", []), ("--retry-failed", ["too-fast"])])
def test_only_what_failed_is_left_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str, runs: list[str]
) -> None:
    """Its file gives the same plan, or it would be refused."""
    shutil.copytree(V010 / "suite", tmp_path / "suite")
    monkeypatch.chdir(tmp_path / "suite")
    options = [*dict.fromkeys(("--resume", option)), "--dry-run", "--json"]

    result = CliRunner().invoke(app, ["suite", "suite.toml", "--out", "results", *options])

    assert result.exception is None, result.output
    planned = json.loads(result.stdout)
    assert [run["seed"] for run in planned] == [1, 2, 1]
    assert [run["name"].partition("-mobilenetv2")[0] for run in planned if run["runs_now"]] == runs
