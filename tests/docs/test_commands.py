"""Every command in the documentation works, on tiny data and on the CPU."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

import pytest
from chipperf.cli.main import app
from documents import PAGES, README, README_ZH, ROOT, blocks, commands, perf_commands
from typer.main import get_command
from typer.testing import CliRunner

if TYPE_CHECKING:
    from documents import Command

    from conftest import Workplace

COMMANDS = perf_commands()
TRAININGS = [
    command for command in COMMANDS if command.text.startswith("perf train ") and "--resume" not in command.text
]
OTHERS = [command for command in COMMANDS if command not in TRAININGS]


@pytest.mark.slow  # The first one waits for a real training run.
@pytest.mark.parametrize("command", OTHERS, ids=str)
def test_command_succeeds(trained: Workplace, command: Command):
    completed = trained.run(command.text)

    assert completed.returncode == 0, completed.stderr


@pytest.mark.parametrize("command", TRAININGS, ids=str)
def test_training_is_accepted(workplace: Workplace, command: Command, monkeypatch: pytest.MonkeyPatch):
    """One of them really trains, in the fixture; of all, everything before the workers' start is run."""
    plans = []
    monkeypatch.setattr("chipperf.cli.train._run", lambda job: plans.append(job.plan))
    monkeypatch.chdir(workplace.directory)

    result = CliRunner().invoke(app, shlex.split(workplace.harmless(command.text))[1:])

    assert result.exception is None, result.exception
    (plan,) = plans
    assert plan.case == command.text.split()[2]


@pytest.mark.slow  # Needs the same training run.
def test_documented_training_left_a_report_in_both_languages(trained: Workplace):
    zh, en = (trained.run(f"perf report runs/demo --lang {language}") for language in ("zh", "en"))

    assert "样例数据集" in zh.stdout.splitlines()[0]
    assert "Sample dataset" in en.stdout.splitlines()[0]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_that_need_cards_are_marked(page):
    assert not [command.text for command in commands(page) if "--nproc" in command.text and not command.marked]


def test_both_readmes_have_the_same_blocks():
    assert [(item.text, item.marked) for item in commands(README)] == [
        (item.text, item.marked) for item in commands(README_ZH)
    ]
    for language in ("toml", "python"):
        assert blocks(README, language) == blocks(README_ZH, language) != []


def test_both_readmes_have_the_same_sections_and_tables():
    def outline(page):
        lines = page.read_text(encoding="utf-8").splitlines()
        return [re.match(r"#+|\||\* ", line)[0] for line in lines if re.match(r"#+ |\||\* ", line)]

    assert outline(README) == outline(README_ZH)


@pytest.mark.parametrize("page", [README, README_ZH], ids=lambda page: page.name)
@pytest.mark.parametrize("name", get_command(app).commands)
def test_command_is_listed_in_the_readme(page, name):
    assert re.search(rf"^\| `perf {name}\b", page.read_text(encoding="utf-8"), re.MULTILINE)


def test_make_targets_exist():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {
        command.text.split()[1]
        for page in (README, ROOT / "CONTRIBUTING.md")
        for command in commands(page)
        if command.text.startswith("make ")
    }

    assert {"demo", "test"} <= named <= targets


def test_continuous_integration_runs_what_the_readme_says():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()

    assert "make test" in script
    assert "make test" in [command.text for command in commands(README)]
