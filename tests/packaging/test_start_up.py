"""What does not train must not wait for torch: its import takes seconds, and a reader of reports does not have it."""

import runpy
import sys

import pytest
from chipperf.cli.command_groups import import_command
from chipperf.cli.main import COMMANDS, app
from projects import ROOT, run
from typer.testing import CliRunner

HEAVY = {"torch", "torchvision", "numpy"}

SCRIPT = """
import atexit, sys
from chipperf.cli.main import main

atexit.register(lambda: print("modules:", *sys.modules, file=sys.stderr))
main()
"""


def imported_by(*arguments):
    completed = run(sys.executable, "-c", SCRIPT, *arguments)
    return set(completed.stderr.rpartition("modules:")[2].split())


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["train", "--help"],
        ["cases"],
        ["cases", "resnet50"],
        ["plugins"],
        ["plugins", "new", "--help"],
        ["contract", "list"],
        ["lint", "--list"],
        ["lint", "README.md", "--select", "L04"],
        ["report", "import", "--help"],
        ["site", "--help"],
        ["data", "--help"],
    ],
)
def test_command_imports_nothing_heavy(arguments):
    imported = imported_by(*arguments)

    assert "chipperf.cli.main" in imported
    assert not HEAVY & imported


@pytest.mark.parametrize("arguments", [["cases"], ["lint", "README.md", "--select", "L04", "--exit-zero"]])
def test_plugins_are_asked_without_another_interpreter(arguments):
    told = run(sys.executable, "-c", f"import sys; sys.executable = '/nowhere/python'{SCRIPT}", *arguments)

    assert "broken" not in told.stdout
    assert "unknown" not in told.stderr.partition("modules:")[0]


def test_report_imports_nothing_heavy(tmp_path):
    make_record = runpy.run_path(str(ROOT / "tests" / "report" / "factory.py"))["make_record"]
    (tmp_path / "record.json").write_text(make_record(vendor__name="cpu").model_dump_json(), encoding="utf-8")

    imported = imported_by("report", str(tmp_path), "--out", str(tmp_path / "report.md"))

    assert (tmp_path / "report.md").stat().st_size > 0
    assert "jinja2" in imported
    assert not HEAVY & imported


@pytest.mark.parametrize(
    ("arguments", "modules"),
    [(["--version"], set()), (["--help"], set()), (["lint", "--list"], {"lint"}), (["cases"], {"cases"})],
)
def test_only_the_command_that_is_asked_for_is_imported(arguments, modules):
    commands = {f"chipperf.cli.{place.partition(':')[0]}" for place, _ in COMMANDS.values()}

    assert commands & imported_by(*arguments) == {f"chipperf.cli.{name}" for name in modules}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_found(name):
    shown = CliRunner().invoke(app, [name, "--help"], prog_name="perf")

    assert shown.exit_code == 0, shown.output
    assert f"perf {name} " in shown.output


@pytest.mark.parametrize("name", COMMANDS)
def test_summary_that_is_listed_is_the_command_s_own(name):
    place, summary = COMMANDS[name]

    assert import_command(name, place).get_short_help_str(1000) == summary


@pytest.mark.parametrize("arguments", [["lint", "--list"], ["contract", "list"]])
def test_lists_do_not_depend_on_docstrings(arguments):
    listed = run(sys.executable, "-OO", "-m", "chipperf", *arguments).stdout

    assert listed == run(sys.executable, "-m", "chipperf", *arguments).stdout


def test_help_without_docstrings():
    assert "contract" in run(sys.executable, "-OO", "-m", "chipperf", "--help").stdout
