"""Edits that correct a document, and change nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from chipperf.errors import UsageError
from chipperf.lint.fixes import Change, fix
from reports import good, nvidia, put, run

LEGEND = {"数据精度": ("precision,见“性能指标”", "可选fp32/amp")}


def fixed(path: Path, *, select=("L14", "L15", "L25")):
    result, changes = fix(lambda contents: run(path, select=select, contents=contents), {})
    for change in changes:
        change.write()
    return result


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ({"mem": "30.9/ 40.0"}, {"mem": "30.9/40.0"}),
        ({"mem": "30.9 GiB / 40 GiB"}, {"mem": "30.9GiB/40GiB"}),
        ({"mem": "30.9／ 40.0"}, {"mem": "30.9/40.0"}),
        ({"acc": "７５.９％"}, {"acc": "75.9%"}),
        ({"fix_hp": "bs＝２５６，lr=0.8"}, {"fix_hp": "bs=256,lr=0.8"}),
        ({"e2e_time": "28661"}, {"e2e_time": "28661"}),
    ],
)
def test_cell_is_corrected(tmp_path, wrong, right):
    path = put(tmp_path, nvidia(good(**wrong)))

    assert fixed(path).findings == []
    assert path.read_text(encoding="utf-8") == nvidia(good(**right))


def test_legend_gets_the_precisions_of_the_rows(tmp_path):
    rows = [good(precision=each) for each in ("fp32", "bf16", "bf16", "fp16")]
    path = put(tmp_path, nvidia(*rows, general=LEGEND))

    assert fixed(path).findings == []
    legend = path.read_text(encoding="utf-8").partition("可选")[2].partition(" |")[0]
    assert set(legend.split("/")) == {"fp32", "amp", "bf16", "fp16"}
    assert len(legend.split("/")) == 4


@pytest.mark.parametrize(("row", "legend"), [("fp3", "可选fp32/amp"), ("bf16", "可选fp32或amp")])
def test_legend_is_left_as_it_is_where_a_word_is_no_precision(tmp_path, row, legend):
    text = nvidia(good(precision=row), general={"数据精度": ("precision,见“性能指标”", legend)})
    path = put(tmp_path, text)

    result = fixed(path)

    assert [(finding.rule, finding.edits) for finding in result.findings] == [("L14", ())]
    assert path.read_text(encoding="utf-8") == text


def test_bars_of_a_chinese_keyboard_make_a_table(tmp_path):
    text = nvidia(good(mem="30.9/ 40.0"))
    before, label, table = text.partition("* 性能指标")
    path = put(tmp_path, before + label + table.replace("|", "｜"))

    assert fixed(path).findings == []
    assert path.read_text(encoding="utf-8") == nvidia(good(mem="30.9/40.0"))


def test_document_that_is_not_utf_8_is_left_as_it_is(tmp_path):
    path = put(tmp_path, "")
    path.write_bytes(nvidia(good(mem="30.9/ 40.0")).encode("gbk"))
    before = path.read_bytes()

    result = fixed(path)

    assert {(finding.rule, finding.edits) for finding in result.findings} == {("L00", ()), ("L15", ())}
    assert path.read_bytes() == before


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", ["", "\n"])
def test_no_other_byte_changes(tmp_path, mark, end, last):
    """The mark of byte order shifts the columns of the first line, which here has a cell to correct."""

    def content(mem):
        table = nvidia(good(mem=mem)).partition("* 性能指标")[2].strip() + "\n\ttrailing  \n\n\u3000\x0b\0 “x”"
        return mark + (table + last).replace("\n", end).encode()

    path = put(tmp_path, "")
    path.write_bytes(content("30.9/ 40.0"))
    path.chmod(0o640)
    (tmp_path / "link.md").symlink_to(path)

    assert fixed(tmp_path / "link.md").fixed == 1
    assert path.read_bytes() == content("30.9/40.0")
    assert path.stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "link.md").is_symlink()


def test_document_that_cannot_be_written_is_an_error(tmp_path):
    change = Change(tmp_path / "README.md", b"a", b"b")
    (tmp_path / "README.md").mkdir()

    with pytest.raises(UsageError, match=r"cannot write .*README\.md"):
        change.write()


def test_text_with_markup_is_not_touched(tmp_path):
    text = nvidia(good(mem="**30.9/ 40.0**"))
    path = put(tmp_path, text)

    (finding,) = fixed(path).findings

    assert (finding.rule, finding.edits) == ("L15", ())
    assert path.read_text(encoding="utf-8") == text


def test_accepted_finding_is_not_corrected(tmp_path):
    text = "<!-- perf lint: ignore-file L15: as the tool prints it -->\n\n" + nvidia(good(mem="30.9/ 40.0"))
    path = put(tmp_path, text)

    assert fixed(path).fixed == 0
    assert path.read_text(encoding="utf-8") == text


def test_patch_shows_what_would_change(tmp_path):
    path = put(tmp_path, nvidia(good(mem="30.9/ 40.0")).replace("\n", "\r\n"))

    _, (change,) = fix(lambda contents: run(path, select="L15", contents=contents), {})

    lines = list(change.patch())
    assert lines[:2] == [f"--- {path}", f"+++ {path}"]
    assert [line[0] for line in lines if "9/ 40.0" in line or "9/40.0" in line] == ["-", "+"]
    assert sum(line[0] in "+-" for line in lines[2:]) == 2
