"""What the repository keeps for its contributors fits the Makefile, the distributions and the changelog."""

import os
import re
import sys

import pytest
import yaml
from projects import PROJECTS, ROOT, run

try:
    import tomllib
except ModuleNotFoundError:
    import tomli as tomllib

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.search(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE)[1].split())
REPOSITORY = "https://github.com/chipperf/chipperf"


def read_yaml(name):
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


WORKFLOW = read_yaml(".github/workflows/ci.yml")
STEPS = [step for job in WORKFLOW["jobs"].values() for step in job["steps"]]
HOOKS = [hook for repo in read_yaml(".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]
COMMANDS = [step["run"] for step in STEPS if "run" in step] + [hook["entry"] for hook in HOOKS if "entry" in hook]


@pytest.mark.parametrize("command", sorted({command for command in COMMANDS if command.startswith("make ")}))
def test_target_of_make_exists(command):
    assert command.split()[1] in TARGETS


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith(".ci/")])
def test_script_exists(command):
    assert (ROOT / command).stat().st_mode & 0o111


def test_workflow_runs_every_gate():
    made = {command.split()[1] for command in COMMANDS if command.startswith("make ")}
    assert made == {"lint", "mutants", "site", "test"}


def test_workflow_has_every_python_and_both_versions_of_the_dependencies():
    oldest = int(PROJECT["tool"]["mypy"]["python_version"].removeprefix("3."))

    assert WORKFLOW["jobs"]["test"]["strategy"]["matrix"] == {
        "python": [f"3.{minor}" for minor in range(oldest, 15)],
        "versions": ["lowest", "newest"],
    }


def test_tools_of_hooks_are_installed_by_setup():
    programs = {command.split()[0].rpartition("/")[2] for command in COMMANDS if command.startswith(".venv/bin/")}
    required = {re.match(r"[\w-]+", line)[0] for line in PROJECT["dependency-groups"]["dev"]}

    assert programs
    assert programs <= required


def test_pre_commit_accepts_the_configuration():
    run(sys.executable, "-m", "pre_commit", "validate-config", ROOT / ".pre-commit-config.yaml")


@pytest.mark.parametrize("name", PROJECTS)
def test_distribution_says_where_it_comes_from(name):
    project = tomllib.loads((PROJECTS[name] / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    assert project["urls"] == {
        "Source": f"{REPOSITORY}/tree/main/{PROJECTS[name].relative_to(ROOT).as_posix()}",
        "Documentation": f"{REPOSITORY}/blob/main/docs/index.md",
        "Changelog": f"{REPOSITORY}/blob/main/CHANGELOG.md",
        "Issues": f"{REPOSITORY}/issues",
    }


def test_every_fragment_has_a_type_and_a_text():
    types = "|".join(PROJECT["tool"]["towncrier"]["fragment"])

    for path in (ROOT / "changelog.d").iterdir():
        if path.name != "README.md":
            assert re.fullmatch(rf"\+[\w-]+\.({types})\.md", path.name), path.name
            assert path.read_text(encoding="utf-8").strip(), path.name


def test_next_section_of_the_changelog_has_every_fragment():
    draft = run(sys.executable, "-m", "towncrier", "build", "--draft", cwd=ROOT).stdout

    for path in (ROOT / "changelog.d").glob("+*.md"):
        assert " ".join(path.read_text(encoding="utf-8").split()) in " ".join(draft.split()), path.name


def test_distributions_need_no_symbolic_links():
    """An archive may be extracted without them; what is installed is then installed from the text of a link."""
    tracked = run("git", "ls-files", "--stage", "core", "plugins", cwd=ROOT).stdout.splitlines()

    assert tracked
    assert [line for line in tracked if line.startswith("120000")] == []


@pytest.mark.parametrize("file", sorted((ROOT / "docker").iterdir()), ids=lambda file: file.name)
def test_dockerfile_copies_and_installs_what_there_is(file):
    text = file.read_text(encoding="utf-8")
    copied = re.findall(r"^COPY (\S+) /src/(\S+)$", text, re.MULTILINE)
    extras = re.findall(r"/src/core\[([\w,-]+)\]", text)
    project = tomllib.loads((ROOT / "core" / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    unignored = set(re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(encoding="utf-8"), re.MULTILINE))

    assert {source for source, _ in copied} <= unignored
    assert [source for source, target in copied if source != target or not (ROOT / source).is_dir()] == []
    assert extras
    assert {extra for names in extras for extra in names.split(",")} <= set(project["optional-dependencies"])
    assert [name for name in re.findall(r"/src/plugins/([a-z]+)", text) if not (ROOT / "plugins" / name).is_dir()] == []


STUB = """#!/bin/sh
case "$*" in *"-m pip"*) for line in $(seq 40); do echo "pip says $line"; done; exit ${FAILS:-0};; esac
case "$*" in *"import torch"*) exit 1;; esac
echo "perf $*"
"""


@pytest.fixture
def make_demo(tmp_path):
    """Run ``make demo`` with a pip that prints 40 lines and installs nothing."""
    (tmp_path / "core").mkdir()
    (tmp_path / "Makefile").write_text(MAKEFILE, encoding="utf-8")
    (tmp_path / "core" / "pyproject.toml").touch()
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name in ("python", "pip", "perf"):
        (programs / name).write_text(STUB, encoding="utf-8")
        (programs / name).chmod(0o755)

    def run_make(*arguments, check=True, **variables):
        environment = {"PATH": os.environ["PATH"], **variables}
        return run("make", "demo", *arguments, cwd=tmp_path, env=environment, check=check).stdout

    return run_make


def test_demo_says_size_and_time_first_and_keeps_pip_quiet(make_demo, tmp_path):
    first, again = make_demo().splitlines(), make_demo()

    assert "5 to 10 minutes; pip writes to demo/install.log" in first[0]
    assert "GB to download" in first[1]
    assert first[-1].startswith("reports: ")
    assert "pip says 40" in (tmp_path / "demo" / "install.log").read_text(encoding="utf-8")
    assert not any("pip says" in line for line in first)
    assert "install" not in again


def test_demo_shows_the_end_of_an_installation_that_failed(make_demo):
    shown = make_demo(check=False, FAILS="7")

    assert "pip says 40" in shown
    assert "pip says 9\n" not in shown
    assert "the installation failed; demo/install.log has all of it" in shown
    assert "training" not in shown


def test_demo_installs_no_development_tools_and_torch_from_the_index_that_is_named():
    plain = run("make", "-n", "-B", "demo", cwd=ROOT).stdout
    named = run("make", "-n", "-B", "demo", "TORCH_INDEX=https://index.example/cpu", cwd=ROOT).stdout

    assert "requirements-dev" not in plain
    assert "--index-url https://index.example/cpu torch torchvision" in named
    assert "--index-url" not in plain
