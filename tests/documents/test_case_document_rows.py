"""Rows of documents that are not as the layout has them, and what is said of text that could not be read."""

from __future__ import annotations

import pytest
from chipperf.documents.case_document import layout_of, read_document
from chipperf.languages import LANGUAGES, in_language, phrase
from chipperf.report.render import render_report
from factory import make_record

HEADER = "| 配置 | precision | fix_hp | p_core | acc | mem |"
DELIMITER = "| --- | --- | --- | --- | --- | --- |"
ROW = "| A1单机8卡（1x8） | fp32 | bs=64 | 990 | 69.1% | 20.5/64.0 |"
SECOND = "| A1单机单卡（1x1） | fp32 | bs=64 | 130 | / | 20.1/64.0 |"
GENERAL = (
    "| 指标名称 | 指标值 | 特殊说明 |\n| --- | --- | --- |\n| 任务类别 | 分类 | |\n| 模型 | m | |\n| 数据集 | d | |\n"
)


def read(*lines):
    return read_document("\n".join(lines), "README.md")


def faults(document):
    return [(fault.place.line, fault.text) for fault in document.faults]


def labels(document):
    return [row.label.text for row in document.rows]


def test_table_is_read_without_a_fault():
    document = read(HEADER, DELIMITER, ROW, SECOND)

    assert faults(document) == []
    assert [(row.shape, row.quality, row.known("mem")) for row in document.rows] == [
        ("1x8", 0.691, "20.5/64.0"),
        ("1x1", None, "20.1/64.0"),
    ]


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("place", ["warnings", "hyperparameters__notes"])
def test_changes_are_read_from_the_note_and_from_no_text_that_looks_like_one(place, language):
    changes = [{"key": f"key{number}", "base": 1, "value": number, "origin": "vendor"} for number in range(2, 8)]
    foreign = in_language(phrase("Note %(number)s, fix_hp: %(changes)s", number=1, changes="bs=1"), language)
    text = render_report([make_record(hyperparameters__changes=changes, **{place: [foreign]})], language=language)

    (row,) = read(text).rows

    assert foreign in text
    assert row.hyperparameters == {f"key{number}": number for number in range(2, 8)}


@pytest.mark.parametrize(("digits", "layout"), [("1", 1), ("2", 2), ("9" * 5000, 999_999_999)])
def test_layout_of_any_length_is_read(digits, layout):
    document = read(f"<!-- chipperf report template {digits} -->", HEADER, DELIMITER, ROW)

    assert (document.generated, layout_of(document.markdown)) == (True, layout)


def test_changes_are_not_read_from_evidence():
    """Without the page's own note, the cell stays as it is."""
    note = "- Note 1, fix_hp: bs=1"
    lines = ["<!-- chipperf report template 2 -->", HEADER, DELIMITER, ROW.replace("bs=64", "see note 1"), ""]

    assert [row.known("fix_hp") for row in read(*lines, note).rows] == ["bs=1"]
    assert [row.known("fix_hp") for row in read(*lines, "### Evidence", note).rows] == ["see note 1"]


@pytest.mark.parametrize("is_beside_another", [True, False])
def test_table_with_a_row_for_each_metric_is_a_fault_of_a_report_and_no_report_by_itself(is_beside_another):
    transposed = ["| metric | C500 |", "| --- | --- |", *(f"| {name} | 990 |" for name in ("p_train", "p_core", "acc"))]
    document = read(*([HEADER, DELIMITER, ROW, ""] if is_beside_another else []), *transposed)

    assert document.is_report is is_beside_another
    assert faults(document) == ([(5, "a table with a row for each metric is not read")] if is_beside_another else [])


LOST = "this is not a table in Markdown: "


@pytest.mark.parametrize(
    ("lines", "line", "text"),
    [
        ([HEADER, DELIMITER[:-6], ROW], 1, LOST + "its delimiter row has 5 cells, its header 6"),
        ([HEADER, ROW], 1, LOST + "it has no delimiter row"),
        (["text", HEADER, ROW], 2, LOST + "it has no delimiter row"),
        ([line.replace("|", "｜") for line in (HEADER, DELIMITER, ROW)], 1, LOST + "its bars are full-width"),
        ([HEADER.replace("|", "｜"), DELIMITER, ROW], 1, LOST + "its bars are full-width"),
        (["    " + line for line in (HEADER, DELIMITER, ROW)], 1, LOST + "it is in code"),
        (["```", HEADER, DELIMITER, ROW, "```"], 2, LOST + "it is in code"),
        (["<div>", HEADER, DELIMITER, ROW, "</div>"], 2, LOST + "it is within another text"),
        (
            [HEADER.replace("配置", "卡"), DELIMITER, ROW],
            1,
            "the performance table has no column for the configuration",
        ),
        (
            ["| 配置 | 速度 | 备注 |", "| --- | --- | --- |", "| A1单机8卡（1x8） | 9 | x |"],
            1,
            "the performance table has fewer than 3 columns that are known",
        ),
        ([HEADER, DELIMITER, "", ROW], 4, "1 rows are cut off from their table"),
        ([HEADER, DELIMITER, "<!-- why -->", ROW], 4, "1 rows are cut off from their table"),
        ([HEADER, DELIMITER, ROW + " 17 |"], 3, "the row has 7 cells, its header 6"),
        ([HEADER, DELIMITER, "| A1单机8卡（1x8） | fp32 |"], 3, "the row has 2 cells, its header 6"),
        ([HEADER, DELIMITER, ROW.replace("| fp32", "|| fp32")], 3, "the row has 7 cells, its header 6"),
        ([HEADER, DELIMITER, ROW, "| | | | | | |"], 4, "the row is empty"),
        ([HEADER, DELIMITER, ROW, "|"], 4, "the row is empty"),
        ([HEADER, DELIMITER, ROW, "2x8 在七月补充"], 4, "this text became a row of the table above it"),
    ],
)
def test_what_is_wrong_with_a_table_is_said_and_its_row_is_read(lines, line, text):
    document = read(*lines)

    assert faults(document) == [(line, text)]
    assert all(fault.hint for fault in document.faults)
    assert [row.shape for row in document.rows] == ["1x8"]


def test_rows_that_are_cut_off_go_to_their_table():
    document = read(HEADER, DELIMITER, ROW, "", "<!-- later -->", "", SECOND, SECOND.replace("130", "140"))

    assert faults(document) == [(7, "2 rows are cut off from their table")]
    assert [row.number("p_core") for row in document.rows] == [990, 130, 140]


def test_rows_behind_a_heading_belong_to_no_table():
    document = read(HEADER, DELIMITER, ROW, "", "## 其他", "", "| a | b | c |")

    assert labels(document) == ["A1单机8卡（1x8）"]
    assert "| a | b | c |" in [remark.text for remark in document.remarks]


@pytest.mark.parametrize("delimiter", ["| --- | --- |", ""])
def test_general_table_that_is_none_is_read(delimiter):
    lines = [line for line in GENERAL.replace("| --- | --- | --- |", delimiter).split("\n") if line]
    document = read(*lines, "", HEADER, DELIMITER, ROW)

    assert [fault.text.startswith(LOST) for fault in document.faults] == [True]
    assert document.general["model"].value.text == "m"
    assert len(document.rows) == 1


def test_table_in_html_is_an_error():
    cells = "".join(f"<th>{name}</th>" for name in ("配置", "precision", "p_core"))
    document = read(f"<table><tr>{cells}</tr></table>")

    assert faults(document) == [(1, "a table in HTML is not read")]
    assert faults(read("<table><tr><td><img src='a.png'></td></tr></table>")) == []


@pytest.mark.parametrize("text", [GENERAL, HEADER + "\n" + DELIMITER])
def test_document_without_a_row_is_an_error(text):
    assert faults(read(text)) == [(1, "there is no performance table with a row")]


def test_row_of_dashes_is_a_heading_within_the_table():
    document = read(HEADER, DELIMITER, "| MODEL-7B | --- | ----- | - | | —— |", ROW, SECOND)

    assert faults(document) == []
    assert [row.section for row in document.rows] == ["MODEL-7B", "MODEL-7B"]
    assert "MODEL-7B" in [remark.text for remark in document.remarks]


def test_table_of_a_large_language_model():
    header = "| 配置 | precision | parallel | fix_hp | token/p/s | loss | acc(MMMU) | mem | MFU |"
    row = "| A1单机8卡（1x8） | bf16 | TP2PP2DP2 | LBS=4 GAS=8 | 3448 | 4.70 | 27.1% | 59/64 | 26.5% |"
    other = row.replace("TP2PP2DP2", "TP8")
    document = read(header, "| --- " * 9 + "|", row, other)

    assert faults(document) == []
    first, second = document.rows
    assert (first.metric, first.quality, first.number("tokens")) == ("loss", 4.7, 3448)
    assert first.hyperparameters == {"LBS": 4, "GAS": 8}
    assert [(header, cell.text) for header, cell in first.unknown] == [("acc(MMMU)", "27.1%")]
    assert first.identity != second.identity
    assert not first.old_layout


@pytest.mark.parametrize(
    ("header", "cell", "quality", "target"),
    [
        ("acc", "0.641/0.650", 0.641, 0.65),
        ("acc(实际/目标)", "64.1% / 65.0%", 0.641, 0.65),
        ("ppl", "23.7/23.0", 23.7, 23),
        ("acc(推理/验证)", "0.641/0.650", None, None),
        ("final_acc1", "79.1%", 0.791, None),
        ("final_bleu", "0.27", 0.27, None),
        ("map_bbox && map_segm", "0.384 && 0.346", 0.384, None),
        ("acc", "0.384 && 0.346", None, None),
        ("val_loss", "3.2", 3.2, None),
    ],
)
def test_result_is_read_as_what_its_header_names(header, cell, quality, target):
    (row,) = read(HEADER.replace("acc", header), DELIMITER, ROW.replace("69.1%", cell)).rows

    assert (row.quality, row.target) == (quality, target)


def test_result_that_the_general_table_names_is_the_one():
    general = GENERAL + "| 训练结果 | rouge2,见“性能指标” | |\n"
    header = HEADER.replace("| acc |", "| rouge1 | rouge2 |")
    (row,) = read(general, header, DELIMITER + " --- |", ROW.replace("69.1%", "0.41 | 0.20")).rows

    assert row.quality == 0.2


def test_throughput_in_tokens_is_none_in_samples():
    (row,) = read(
        "| 训练资源 | 配置文件 | 目标val_loss | 收敛val_loss | 性能(ntokens/s) |",
        "|---" * 5 + "|",
        "| 单机8卡 | config_A1x1x8 | 2.5 | 2.4 | 9000 |",
    ).rows

    assert (row.number("p_whole"), row.number("tokens"), row.quality, row.target) == (None, 9000, 2.4, 2.5)
