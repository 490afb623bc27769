"""Cells, row labels, names of cards: what single texts mean."""

from __future__ import annotations

import doctest

import pytest
from chipperf.documents import cells, wording
from chipperf.documents.card_names import CardNames, VendorNames, read_card_names
from chipperf.documents.topology import parse_config_name, parse_row_label
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.mark.parametrize("module", [cells, wording])
def test_examples_are_true(module):
    result = doctest.testmod(module)

    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize(
    ("text", "words", "phrase"),
    [
        ("A100单机8卡（1x1）", (1, 8), "单机8卡"),
        ("A100两机16卡（2x8）", (2, 16), "两机16卡"),
        ("A100 one machine, one card (1x1)", (1, 1), "one machine, one card"),
        ("A100 dual machine 8 cards (2x8)", (2, 8), "dual machine 8 cards"),
        ("A100（1x8）", None, ""),
    ],
)
def test_words_beside_the_topology(text, words, phrase):
    label = parse_row_label(text)

    assert (label.words, label.phrase) == (words, phrase)


@pytest.mark.parametrize(
    ("text", "card", "shape", "note"),
    [
        ("C500单机8卡（1x8*64G）", "C500", "1x8", "64G"),
        ("C500 2x8 (16卡)", "C500", "2x8", ""),
        ("C500 2x8", "C500", "2x8", ""),
        ("1x8", "", "1x8", ""),
        ("C500四机32卡", "C500", "4x8", ""),
        ("C500两机8卡", "C500", "2x8", ""),
        ("R300十机80卡（10x8）", "R300", "10x8", ""),
        ("H1004机32卡（4x8）", "H100", "4x8", ""),
        ("H100-55机440卡（55x8）", "H100-", "55x8", ""),
        ("A800单机8卡（1x8）（finetune）", "A800", "1x8", "finetune"),
    ],
)
def test_label_of_a_row(text, card, shape, note):
    label = parse_row_label(text)

    assert (label.card, label.label, label.note) == (card, shape, note)


@pytest.mark.parametrize(
    "text", ["", "A100", "A100（0x8）", "A100（8）", "8卡", "（x）", "H1004机32卡", "2x8 在七月补充"]
)
def test_text_without_topology(text):
    assert parse_row_label(text) is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("config_R300x1x8", ("R300", "1x8")),
        ("config_BI-V150x1x16.py", ("BI-V150", "1x16")),
        ("config_A100x1x8_amp", ("A100", "1x8")),
        ("config_9100x1x1", ("9100", "1x1")),
        ("config_common", None),
        ("config_1x8", None),
        ("x" * 300 + "1x8", None),
    ],
)
def test_name_of_a_configuration(name, expected):
    found = parse_config_name(name)

    assert (found and (found.card, found.label)) == expected


@pytest.mark.parametrize(
    ("text", "header", "used", "total", "unit"),
    [
        ("24.8/32.0", "mem", 24.8 * 2**30, 32 * 2**30, ""),
        ("24.8G/32GiB", "mem", 24.8 * 2**30, 32 * 2**30, ""),
        ("24.8/32GB", "mem", 24.8e9, 32e9, "GB"),
        ("24576/32768", "mem(MiB)", 24 * 2**30, 32 * 2**30, "MiB"),
        ("24576MiB/32.0GiB", "mem", 24 * 2**30, 32 * 2**30, ""),
        ("24.8/32.0", "mem(actual/total)", 24.8 * 2**30, 32 * 2**30, ""),
    ],
)
def test_memory_is_converted_from_its_unit(text, header, used, total, unit):
    found = cells.memory(text, header)

    assert (found.used_bytes, found.total_bytes, found.other_unit) == (round(used), round(total), unit)


@pytest.mark.parametrize(
    ("text", "values", "rest"),
    [
        ("bs=64 lr=0.3", {"bs": 64, "lr": 0.3}, []),
        ("bs = 64 lr = 0.3, wd=1", {"bs": 64, "lr": 0.3, "wd": 1}, []),
        ("LBS=8, checkpointing = True", {"LBS": 8, "checkpointing": "True"}, []),  # codespell:ignore checkpointing
        ("bs=64 like base", {"bs": "64 like base"}, []),
        ("the base", {}, ["the base"]),
    ],
)
def test_hyperparameters_may_be_separated_by_blanks(text, values, rest):
    assert cells.assignments(text) == (values, rest)


@pytest.mark.parametrize(
    ("text", "expected"), [("TP2PP2DP2", {"TP": 2, "PP": 2, "DP": 2}), ("TP8, PP1", {"TP": 8, "PP": 1}), ("DP, TP", {})]
)
def test_degrees_of_parallelism(text, expected):
    assert cells.degrees(text) == expected


@pytest.mark.parametrize(
    ("header", "column"),
    [
        ("final_acc1", "quality"),
        ("目标val_loss", "target"),
        ("收敛精度(mAP)", "quality"),
        ("token/p/s", "tokens"),
        ("性能（ntokens/s）", "tokens"),
        ("性能(samples/s)", "p_whole"),
        ("parallel_strategy", "parallel"),
        ("是否精度对齐", "aligned"),
        ("memory", "mem"),
        ("备注", None),
    ],
)
def test_column_of_a_header(header, column):
    assert wording.column_name(header) == column


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=40) | st.text("0123456789x×()（）单两机卡 onetwmachiesrd,", max_size=40))
def test_any_text_is_a_label_and_a_cell_or_none(text):
    label = parse_row_label(text, text)
    assert label is None or (label.nnodes >= 1 and label.nproc_per_node >= 1)
    for read in (cells.marker, cells.number, cells.quality, cells.memory, cells.assignments):
        read(text)


@pytest.mark.parametrize(
    ("text", "vendor", "card"),
    [
        ("NVIDIA_A100-SXM4-40GB", "nvidia", None),
        ("A100", "nvidia", "A100"),
        ("A100-SXM4-80GB", "nvidia", "A100-80G"),
        ("MXC500单机", "metax", "MXC500"),
        ("昆仑芯AI加速卡R300", "kunlunxin", None),
        ("BI-V150", "iluvatar", "BI-V150"),
    ],
)
def test_names_of_cards_and_makers(text, vendor, card):
    first = read_card_names().find(text)[0]

    assert (first.vendor, first.card) == (vendor, card)


@pytest.mark.parametrize("text", ["AA100", "A1000", "T4a", "R300+", "", "the cpu of the machine", "\u212a200x"])
def test_parts_of_words_are_no_names(text):
    assert read_card_names().find(text) == []


def test_name_is_shown_as_it_is_written_and_the_first_meaning_counts():
    names = CardNames()
    names.add("acme", VendorNames(titles=("Acme Inc",), machines=("Box",), cards={"A1": ("Alpha",)}))
    names.add("zeta", VendorNames(cards={"a1": (), "Z1": ()}))

    assert names.cards("acme") == ("A1", "Alpha")
    assert names.cards("zeta") == ("Z1",)
    assert names.titles("acme") == ("Acme Inc",)
    assert [(mention.vendor, mention.card, mention.machine) for mention in names.find("acme box a1 z1")] == [
        ("acme", None, False),
        ("acme", None, True),
        ("acme", "A1", False),
        ("zeta", "Z1", False),
    ]


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("on an A100.", "A100", True),
        ("on an a100", "A100", True),
        ("在A100上运行", "A100", True),
        ("沐曦集成电路", "沐曦", True),
        ("A100-SXM4", "A100", True),
        ("A1000", "A100", False),
        ("MA100", "A100", False),
        ("", "A1", False),
    ],
)
def test_name_is_found_as_a_word_of_its_own(text, name, expected):
    names = CardNames()
    names.add("acme", VendorNames(titles=(name,)))

    assert bool(names.find(text)) is expected


def test_plugins_add_their_products_and_memory():
    names = read_card_names()

    assert names.info("metax").report_title.zh
    assert {product.memory_bytes for product in names.products(names.find("MXC500")[0])} == {64 * 2**30}
    assert "cpu" in names.vendors
    assert not names.titles("cpu")


def test_a_short_name_stands_for_every_size_of_a_card():
    names = read_card_names()

    sizes = {text: {product.memory_bytes for product in names.sizes(names.find(text)[0])} for text in ("A100", "H20")}

    assert sizes == {"A100": {40 * 2**30, 80 * 2**30}, "H20": {96 * 2**30}}
