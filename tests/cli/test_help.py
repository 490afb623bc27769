"""What help says and how it looks, what a shell completes, and the options that every command has."""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING

import pytest
from chipperf.cli.main import COMMANDS, PURPOSES
from chipperf.errors import did_you_mean
from factory import make_record
from support import perf_command, perf_environment
from test_listings import commands

if TYPE_CHECKING:
    from pathlib import Path

    from invocation import Invoke


def test_every_command_is_listed_under_one_purpose(invoke: Invoke) -> None:
    shown = invoke("--help").out

    assert sorted(name for names in PURPOSES.values() for name in names) == sorted(COMMANDS)
    assert [title for title in PURPOSES if f"\n{title}:\n" in shown] == list(PURPOSES)


def test_no_summary_is_cut(invoke: Invoke) -> None:
    shown = " ".join(invoke("--help").out.split())

    assert [name for name, (_, summary) in COMMANDS.items() if summary not in shown] == []


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_help_is_plain_at_every_width(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setenv("COLUMNS", "110")
    wide = invoke(*command, "-h").out
    monkeypatch.setenv("COLUMNS", "60")
    narrow = invoke(*command, "--help").out

    assert "list[" not in wide
    assert re.findall(r"[a-z,:]\.\.\.$", wide, re.MULTILINE) == []
    assert 80 < max(map(len, wide.splitlines())) <= 110
    assert max(map(len, narrow.splitlines())) <= 60
    assert {"-q, --quiet", "-v, --verbose", "-h, --help"} <= set(re.findall(r"-\w, --\w+", wide))


def complete(line: str, cwd: Path) -> list[str]:
    """Return what bash is told to complete at the end of a line."""
    words = line.split() + [""] * line.endswith(" ")
    environment = perf_environment(_PERF_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=str(len(words) - 1))
    script = "import sys; sys.argv[0] = 'perf'; from chipperf.cli.main import main; main()"
    return subprocess.run(
        [*perf_command()[:1], "-c", script], env=environment, cwd=cwd, capture_output=True, text=True, timeout=60
    ).stdout.split()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("perf rep", ["report"]),
        ("perf train mob", ["mobilenetv2"]),
        ("perf train resnet50 --vendor cp", ["cpu"]),
        ("perf report runs/", ["runs/a", "runs/more/"]),
        ("perf train --resume runs/a", ["runs/a"]),
        ("perf lint x --against runs/m", ["runs/more/"]),
        ("perf report x --lang e", ["en"]),
    ],
)
def test_shell_completes_names(tmp_path: Path, line: str, words: list[str]) -> None:
    for name in ("a", "more/b"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "record.json").write_text("{}")

    assert complete(line, tmp_path) == words


@pytest.fixture
def run(tmp_path: Path) -> str:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "record.json").write_text(make_record(vendor__name="gone").model_dump_json(), encoding="utf-8")
    return "run"


@pytest.mark.parametrize("place", ["before", "after"])
def test_quiet_leaves_results_and_errors(invoke: Invoke, run: str, place: str) -> None:
    loud = invoke("report", run, "--out", "loud.md")
    words = ["report", run, "--out", "quiet.md"]
    quiet = invoke(*(["-q", *words] if place == "before" else [*words, "-q"]))
    failed = invoke("-q", "report", "none")

    assert "wrote loud.md" in loud.err
    assert "note: " in loud.err
    assert (quiet.code, quiet.err) == (0, "")
    assert failed.err.startswith("perf: error: no record at none\n")


@pytest.mark.parametrize("words", [("-v", "cases", "resnet5"), ("cases", "resnet5", "--verbose")])
def test_verbose_shows_the_traceback(invoke: Invoke, words: tuple[str, ...]) -> None:
    assert invoke(*words).err.startswith("Traceback (most recent call last):")
    assert os.environ["PERF_DEBUG"] == "1"


@pytest.mark.parametrize(("variables", "colored"), [({"FORCE_COLOR": "1"}, True), ({}, False)])
@pytest.mark.parametrize("no_color", ["", "1"])
def test_errors_have_colors_where_they_are_wanted(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], colored: bool, no_color: str
) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    for name, value in {**variables, "NO_COLOR": no_color}.items():
        monkeypatch.setenv(name, value)

    ended = invoke("cases", "resnet5\x1b[32m")

    assert ended.err.startswith("\x1b[") == (colored and not no_color)
    assert "\x1b[32m" not in ended.err


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("metx", "metax"),
        ("nvdia", "nvidia"),
        ("cup", "cpu"),
        ("zeta", ""),
        ("xpu", ""),
        ("gpu", ""),
        ("kunlun", "kunlunxin"),
    ],
)
def test_only_near_names_are_suggested(name: str, meant: str) -> None:
    suggested = did_you_mean(name, ("cpu", "kunlunxin", "metax", "nvidia"))

    assert suggested == (f" (did you mean {meant!r}?)" if meant else "")
