"""Baselines of old trees."""

from __future__ import annotations

import json

import pytest
from chipperf.errors import ConfigError
from chipperf.lint.baseline import accept_known, baseline_of
from reports import good, nvidia, put, run

OLD = nvidia(good(p_core="", acc="7%"), good(label="A100单机单卡（1x1）", p_core="", acc="/"))


@pytest.fixture
def baseline(tmp_path):
    """Return a baseline of one document, which lies elsewhere than it."""
    file = tmp_path / "ci" / "old.json"
    file.parent.mkdir()
    file.write_text(baseline_of(run(put(tmp_path, OLD), select=("L04", "L12")), file), encoding="utf-8")
    return file


def found(tmp_path, text, baseline, select=("L04", "L12")):
    result = run(put(tmp_path, text), select=select)
    accept_known(result, lambda file: baseline)
    return result


def test_baseline_is_by_document_rule_and_text(baseline):
    content = json.loads(baseline.read_text(encoding="utf-8"))

    (document,) = content["documents"]
    assert document == "../training/nvidia/resnet50-pytorch/README.md"
    assert content["documents"][document]["L04"] == {
        "row 'A100单机8卡（1x8）': p_core is blank": 1,
        "row 'A100单机单卡（1x1）': p_core is blank": 1,
    }


def test_known_findings_are_accepted_wherever_their_lines_are(tmp_path, baseline):
    result = found(tmp_path, f"# Title\n\n{OLD}", baseline)

    assert result.open == []
    assert {finding.reason for finding in result.findings} == {f"in {baseline}"}
    assert result.unmatched == []


def test_new_finding_is_found_also_with_the_text_of_a_known_one(tmp_path, baseline):
    again = good(p_core="", acc="/")

    result = found(tmp_path, nvidia(good(p_core="", acc="7%"), again, again), baseline)

    assert [(each.rule, each.message) for each in result.open] == [
        ("L04", "row 'A100单机8卡（1x8）': p_core is blank")
    ] * 2


def test_number_of_a_line_in_a_text_is_of_no_account(tmp_path):
    rows = [good(), good(label="", p_core="")]
    file = tmp_path / "old.json"
    file.write_text(baseline_of(run(put(tmp_path, nvidia(*rows)), select="L04"), file), encoding="utf-8")

    assert "row in line N: p_core is blank" in file.read_text(encoding="utf-8")
    assert found(tmp_path, f"\n{nvidia(*rows)}", file, select="L04").open == []


def test_entries_that_match_nothing_are_listed(tmp_path, baseline):
    result = found(tmp_path, nvidia(), baseline)

    assert len(result.unmatched) == 3
    assert all(str(baseline) in text and "L04" in text or "L12" in text for text in result.unmatched)


def test_entry_of_a_rule_that_was_not_checked_is_not_listed(tmp_path, baseline):
    assert [text.split(": ")[2] for text in found(tmp_path, nvidia(), baseline, select="L12").unmatched] == ["L12"]


def test_entries_of_a_document_are_listed_only_if_it_was_checked_or_is_gone(tmp_path, baseline):
    other = put(tmp_path, nvidia(), case="detr-pytorch")

    def unmatched():
        result = run(other, select=("L04", "L12"))
        accept_known(result, lambda file: baseline)
        return len(result.unmatched)

    assert unmatched() == 0
    (tmp_path / "training" / "nvidia" / "resnet50-pytorch" / "README.md").unlink()
    assert unmatched() == 3


@pytest.mark.parametrize("content", ["", "{}", '{"chipperf": "1", "documents": {"x.md": {"L04": {"text": 0}}}}'])
def test_file_that_is_no_baseline_is_an_error(tmp_path, content):
    file = tmp_path / "old.json"
    file.write_text(content)

    with pytest.raises(ConfigError, match=r"old\.json is no baseline") as caught:
        found(tmp_path, OLD, file)
    assert "--write-baseline" in caught.value.hint


def test_baseline_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="cannot read"):
        found(tmp_path, OLD, tmp_path / "old.json")
