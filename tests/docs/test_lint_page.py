"""docs/lint.md agrees with the rules, and its examples are real."""

from __future__ import annotations

import types

import generate_lint
import pytest
from chipperf.documents.card_names import read_card_names
from chipperf.documents.case_document import read_document
from chipperf.documents.markdown import parse
from chipperf.lint.lint_run import read_ignore_comments
from chipperf.lint.result_formats import FORMATS
from chipperf.lint.rule import Rule
from documents import ROOT, blocks

PATH = ROOT / "docs" / "lint.md"
PAGE = PATH.read_text(encoding="utf-8")


def test_committed_list_is_that_of_the_rules():
    assert generate_lint.page() == PAGE, "run: make docs"


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
    (example,) = blocks(PATH, "toml")
    path = tmp_path / "cards.toml"
    path.write_text(example, encoding="utf-8")

    mentions = read_card_names([path]).find("艾克米 ACME A1 64G in an ACME Server 8")

    assert [(mention.vendor, mention.card, mention.machine) for mention in mentions] == [
        ("acme", None, False),
        ("acme", "A1", False),
        ("acme", None, True),
    ]


def test_example_of_a_rule_is_one():
    (example,) = blocks(PATH, "python")
    module = types.ModuleType("example_of_a_rule")
    exec(example, vars(module))
    (rule,) = (value for value in vars(module).values() if isinstance(value, Rule))

    for driver, count in (("yes", 1), ("4.0.25", 0)):
        document = read_document(f"#### Environment\n- Driver version: {driver}\n", "README.md")
        assert len(list(rule.function(types.SimpleNamespace(document=document)))) == count


@pytest.mark.parametrize("name", FORMATS)
def test_format_is_explained(name):
    assert f"| `--format {name}` |" in PAGE
