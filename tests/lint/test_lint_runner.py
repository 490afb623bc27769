"""Trees of documents, documents that cannot be read, and any Markdown."""

from __future__ import annotations

from pathlib import Path
from random import Random

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


def test_file_is_checked_once_by_whatever_name(tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text("a page that is named\n")
    report = put(tmp_path, nvidia(good()))
    monkeypatch.chdir(tmp_path)

    result = run(tmp_path, Path(), Path("page.md"))

    assert (result.files, result.skipped) == ([str(page), str(report)], [])


def test_directory_below_one_that_is_not_searched_may_be_named(tmp_path):
    report = put(tmp_path / ".venv", nvidia(good()))

    assert run(tmp_path / ".venv").files == [str(report)]
    assert run(tmp_path).files == []


@pytest.mark.parametrize("text", ["[a link](nowhere.md)\n", "", "\n"])
def test_page_that_is_named_is_no_case_document(tmp_path, text):
    path = tmp_path / "page.md"
    path.write_text(text)

    rules = [finding.rule for finding in run(path).findings]

    assert rules == (["L00", "L23"] if "link" in text else ["L00"])


@pytest.mark.parametrize("text", ["", "此测例的文档在别处\n"])
def test_document_of_a_case_without_a_table_is_not_skipped(tmp_path, text):
    path = put(tmp_path, text)

    result = run(tmp_path, select="L04")

    (finding,) = result.findings
    assert finding.message.startswith("there is no performance table with a row: write the results as a table")
    assert result.files == [str(path)]


def test_table_that_is_none_is_an_error_and_its_cells_are_checked(tmp_path):
    """The delimiter row of the performance table lacks a cell."""
    text = nvidia(good(e2e_time=""))
    head, _, tail = text.rpartition(" --- | --- |")
    path = put(tmp_path, f"{head} --- |{tail}")

    first, second = run(path, select="L04").findings

    assert (first.rule, first.severity) == ("L00", "error")
    assert "its delimiter row has 8 cells, its header 9: write as many cells in both" in first.message
    assert second.message.endswith("e2e_time is blank")


@pytest.mark.parametrize("encoding", ["gbk", "utf-16"])
def test_text_in_another_encoding_is_an_error_and_is_checked(tmp_path, encoding):
    path = put(tmp_path, "")
    path.write_bytes(nvidia(good(p_core="")).encode(encoding))

    first, second = run(path, select="L04").findings

    name = encoding.upper()
    assert first.message == f"the file is {name}, not UTF-8: convert it: iconv -f {name} -t UTF-8"
    assert second.message.endswith("p_core is blank")


@pytest.mark.parametrize("seed", range(20))
def test_mutated_document_is_checked(tmp_path, seed):
    """Lines cut, bars doubled, cells removed, bytes flipped: what is wrong is said, and nothing fails."""
    random = Random(seed)
    lines = nvidia(good(), good(label="A100两机8卡（2x8）"), after="<!-- c -->\n[x](y.md)").split("\n")
    for _ in range(random.randint(1, 6)):
        index = random.randrange(len(lines))
        line = lines[index]
        at = random.randrange(len(line) + 1)
        lines[index] = random.choice(
            [
                *("", line[:at], line.replace("|", "||", 1), line.replace("|", "", 1), f"    {line}", f"{line}\n"),
                *(line.replace("|", "｜"), f"<!-- {line}", f"{line[:at]}\0{line[at:]}", f"```\n{line}"),
            ]
        )
    content = bytearray("\n".join(lines).encode())
    for _ in range(random.randint(0, 3)):
        content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    path = put(tmp_path, "")
    path.write_bytes(content)

    result = run(path)

    assert result.files == [str(path)]
    assert all(finding.message for finding in result.findings)


@pytest.mark.parametrize(
    ("content", "place"), [(b"\xff", "1:1"), ("# 标题\n二".encode() + b"\xc3(", "2:2"), (b"x" * (2**22 + 1), "1:1")]
)
def test_file_that_cannot_be_read_is_a_finding_and_others_are_checked(tmp_path, content, place):
    bad = tmp_path / "bad.md"
    bad.write_bytes(content)
    good_path = put(tmp_path, nvidia(good(p_core="")))

    result = run(bad, good_path, select="L04")

    first, *_, last = result.findings
    assert (first.rule, first.severity, str(first.place)) == ("L00", "error", place)
    assert (last.rule, last.file) == ("L04", str(good_path))


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
    assert choose_rules() == tuple(each for each in all_rules() if not each.off_because)
    assert choose_rules((), ("L04",)) == tuple(each for each in choose_rules() if each.id != "L04")
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


@pytest.mark.parametrize(
    "text",
    [
        f"<!-- perf lint: ignore {' ' * 100_000}!-->",
        "seqlength config_a.py " * 5_000,
        "config_1" * 10_000,
        f"config_{'1' * 100_000}",
    ],
)
def test_long_line_takes_no_longer_than_others(tmp_path, text):
    """With the square of its length, each would take minutes."""
    path = put(tmp_path, nvidia(good(), after=text), configs={})

    assert run(path).files == [str(path)]
