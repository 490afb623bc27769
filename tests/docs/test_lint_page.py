"""docs/lint.md agrees with the rules, and its examples are real."""

from __future__ import annotations

import types
from dataclasses import replace
from typing import get_args

import generate_lint
import pytest
from chipperf.cli.lint import Format
from chipperf.documents.card_names import read_card_names
from chipperf.documents.case_document import read_document
from chipperf.documents.markdown import parse
from chipperf.lint.lint_run import read_ignore_comments
from chipperf.lint.result_formats import FORMATS
from chipperf.lint.rule import PAGES, Rule, all_rules, choose_rules
from chipperf.lint.settings import settings_of
from chipperf.lint.text_formats import TEXT_FORMATS
from documents import ROOT, blocks

try:
    import tomllib
except ModuleNotFoundError:
    import tomli as tomllib

PATH = ROOT / "docs" / "lint.md"
PAGE = PATH.read_text(encoding="utf-8")


def test_committed_list_is_that_of_the_rules():
    assert generate_lint.page() == PAGE, "run: make docs"


def test_committed_pages_are_those_of_the_rules():
    committed = {path: path.read_text(encoding="utf-8") for path in generate_lint.RULE_PAGES.iterdir()}

    assert committed == generate_lint.rule_pages(), "run: make docs"


def test_address_of_the_pages_is_that_of_the_documentation():
    project = tomllib.loads((ROOT / "core" / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    assert f"{PAGES}.md" == project["urls"]["Documentation"].replace("/index.md", "/lint.md")
    assert all(rule.url.removeprefix(f"{PAGES}/") == f"{rule.id}.md" for rule in all_rules())


def test_reason_why_a_rule_is_off_stands_on_the_page(monkeypatch):
    first, *others = all_rules()
    off = replace(first, off_because="two of three of its findings are false")
    monkeypatch.setattr(generate_lint, "all_rules", lambda: (off, *others))

    assert "* L01: two of three of its findings are false.\n" in generate_lint.page()
    assert "| [L01](lint/L01.md) foreign-card, error, off |" in generate_lint.page()


def test_lost_marks_are_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(generate_lint, "PAGE", tmp_path / "lint.md")
    generate_lint.PAGE.write_text(PAGE.replace("<!-- /rules -->", ""), encoding="utf-8")

    with pytest.raises(ValueError, match="marks"):
        generate_lint.page()


def test_example_of_a_waiver_is_one():
    (example,) = blocks(PATH, "markdown")

    waivers, problems = read_ignore_comments(parse(example))

    assert [(waiver.rules, bool(waiver.reason)) for waiver in waivers] == [(("L06",), True)]
    assert problems == []


def test_example_of_card_names_is_read(tmp_path):
    example, _ = blocks(PATH, "toml")
    path = tmp_path / "cards.toml"
    path.write_text(example, encoding="utf-8")

    mentions = read_card_names([path]).find("艾克米 ACME A1 64G in an ACME Server 8")

    assert [(mention.vendor, mention.card, mention.machine) for mention in mentions] == [
        ("acme", None, False),
        ("acme", "A1", False),
        ("acme", None, True),
    ]


def test_example_of_settings_is_read(tmp_path):
    _, example = blocks(PATH, "toml")
    (tmp_path / "chipperf.toml").write_text(example, encoding="utf-8")

    settings = settings_of(tmp_path / "README.md")
    ids = {rule.id for rule in settings.rules_of(tmp_path / "kunlunxin" / "README.md", (), (), ())}

    assert {rule.id for rule in choose_rules()} - ids == {"L06", "L23", "L24"}
    assert settings.baseline == tmp_path / "lint-baseline.json"


def test_example_of_a_rule_is_one():
    (example,) = blocks(PATH, "python")
    module = types.ModuleType("example_of_a_rule")
    exec(example, vars(module))
    (rule,) = (value for value in vars(module).values() if isinstance(value, Rule))

    for driver, count in (("yes", 1), ("4.0.25", 0)):
        document = read_document(f"#### Environment\n- Driver version: {driver}\n", "README.md")
        assert len(list(rule.function(types.SimpleNamespace(document=document)))) == count


@pytest.mark.parametrize("name", get_args(Format))
def test_format_is_explained(name):
    assert f"| `--format {name}`" in PAGE


def test_formats_of_the_command_are_those_there_are():
    assert {*get_args(Format), "statistics", "json-statistics"} == {*FORMATS, *TEXT_FORMATS}
