"""The pages of the rules, and their examples."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from chipperf.documents.card_names import read_card_names
from chipperf.lint.rule import DOCUMENT_RULE, all_rules, find_rule, rule
from chipperf.lint.rule_pages import page, read_examples
from reports import make_record, run

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

RULES = (DOCUMENT_RULE, *all_rules())


def lint_of(root: Path, files: Mapping[str, str], id: str):
    """Lint the reports of an example; L00 is found whatever is selected."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    records = [make_record(**json.loads(text)) for name, text in files.items() if name.endswith("record.json")]
    reports = [root / name for name in files if name.endswith("/README.md")]
    names = read_card_names([root / name for name in files if name == "cards.toml"])
    return run(*reports, select="L04" if id == DOCUMENT_RULE.id else id, records=records, names=names)


def test_every_rule_has_examples_and_every_example_a_rule():
    assert list(read_examples()) == [each.id for each in RULES]


@pytest.mark.parametrize("id", [each.id for each in RULES])
def test_rule_finds_its_wrong_example(tmp_path, id):
    result = lint_of(tmp_path, read_examples()[id].wrong, id)

    assert {finding.rule for finding in result.open} == {id}


@pytest.mark.parametrize("id", [each.id for each in RULES])
def test_rule_checks_its_right_example_and_finds_nothing(tmp_path, id):
    result = lint_of(tmp_path, read_examples()[id].right, id)

    assert [finding.message for finding in result.open] == []
    assert [each.reason for each in result.unchecked] == []


def test_page_says_what_why_and_what_to_do_and_shows_every_file():
    text = page(find_rule("L08"))

    assert text.startswith("# L08 no-config\n\nError. In a good document: There is a configuration")
    assert "**Why it matters**: a row without a configuration cannot be repeated.\n" in text
    assert "**Needs** besides the document: configurations." in text
    assert text.index("## Wrong") < text.index("## Right") < text.index("config_A1x2x8.py`:\n\n```py\n")
    assert "Off by default" not in text


def test_page_says_why_a_rule_is_off(monkeypatch):
    def function(subject):
        """Nothing is odd."""
        yield from ()

    noisy = rule("L04", "noisy", why="it matters", fix="do it", off_because="half of what it finds is right")(function)

    assert "**Off by default**: half of what it finds is right. `--extend-select L04` checks it.\n" in page(noisy)
