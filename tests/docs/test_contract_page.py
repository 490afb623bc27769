"""docs/contract.md agrees with the contract, and its examples are real."""

from __future__ import annotations

import types
from typing import get_args

import generate_contract
import pytest
from chipperf.contract.check import LEVELS, Check
from chipperf.contract.statement import Statement, Verdict
from chipperf.contract.waivers import Waiver, read_waivers
from documents import ROOT, blocks

PATH = ROOT / "docs" / "contract.md"
PAGE = PATH.read_text(encoding="utf-8")


def test_committed_list_is_that_of_the_checks():
    assert generate_contract.page() == PAGE, "run: make docs"


def test_lost_marks_are_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(generate_contract, "PAGE", tmp_path / "contract.md")
    generate_contract.PAGE.write_text(PAGE.replace("<!-- /checks -->", ""))

    with pytest.raises(ValueError, match="marks"):
        generate_contract.page()


def test_example_of_waivers_is_accepted_and_shows_every_field(tmp_path):
    (example,) = blocks(PATH, "toml")
    path = tmp_path / "waivers.toml"
    path.write_text(example, encoding="utf-8")

    waivers = read_waivers(path).values()

    assert {name for waiver in waivers for name in waiver.model_fields_set} == set(Waiver.model_fields)


def test_example_of_a_statement_is_one_and_gives_the_line_above_it():
    (example,) = blocks(PATH, "json")
    (line,) = blocks(PATH, "text")

    assert f"{Statement.model_validate_json(example).line}\n" == line


def test_example_of_a_check_is_one():
    (example,) = blocks(PATH, "python")
    module = types.ModuleType("example_of_a_check")
    exec(example, vars(module))
    (check,) = (value for value in vars(module).values() if isinstance(value, Check))

    named = types.SimpleNamespace(name="Acme A1")
    subject = types.SimpleNamespace(device="acme:0", session=types.SimpleNamespace(device_info=lambda device: named))
    check.function(subject)
    named.name = " "
    with pytest.raises(Exception, match="acme:0 has a blank name"):
        check.function(subject)
    assert check.summary == "The device has a name."


@pytest.mark.parametrize("value", [*get_args(Verdict), *get_args(Waiver.model_fields["kind"].annotation)])
def test_verdict_or_kind_is_named(value):
    assert f"`{value}`" in PAGE


@pytest.mark.parametrize("level", LEVELS)
def test_level_is_explained(level):
    assert f"\n| {level} | {LEVELS[level]}: " in PAGE
