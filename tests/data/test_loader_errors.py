"""What stops a loader's processes ends the loading at once, with its cause and a remedy."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from support import run

PROGRAM = Path(__file__).with_name("loader_program.py")


@pytest.mark.parametrize(
    ("missing", "failure_class", "message", "hint"),
    [
        ("short path", "PluginError", "/aaaa", "set TMPDIR"),
        ("room for a batch", "shared_memory", "0.293 MiB in all", "--shm-size"),
        ("room for what is queued", "shared_memory", "0.293 MiB in all", "--set workers=N"),
        ("room for a queue", "shared_memory", "0.003906 MiB in all", "--shm-size"),
        ("process", "loader_died", "a loader process died: ", "memory has probably run out"),
        ("sense", "ZeroDivisionError", "a loader process failed: ZeroDivisionError: ", "in the rank's log"),
    ],
)
def test_cause_is_named(
    missing: str, failure_class: str, message: str, hint: str, tiny_dataset: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_dataset, tmp_path / "data")
    ended = run([sys.executable, str(PROGRAM), missing, str(tmp_path / "data")], os.environ, timeout_s=60)
    if ended.returncode == 77:
        pytest.skip("a /dev/shm of its own needs root's rights")

    assert ended.returncode == 0, ended.stderr
    failure = json.loads(ended.stdout)
    assert failure["failure_class"] == failure_class
    assert message in failure["message"]
    assert "Traceback" not in failure["message"]
    assert hint in failure["hint"]
