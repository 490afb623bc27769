"""What was imported renders to a report that imports as the same records."""

from __future__ import annotations

from pathlib import Path

import pytest
from chipperf.cases.registry import case_names, find_case
from chipperf.documents.case_document import read_document
from chipperf.languages import LANGUAGES
from chipperf.report.render import render_report
from hypothesis import given, settings
from hypothesis import strategies as st
from readmes import FACTS, HEADERS, facts_of, imported, readme

ROOT = Path(__file__).parents[2]
SEEDS = sorted((ROOT / "tests" / "report" / "seeds").glob("*.md"))

text = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20).map(lambda value: " ".join(value.split()))
markup = st.sampled_from(
    [
        "",
        "/",
        "\\",
        "-",
        "未知",
        "unknown",
        "`a`",
        "**b**",
        "a_b_c",
        "<b>",
        "&amp;",
        "[x](y.md)",
        "[x](https://y.example)",
    ]
    + [
        "![i](j.png)",
        "# h",
        "- x",
        "1. y",
        "> z",
        "a\\|b",
        "未公开(保密)",
        "failed (oom)",
        "无",
        "a: b",
        "~~s~~",
        "x & y",
    ]
)
anything = text | markup
number = st.one_of(
    st.floats(0, 1e9, allow_nan=False).map(repr),
    st.integers(0, 10**9).map(str),
    st.sampled_from(
        ["", "/", "1,234.5", "28661s", "80.83.2%", "68.43%", "0.405", "73.08", "38.4 && 34.6", "100%", "0"]
    ),
)
memory = st.sampled_from(["24.8/32.0", "29.3/64", "30.9/ 32.0", "32", "", "/", "5.8/40G", "-/32", "12.345/64", "x/y"])
fix_hp = st.one_of(
    anything,
    st.sampled_from(["/", "", "bs=256,lr=0.36", "lr=1e-4；bs=8", "bs=1,bs=2", "workers=4", "lr=0.045*8", "x=true"])
    | st.sampled_from(["bs=1,a=1,b=2,c=3,d=4", "bs=2,a=1,b_=2,c=x y,d=*4*"]),
)
label = st.builds(
    "{}{}".format,
    st.sampled_from(["A1", "BI-V150", "X 3", "", "未知", "A_1", "R300 "])
    | text.map(lambda value: value.replace("|", "")),
    st.sampled_from(
        [
            "单机8卡（1x8）",
            "单机单卡(1x1)",
            "两机8卡（2×8）",
            "两机16卡 (2x8)",
            "（4x8）",
            "3机2卡（3x2）",
            "单机2卡",
            "",
        ]
    )
    | st.sampled_from([" one machine, 8 cards (1x8)", " two machines, 8 cards each (2x8)", " x"]),
)
row = st.tuples(label, anything | st.just("fp32"), fix_hp, number, number, number, number, number, memory)
cell = anything.map(lambda value: value.replace("|", "\\|") if "\\|" not in value else value)


def render(result, language):
    return render_report([each.record for each in result.records], language=language)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(row.map(lambda cells: [each.replace("|", "\\|") for each in cells]), min_size=1, max_size=4),
    facts=st.dictionaries(st.sampled_from(list(FACTS)) | st.just("CPU型号"), anything, max_size=4),
    general=st.dictionaries(
        st.sampled_from(["任务类别", "数据集", "硬件设备简称", "额外修改项", "新的一项"]), cell, max_size=3
    ),
    after=st.lists(anything, max_size=4).map("\n\n".join),
    language=st.sampled_from(list(LANGUAGES)),
)
def test_import_render_import_is_a_fixed_point(rows, facts, general, after, language):
    first = ["A1单机8卡（1x8）", *rows[0][1:]]
    before = imported(readme(first, *rows[1:], facts=facts, general=general, after=after))
    page = render(before, language)
    again = imported(page)

    assert facts_without_titles(again) == facts_without_titles(before)
    assert render(again, language) == page
    assert not again.not_understood


def facts_without_titles(result):
    """The title in the other language than the report's is the plugin's, and there is none."""
    facts = facts_of(result)
    for each in facts:
        each["vendor"].pop("report_title")
    return facts


@pytest.mark.parametrize("seed", SEEDS, ids=lambda path: path.stem)
@pytest.mark.parametrize("own_templates", [False, True])
def test_seed_is_a_fixed_point(seed, own_templates):
    vendor = seed.stem.partition("-")[0]
    templates = ROOT / "plugins" / vendor / "src" / f"chipperf_{vendor}" / "templates" if own_templates else None
    before = imported(seed.read_text(encoding="utf-8"), vendor=None)
    page = render_report([each.record for each in before.records], vendor_templates=templates)
    again = imported(page, vendor=None)

    assert facts_of(again) == facts_of(before)
    assert not before.not_understood


@pytest.mark.parametrize("seed", SEEDS, ids=lambda path: path.stem)
def test_rendered_seed_carries_every_fact(seed):
    original = read_document(seed.read_text(encoding="utf-8"), seed.name)
    result = imported(seed.read_text(encoding="utf-8"), vendor=None)
    page = read_document(render(result, "zh"), "page")

    assert page.title.text == original.title.text
    for key, fact in original.facts.items():
        assert page.facts[key].text == fact.text
    for key, general in original.general.items():
        assert page.general[key].value.text == general.value.text.replace("mem(actual/total)", "mem")
    for row, rendered in zip(original.rows, page.rows, strict=True):
        for column, located in row.cells.items():
            if column == "mem":
                used, total = (float(part) for part in located.text.split("/"))
                assert tuple(float(part) for part in rendered.text("mem").split("/")) == (used, total)
            elif located.text:
                assert rendered.text(column) == located.text.replace("1e-4", "0.0001")
            else:
                assert rendered.text(column) == "未知"
    assert [remark.text for remark in page.remarks] == [remark.text for remark in original.remarks]


@pytest.mark.parametrize("name", case_names())
@pytest.mark.parametrize("column", HEADERS[3:7])
def test_every_digit_survives(name, column):
    value = "1237.6456789"
    general = {"模型": find_case(name).report.model_title}
    cells = tuple(value if header == column else cell for header, cell in zip(HEADERS, _ROW, strict=True))
    result = imported(readme(cells, general=general), case=name)

    assert f"| {value} |" in render(result, "en")


_ROW = ("A1单机8卡（1x8）", "fp32", "/", "/", "/", "/", "/", "/", "1.23/4")
