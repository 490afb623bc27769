"""Comments that accept a finding."""

from __future__ import annotations

import pytest
from reports import brief, good, nvidia, put, run

BLANK = nvidia(good(p_core="", p_train=""))
TABLE = "* 性能指标\n"


def waived(comment, text=BLANK):
    return text.replace(TABLE, f"{TABLE}\n{comment}\n")


def open_findings(result):
    return [finding for finding in result.findings if finding.reason is None]


def test_comment_before_a_table_accepts_findings_in_it(tmp_path):
    path = put(tmp_path, waived("<!-- perf lint: ignore L04: the card has no such counter -->"))

    result = run(path, select=("L04",))

    assert [finding.reason for finding in result.findings] == ["the card has no such counter"] * 2
    assert result.count("error") == 0


@pytest.mark.parametrize(
    "comment",
    [
        "<!-- perf lint: ignore L02, L04: both -->",
        "<!-- perf lint: ignore l04: in lower case -->",
        "<!-- perf lint: ignore throughput-order, blank-cell: by their names -->",
        "<!-- perf lint: ignore L02 L04 : both -->",
        "<!-- perf-lint: ignore L04: everywhere -->",
        "<!--\nperf lint: ignore L04:\nover several lines\n-->",
        "<!-- perf lint：ignore L02，L04：两条 -->",
        "<!-- perf lint: ignore L02、L04：两条 -->",
    ],
)
def test_forms_of_the_comment(tmp_path, comment):
    assert open_findings(run(put(tmp_path, waived(comment)), select="L04")) == []


def test_comment_holds_for_the_next_block_only(tmp_path):
    text = "<!-- perf lint: ignore L04: here -->\n" + BLANK

    result = run(put(tmp_path, text), select="L04")

    assert sorted(finding.rule for finding in open_findings(result)) == ["L00", "L04", "L04"]


@pytest.mark.parametrize("reason", ["no counters here", "该卡没有计数器"])
def test_comment_for_a_whole_file_stands_before_its_tables(tmp_path, reason):
    path = put(tmp_path, f"<!-- perf lint: ignore-file L04: {reason} -->\n\n{BLANK}")

    assert open_findings(run(path, select="L04")) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (BLANK + "\n<!-- perf lint: ignore-file L04: no counters here -->\n", "it is after the first table"),
        ("<!-- perf lint: ignore-file L04: . -->\n\n" + BLANK, "'.' is not a reason; write a few words"),
        ("<!-- perf lint: ignore-file L04: ok -->\n\n" + BLANK, "'ok' is not a reason; write a few words"),
    ],
)
def test_comment_for_a_whole_file_that_hides_accepts_nothing(tmp_path, text, expected):
    found = open_findings(run(put(tmp_path, text), select="L04"))

    assert sorted(each.rule for each in found) == ["L00", "L04", "L04"]
    assert [each.message for each in found if each.rule == "L00"] == [f"ignore-file accepts nothing: {expected}"]


def test_other_rules_are_not_accepted(tmp_path):
    path = put(tmp_path, waived("<!-- perf lint: ignore L12: why -->", nvidia(good(p_core="", acc="60%"))))

    assert brief(open_findings(run(path, select=("L04", "L12"))))[0].startswith("L04")


@pytest.mark.parametrize(
    ("comment", "message"),
    [
        ("<!-- perf lint: ignore L04 -->", "has no reason"),
        ("<!-- perf lint: ignore L04: -->", "has no reason"),
        ("<!-- perf lint: ignore L99: why -->", "'L99', which is not a rule"),
        ("<!-- perf lint: ignore : why -->", "not a waiver"),
        ("<!-- perf lint: skip L04: why -->", "not a waiver"),
        ("<!-- perf lint L04: why -->", "not a waiver"),
    ],
)
def test_comment_that_is_no_waiver_is_an_error(tmp_path, comment, message):
    result = run(put(tmp_path, waived(comment)), select="L04")

    fault = next(finding for finding in result.findings if finding.rule == "L00")
    assert message in fault.message
    assert fault.severity == "error"
    assert len([finding for finding in open_findings(result) if finding.rule == "L04"]) == 2


def test_waiver_that_accepts_nothing_is_a_warning(tmp_path):
    result = run(put(tmp_path, waived("<!-- perf lint: ignore L04: why -->", nvidia())), select="L04")

    (finding,) = result.findings
    assert (finding.rule, finding.severity) == ("L00", "warning")
    assert "accepts nothing" in finding.message


@pytest.mark.parametrize("text", ["`<!-- perf lint: ignore L04 -->`", "```\n<!-- perf lint: ignore L04 -->\n```"])
def test_comment_in_code_is_no_waiver(tmp_path, text):
    assert run(put(tmp_path, nvidia(after=text)), select="L04").findings == []
