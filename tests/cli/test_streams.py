"""Output that has another encoding, no room or no reader, and Ctrl-C: text or one line, and never a traceback."""

from __future__ import annotations

import errno
import io
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from chipperf.cli import main as program
from chipperf.cli.main import COMMANDS
from chipperf.cli.streams import Output
from chipperf.errors import PluginError
from factory import make_record
from support import perf_command, perf_environment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from invocation import Invoke

    Print = Callable[..., tuple[int, bytes]]

DOCUMENT = "# 报告 é ★\n\n| 配置 | p_whole |\n| --- | --- |\n| ★é测 1x8 | 12,3 |\n"


class FullDisk(io.StringIO):
    """A stream that takes nothing."""

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture(params=["gbk", "latin-1", "ascii"])
def encoding(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def print_with(encoding: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Print:
    """Run a command in a directory with a run and a document, and return its exit code and what it printed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "测é★").mkdir()
    (tmp_path / "测é★" / "record.json").write_text(make_record().model_dump_json(), encoding="utf-8")
    (tmp_path / "测é★.md").write_text(DOCUMENT, encoding="utf-8")

    def run(*arguments: str) -> tuple[int, bytes]:
        printed = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        monkeypatch.setattr(sys, "argv", ["perf", *arguments])
        monkeypatch.setattr(sys, "stdout", printed)
        with pytest.raises(SystemExit) as caught:
            program.main()
        printed.flush()
        assert isinstance(printed.buffer, io.BytesIO)
        assert isinstance(caught.value.code, int)
        return caught.value.code, printed.buffer.getvalue()

    return run


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("report", "测é★", "--lang", "zh"), 0),
        (("report", "测é★", "--format", "html"), 0),
        (("report", "import", "测é★.md"), 2),
        (("lint", "测é★.md"), 4),
        (("compare", "测é★", "测é★"), 0),
        (("verify", "测é★.md", "--runs", "测é★"), 4),
        (("bundle", "测é★", "--out", "测é★.tar.gz"), 0),
        (("data", "check", "resnet50", "测é★"), 4),
        (("site", "测é★", "--out", "网站"), 0),
    ],
)
def test_what_an_encoding_lacks_is_escaped(
    print_with: Print, encoding: str, arguments: tuple[str, ...], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    ended, printed = print_with(*arguments)

    assert ended == code, capsys.readouterr().err
    printed.decode(encoding)


@pytest.mark.parametrize("encoding", ["ascii"])
def test_every_command_has_help_in_every_encoding(print_with: Print) -> None:
    assert [print_with(name, "--help")[0] for name in COMMANDS] == [0] * len(COMMANDS)


def test_files_stay_utf_8(print_with: Print, tmp_path: Path) -> None:
    code, _ = print_with("report", "测é★", "--lang", "zh", "--out", "report.md")

    assert code == 0
    assert "配置" in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_locale_that_cannot_write_a_path(tmp_path: Path) -> None:
    """As users have it, with ASCII also for what Python reads and for the names of files."""
    (tmp_path / "测.md").write_text(DOCUMENT, encoding="utf-8")

    ended = subprocess.run(
        perf_command("report", "import", tmp_path / "测.md"),
        env=perf_environment(LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0"),
        capture_output=True,
        timeout=60,
    )

    assert ended.returncode == 2, ended.stderr
    assert b"Traceback" not in ended.stderr
    assert b".md" in ended.stderr


@pytest.mark.parametrize(("arguments", "buffered"), [("--version", "1"), ("--help", ""), ("plugins", "")])
def test_full_disk_is_a_line(arguments: str, buffered: str) -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        ended = subprocess.run(
            perf_command(arguments),
            env=perf_environment(PYTHONUNBUFFERED=buffered),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )

    assert ended.stderr == "perf: error: cannot write to standard output: No space left on device\n"
    assert ended.returncode == 3


def test_pipe_without_a_reader_ends_as_other_programs_do() -> None:
    with subprocess.Popen(
        perf_command("plugins"), env=perf_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
    # What a shell says of a program that SIGPIPE ended.
    assert process.returncode == 141


def test_notes_that_nobody_can_read_end_no_command() -> None:
    Output(FullDisk(), may_lose=True).write("note: a line\n")

    with pytest.raises(PluginError, match="No space left on device"):
        Output(FullDisk()).write("a line\n")


@pytest.mark.parametrize("place", ["file/tools", "/proc/nowhere"])
@pytest.mark.parametrize(
    "arguments",
    [
        ("report", "RUN", "--out", "PLACE/x.md"),
        ("site", "RUN", "--out", "PLACE"),
        ("bundle", "RUN", "--out", "PLACE/x.tar.gz"),
        ("data", "sample", "--out", "PLACE"),
        ("plugins", "new", "acme_card", "--directory", "PLACE"),
        ("launch", "slurm", "resnet50", "--nodes", "2", "--directory", "PLACE", "--dry-run"),
        ("launch", "slurm", "resnet50", "--nodes", "2", "--directory", "PLACE"),
        ("withhold", "RUN", "--field", "metrics.e2e_time_s", "--reason", "secret", "--out", "PLACE"),
    ],
)
def test_bad_place_for_output_is_a_line(invoke: Invoke, tmp_path: Path, arguments: tuple[str, ...], place: str) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "record.json").write_text(make_record().model_dump_json(), encoding="utf-8")

    ended = invoke(*(each.replace("PLACE", place).replace("RUN", "run") for each in arguments))

    assert "--dry-run" in arguments or ended.code != 0
    assert "Traceback" not in ended.err
    assert len(ended.err.splitlines()) <= 3


INTERRUPT = """
import importlib.abc, os, signal, sys

class Interrupter(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == {module!r}:
            # A suite that a shell started in the background has its children ignore the signal.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupter())
"""


@pytest.mark.parametrize("module", ["typer", "chipperf.cases.detr.case"])
def test_ctrl_c_during_an_import_is_a_line(tmp_path: Path, module: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(INTERRUPT.format(module=module))

    ended = subprocess.run(
        perf_command("train", "resnet5"),
        env=perf_environment(PYTHONPATH=str(tmp_path)),
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert (ended.returncode, ended.stderr) == (1, "perf: error: interrupted\n")
