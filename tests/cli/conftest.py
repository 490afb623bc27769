"""Fixtures of the command-line tests."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from chipperf.cli import main as program
from invocation import Ended

if TYPE_CHECKING:
    from pathlib import Path

    from invocation import Invoke


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Invoke:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PERF_VENDOR", raising=False)
    # Set, so that what -v and -q set ends with the test.
    for name in ("PERF_DEBUG", "PERF_QUIET"):
        monkeypatch.setenv(name, "")

    def run(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["perf", *(str(argument) for argument in arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            program.main()
        captured = capsys.readouterr()
        assert isinstance(caught.value.code, int)
        return Ended(caught.value.code, captured.out, captured.err)

    return run
