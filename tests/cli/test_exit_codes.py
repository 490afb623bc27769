"""One table of exit codes for every command: a path that does not exist is 2, whatever reads it."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer
from chipperf import errors
from chipperf.bundle.pack import pack
from chipperf.cli.main import EXIT_CODES, app
from factory import make_record

if TYPE_CHECKING:
    from invocation import Invoke

ROOT = Path(__file__).parents[2]
MISSING = "missing/path"

COMPLETE = {
    "train": ("mobilenetv2", "--vendor", "cpu", "--preset", "tiny"),
    "suite": ("SUITE",),
    "compare": ("RUN",),
    "runs": ("RUN",),
    "show": ("RUN",),
    "site": ("RUN", "--out", "site"),
    "limits": ("--vendor", "cpu"),
    "lint check": ("DOCUMENT",),
    "verify": ("DOCUMENT", "--runs", "RUN"),
    "withhold": ("RUN", "--field", "metrics.p_core", "--reason", "embargo", "--out", "public/run"),
    "reveal": ("RUN", "--secrets", "SECRETS"),
    "qualify": ("--vendor", "cpu", "--dry-run"),
    "report render": ("RUN",),
    "report import": ("DOCUMENT",),
    "bundle pack": ("RUN", "--out", "new.tar.gz"),
    "bundle check": ("BUNDLE",),
    "data check": ("mobilenetv2", "RUN"),
    "contract certify": ("--vendor", "cpu", "--case", "mobilenetv2", "--out", "certificate"),
    "contract run": ("--vendor", "cpu", "--level", "0"),
}
"""Arguments of each command that reads a path, with files that exist."""

WRITTEN = {"out", "secrets", "write_baseline", "output_file", "statement", "directory"}
NEVER_OPENED = {"stdin_filename"}
CASE_AND_DIRECTORY = "CASE=DIR"
READ_BY = {("reveal", "secrets"), ("data check", "directory"), ("site", "directory")}
"""Parameters that some commands read and others write."""


def paths_read() -> list[tuple[str, str]]:
    """Return command and parameter of every path that a command reads."""

    def below(command: Any, path: tuple[str, ...]) -> list[tuple[str, Any]]:
        names = getattr(command, "commands", {})
        own = [] if names else [(" ".join(path), command)]
        return own + [leaf for name in names for leaf in below(command.get_command(None, name), (*path, name))]

    return [
        (name, parameter.name)
        for name, command in below(typer.main.get_command(app), ())
        for parameter in command.params
        if (
            "Path" in str(inspect.unwrap(command.callback).__annotations__.get(parameter.name))
            or parameter.metavar == CASE_AND_DIRECTORY
        )
        and ((name, parameter.name) in READ_BY or parameter.name not in WRITTEN | NEVER_OPENED)
    ]


def parameter_of(name: str, parameter: str) -> Any:
    command: Any = typer.main.get_command(app)
    for part in name.split():
        command = command.get_command(None, part)
    return next(each for each in command.params if each.name == parameter)


@pytest.fixture
def arguments(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "record.json").write_text(make_record().model_dump_json(), encoding="utf-8")
    (tmp_path / "README.md").write_text("# report\n\n| 配置 | p_whole |\n| --- | --- |\n| A1 1x8 | 12.3 |\n")
    (tmp_path / "suite.toml").write_text('[[run]]\ncase = "mobilenetv2"\ntopology = "1x1"\nprecision = "fp32"\n')
    pack([tmp_path / "run"], [], tmp_path / "run.tar.gz", None)
    return {"BUNDLE": "run.tar.gz", "RUN": "run", "DOCUMENT": "README.md", "SUITE": "suite.toml", "SECRETS": MISSING}


@pytest.mark.parametrize(("name", "parameter"), paths_read(), ids=lambda part: part.replace(" ", "-"))
def test_path_that_does_not_exist_is_2(
    invoke: Invoke, tmp_path: Path, arguments: dict[str, str], name: str, parameter: str
) -> None:
    typed = parameter_of(name, parameter)
    given = list(COMPLETE[name])
    option = typed.opts[0]
    missing = f"mobilenetv2={MISSING}" if typed.metavar == CASE_AND_DIRECTORY else MISSING
    if not option.startswith("-"):
        # The path is the last of the arguments without a name.
        place = [*(place for place, text in enumerate(given) if text.startswith("--")), len(given)][0] - 1
        given[place] = MISSING
    elif option in given:
        given[given.index(option) + 1] = MISSING
    else:
        given += [option, missing]
    before = sorted(path.name for path in tmp_path.iterdir())

    ended = invoke(*name.split(), *(re.sub("|".join(arguments), lambda m: arguments[m[0]], each) for each in given))

    assert ended.code == 2, ended.err
    assert "missing" in ended.err
    assert "Traceback" not in ended.err
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_every_error_has_an_exit_code_of_the_table() -> None:
    kinds = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.PerfError)]

    assert {kind.exit_code for kind in kinds} == set(EXIT_CODES) - {0}


def test_table_is_in_the_help_and_written_down_once(invoke: Invoke) -> None:
    help_text = " ".join(invoke("--help").out.split())
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    tables = [
        page.name for page in pages if re.search(r"^\| (Exit c|C)ode\b", page.read_text(encoding="utf-8"), re.MULTILINE)
    ]

    assert all(f"{code} {meaning}" in help_text for code, meaning in EXIT_CODES.items())
    assert tables == ["README.md"]
