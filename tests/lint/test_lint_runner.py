"""Trees of documents, documents that cannot be read, and any Markdown."""

from __future__ import annotations

import pytest
from chipperf.errors import ConfigError, UsageError
from chipperf.lint.rule import all_rules, choose_rules, rule
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reports import good, nvidia, put, run


def test_directory_is_searched_and_pages_that_are_no_reports_are_skipped(tmp_path):
    report = put(tmp_path, nvidia(good(p_core="")))
    (tmp_path / "README.md").write_text("# A project\n\nwith text and [a link](nowhere.md)\n")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "x.md").write_text(report.read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "directory.md").mkdir()

    result = run(tmp_path, report)

    assert result.files == [str(report)]
    assert result.skipped == [str(tmp_path / "README.md")]


def test_page_that_is_named_is_checked(tmp_path):
    path = tmp_path / "page.md"
    path.write_text("[a link](nowhere.md)\n")

    assert [finding.rule for finding in run(path).findings] == ["L23"]


@pytest.mark.parametrize(
    ("content", "place"), [(b"\xff", "1:1"), ("# 标题\n二".encode() + b"\xc3(", "2:2"), (b"x" * (2**22 + 1), "1:1")]
)
def test_file_that_cannot_be_read_is_a_finding_and_others_are_checked(tmp_path, content, place):
    bad = tmp_path / "bad.md"
    bad.write_bytes(content)
    good_path = put(tmp_path, nvidia(good(p_core="")))

    result = run(bad, good_path, select="L04")

    first, second = result.findings
    assert (first.rule, first.severity, str(first.place)) == ("L00", "error", place)
    assert second.rule == "L04"


def test_path_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        run(tmp_path / "missing")


def test_configuration_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="no configuration at"):
        run(put(tmp_path, nvidia()), config=tmp_path / "missing")


@pytest.mark.parametrize("name", ["config_A100x1x8.py", "run.toml"])
def test_configuration_may_be_named(tmp_path, name):
    path = put(tmp_path, nvidia())
    file = tmp_path / name
    file.write_text("[hyperparameters]\nbatch_size = 64\n" if name.endswith("toml") else "train_batch_size = 64\n")

    assert "bs=64" in run(path, select="L07", config=file).findings[0].message


@pytest.mark.parametrize(
    "content",
    ["x = 1 / 0", "x = 9 ** 9 ** 9", "x = (" * 500, "\0", "import os; os._exit(1)", "x: int = 'a' * 3", "-" * 5000],
)
def test_configuration_is_read_and_never_run(tmp_path, content):
    run(put(tmp_path, nvidia(), configs={"config_A100x1x8.py": content, "config_common.py": content}))


def test_rules_are_chosen():
    assert [each.id for each in choose_rules(("L04", "L12"))] == ["L04", "L12"]
    assert len(choose_rules((), ("L04",))) == len(all_rules()) - 1
    with pytest.raises(UsageError, match=r"no rule 'L044' \(did you mean 'L04'\?\)"):
        choose_rules(("L044",))


def test_rule_needs_an_id_and_a_summary():
    with pytest.raises(ValueError, match="'X1' is not an id such as 'L04'"):
        rule("X1", "name", why="", fix="")
    with pytest.raises(ValueError, match="no docstring"):
        rule("L99", "name", why="", fix="")(lambda subject: iter(()))


def test_every_rule_says_why_it_matters_and_what_to_do():
    for each in all_rules():
        assert all((each.name, each.summary, each.why, each.fix)), each.id
        assert each.summary.endswith("."), each.id
        assert not each.why.endswith("."), each.id
    assert len({each.name for each in all_rules()}) == len(all_rules())


PIECES = [
    *nvidia(good(), good(label="A100两机8卡（2x8）", p_core="", mem="64/"), after="![c](c.png)\n### 收敛曲线").split(
        "\n"
    ),
    *(
        "<!-- perf lint: ignore L04 -->",
        "<!-- perf lint",
        "```",
        "| a |",
        "> | b",
        "- - - x",
        "[x](#)",
        "[x](%00)",
        "\t| |",
    ),
    *(
        "<!-- chipperf report template 1 -->",
        "* 说明",
        "#",
        "|",
        "[a](<>)",
        "[](..)",
        "![](/)",
        "| --- |",
        "[x](https://[::1)",
    ),
]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.sampled_from(PIECES) | st.text("|-#*<>!/\\:：`[]() \n0189x卡机％", max_size=12), max_size=40).map(
        "\n".join
    )
    | st.text(max_size=200)
)
def test_any_markdown_is_checked(tmp_path, text):
    path = tmp_path / "README.md"
    path.write_bytes(text.encode("utf-8", errors="replace"))

    for finding in run(path, vendor="nvidia", case="resnet50").findings:
        assert finding.place.line <= text.replace("\r\n", "\n").replace("\r", "\n").count("\n") + 1
