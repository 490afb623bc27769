"""Settings of lint in TOML files."""

from __future__ import annotations

from pathlib import Path

import pytest
from chipperf.errors import ConfigError
from chipperf.lint.rule import all_rules
from chipperf.lint.settings import settings_of, turned_off

TABLES = {"pyproject.toml": "[tool.chipperf.lint]", "chipperf.toml": "[lint]"}


def ids(document: Path, *, select=(), ignore=(), extend_select=()):
    return {rule.id for rule in settings_of(document).rules_of(document, select, ignore, extend_select)}


def write(directory: Path, text: str, name: str = "chipperf.toml") -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / name).write_text(f"{TABLES[name]}\n{text}\n", encoding="utf-8")


@pytest.mark.parametrize("name", TABLES)
def test_settings_hold_below_their_file(tmp_path, name):
    write(tmp_path / "training", 'select = ["L04", "L12"]\nbaseline = "old.json"', name)

    assert ids(tmp_path / "training" / "acme" / "README.md") == {"L04", "L12"}
    assert settings_of(tmp_path / "training" / "README.md").baseline == tmp_path / "training" / "old.json"
    assert len(ids(tmp_path / "README.md")) == len([rule for rule in all_rules() if not rule.off_because])


def test_nearest_file_with_settings_holds_and_chipperf_toml_before_pyproject(tmp_path):
    write(tmp_path, 'select = ["L01"]')
    write(tmp_path / "a", 'select = ["L02"]', "pyproject.toml")
    write(tmp_path / "a", 'select = ["L03"]')
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "pyproject.toml").write_text('[tool.chipperf]\n[tool.ruff.lint]\nselect = ["E"]\n')

    assert ids(tmp_path / "a" / "README.md") == {"L03"}
    assert ids(tmp_path / "b" / "README.md") == {"L01"}


def test_relative_path_and_parent_directories_are_understood(tmp_path, monkeypatch):
    write(tmp_path / "a", 'select = ["L02"]')
    monkeypatch.chdir(tmp_path / "a")

    assert ids(Path("README.md")) == {"L02"}
    assert ids(Path("../a/../a/x/README.md")) == {"L02"}


@pytest.mark.parametrize(
    ("pattern", "ignored"),
    [
        ("kunlunxin/*", True),
        ("kunlunxin/**", True),
        ("*/README.md", True),
        ("README.md", True),
        ("**/README.md", True),
        ("kunlunxin/detr/README.md", True),
        ("metax/*", False),
        ("kunlunxin", False),
    ],
)
def test_rules_are_ignored_in_files_of_a_pattern(tmp_path, pattern, ignored):
    write(tmp_path, f'select = ["L04", "L12"]\n[lint.per-file-ignores]\n"{pattern}" = ["L04"]')

    assert ids(tmp_path / "kunlunxin" / "detr" / "README.md") == ({"L12"} if ignored else {"L04", "L12"})


def test_file_beside_the_settings_has_any_directory_before_it(tmp_path):
    write(tmp_path, 'select = ["L04", "L12"]\n[lint.per-file-ignores]\n"**/x.md" = ["L04"]')

    assert ids(tmp_path / "x.md") == {"L12"}


def test_command_line_adds_to_the_file_and_its_selection_replaces_the_files(tmp_path):
    write(tmp_path, 'select = ["L01", "L02"]\nignore = ["L03"]\n[lint.per-file-ignores]\n"a.md" = ["L04"]')

    assert ids(tmp_path / "b.md", ignore=["L02"], extend_select=["L05"]) == {"L01", "L05"}
    assert ids(tmp_path / "b.md", select=["L03"]) == {"L03"}
    assert ids(tmp_path / "a.md", select=["L03", "L04"]) == {"L03", "L04"}


@pytest.mark.parametrize("text", ["L04", "l04", "Ｌ０４", "blank-cell", "Blank-Cell"])
def test_rule_is_named_by_its_id_or_name(tmp_path, text):
    write(tmp_path, f'select = ["{text}"]')

    assert ids(tmp_path / "x.md") == {"L04"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('selct = ["L04"]', r"chipperf.toml: lint: unknown key 'selct' \(did you mean 'select'\?\)"),
        ('extend_select = ["L04"]', r"unknown key 'extend_select' \(did you mean 'extend-select'\?\)"),
        ('[lnt]\nselect = ["L04"]', r"top level: unknown key 'lnt' \(did you mean 'lint'\?\)"),
        ('select = "L04"', r'chipperf.toml: lint.select has to be a list such as \["L24"\]'),
        ("select = [4]", r"lint.select.0 has to be a text"),
        ('per-file-ignores = ["L04"]', r"lint.per-file-ignores has to be a table"),
        ('ignore = ["L00"]', "L00 can be neither selected nor ignored"),
        ('select = ["L044"]', r"no rule 'L044' \(did you mean 'L04'\?\)"),
        ('[lint.per-file-ignores]\n"x.md" = ["L99"]', "no rule 'L99'"),
        ("select = [", "is not TOML"),
    ],
)
def test_wrong_settings_are_an_error_that_says_where_and_what(tmp_path, text, message):
    write(tmp_path, text)

    with pytest.raises(ConfigError, match=message) as caught:
        settings_of(tmp_path / "README.md")
    assert caught.value.hint


@pytest.mark.parametrize(("text", "step"), [("tool = 3", "tool"), ("[tool]\nchipperf = 3", "chipperf")])
def test_settings_in_no_table_are_an_error(tmp_path, text, step):
    (tmp_path / "pyproject.toml").write_text(text)

    with pytest.raises(ConfigError, match=f"pyproject.toml: {step} is not a table"):
        settings_of(tmp_path / "README.md")


def test_unknown_key_in_pyproject_is_named_with_its_table(tmp_path):
    write(tmp_path, "base = 1", "pyproject.toml")

    with pytest.raises(ConfigError, match=r"tool\.chipperf\.lint: unknown key 'base'"):
        settings_of(tmp_path / "README.md")


def test_each_file_of_settings_is_named_with_the_rules_it_turns_off(tmp_path):
    write(tmp_path, 'ignore = ["L12", "L02"]')
    documents = [tmp_path / "a" / "x.md", tmp_path / "x.md"]

    assert turned_off(documents, settings_of, (), (), ()) == [
        f"{tmp_path / 'chipperf.toml'} turns off L02, L12 in 2 documents"
    ]
    assert turned_off(documents, settings_of, ["L02"], (), ()) == []
