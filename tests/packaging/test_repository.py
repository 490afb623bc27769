"""What the repository keeps for its contributors fits the Makefile, the distributions and the changelog."""

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


def test_workflow_tests_and_lints_and_builds_the_site():
    assert {command.split()[1] for command in COMMANDS if command.startswith("make ")} == {"lint", "site", "test"}


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
