"""Every sentence about plugins names the checks that hold them to it, and every check is named."""

from __future__ import annotations

import promises
import pytest
from chipperf.contract.check import all_checks

SENTENCES = promises.sentences()


def test_every_sentence_about_plugins_names_its_checks():
    assert [f"{each.of}: {each.text}" for each in SENTENCES if each.needs_check and not each.checks] == []


def test_sentence_about_core_names_no_check_and_one_about_plugins_needs_one():
    about_core = promises.Sentence(of="perf_probe", text="Core probes in another process.", checks=(), is_title=False)
    about_plugins = promises.Sentence(of="perf_probe", text="It returns at once.", checks=(), is_title=False)
    assert (about_core.needs_check, about_plugins.needs_check) == (False, True)


def test_checks_and_promises_name_each_other():
    assert {id for each in SENTENCES for id in each.checks} == {check.id for check in all_checks()}


@pytest.mark.parametrize("each", promises.returned_types(), ids=lambda each: each.__name__)
def test_every_field_is_explained(each):
    explained = {sentence.of for sentence in SENTENCES}
    assert [name for name in promises.fields_of(each) if f"{each.__name__}, {name}" not in explained] == []
