"""``perf qualify`` on the CPU, with a fake in place of the commands that it calls."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from chipperf.cli.main import app
from chipperf.errors import CheckFailed, DeviceError, PerfError, UsageError
from chipperf.qualify import qualification
from typer.testing import CliRunner

if TYPE_CHECKING:
    from collections.abc import Callable

    from typer.testing import Result

FAKE = Path(__file__).with_name("fake_perf.py")


@pytest.fixture
def qualify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs the command; a start of the stack counts as a second."""
    monkeypatch.setattr(qualification, "program", lambda module: [sys.executable, str(FAKE)])
    monkeypatch.setattr("chipperf.cli.qualify.measure_start", lambda selection: 1.0)
    monkeypatch.setenv("FAKE_PERF", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "behavior.json").write_text("{}")

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(app, ["qualify", *map(str, arguments)])

    return run


def message(result: Result) -> str:
    assert isinstance(result.exception, PerfError), result.exception
    return f"{result.exception.message}; {result.exception.hint}"


def test_plan_is_printed_with_its_times_and_begins_nothing(qualify: Callable[..., Result], tmp_path: Path) -> None:
    result = qualify("--vendor", "cpu", "--budget", "6m", "--cases", "mobilenetv2", "--dry-run")

    assert result.exception is None, result.exception
    stages = [line.split()[0] for line in result.stdout.splitlines()[1:8]]
    assert stages == ["doctor", "contract", "limits", "certificate", "suite", "report", "bundle"]
    assert "mobilenetv2-fp32-1x1" in result.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["behavior.json"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--budget", "20s"], "the shortest that would do is 43s"),
        (["--budget", "soon"], "is not a duration"),
        (["--cases", "resnet"], "resnet"),
        (["--data", "/somewhere"], "names no case"),
        (["--data", "mobilenetv2=."], "has no train, no val"),
        (["--sign", "no-key"], "no-key is not a file"),
        (["--resume"], "--resume needs --out"),
        (["--resume", "--out", "nothing"], "holds no qualification"),
    ],
)
def test_bad_input_is_refused_before_anything_begins(
    options: list[str], text: str, qualify: Callable[..., Result], tmp_path: Path
) -> None:
    result = qualify("--vendor", "cpu", *options)

    assert isinstance(result.exception, UsageError)
    assert text in message(result)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["behavior.json"]


def test_busy_card_is_refused_before_anything_begins(
    qualify: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(*arguments: object, **options: object) -> None:
        raise DeviceError("card 1 is in use", hint="wait")

    monkeypatch.setattr("chipperf.limits.limits_job.require_free_cards", busy)

    assert "card 1 is in use" in message(qualify("--vendor", "cpu"))
    assert not (tmp_path / "runs").exists()


def test_verdict_is_on_three_pages_with_the_command(qualify: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "behavior.json").write_text(json.dumps({"bundle": "fail"}))

    result = qualify("--vendor", "cpu", "--budget", "10m", "--cases", "mobilenetv2", "--out", "proof")

    assert isinstance(result.exception, CheckFailed)
    assert "bundle failed: it was told to" in message(result)
    english, chinese, page = (
        (tmp_path / "proof" / name).read_text() for name in ("verdict.md", "verdict.zh.md", "verdict.html")
    )
    command = "perf qualify --vendor=cpu --budget=10m --cases=mobilenetv2 --preset=tiny"
    assert all(command in text for text in (english, chinese, page))
    assert "Stage bundle: it was told to" in english
    assert "阶段 bundle" in chinese
    assert '<span lang="zh">' in page
    assert "[7/7] bundle: failed" in result.stderr


def test_qualification_is_begun_once(qualify: Callable[..., Result], tmp_path: Path) -> None:
    options: list[Any] = ["--vendor", "cpu", "--cases", "mobilenetv2", "--out", "proof"]
    (tmp_path / "behavior.json").write_text(json.dumps({"bundle": "fail"}))
    qualify(*options)

    assert "already holds a qualification" in message(qualify(*options))


def test_qualification_continues_only_with_the_versions_it_was_begun_with(
    qualify: Callable[..., Result], tmp_path: Path
) -> None:
    qualify("--vendor", "cpu", "--cases", "mobilenetv2", "--out", "proof")
    assert qualify("--out", "proof", "--resume").exception is None
    file = tmp_path / "proof" / "qualification.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"software": "chipperf-plugin 0.0.1, chipperf 0.0.1"}))

    assert "was begun with chipperf-plugin 0.0.1, chipperf 0.0.1" in message(qualify("--out", "proof", "--resume"))
