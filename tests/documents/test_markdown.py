"""Blocks, cells, links and comments of Markdown, each with its place."""

from __future__ import annotations

import pytest
from chipperf.documents.markdown import Block, Table, parse
from hypothesis import given, settings
from hypothesis import strategies as st


def places(text):
    return [(block.kind, block.text, str(block.place)) for block in parse(text).blocks if isinstance(block, Block)]


def tables(text):
    return [block for block in parse(text).blocks if isinstance(block, Table)]


def test_blocks_and_their_places():
    text = "# One\n\n- ##### Two\n  - a: b\n    - c\n\n> para\n\n    code\n\n<div>x</div>\n"

    assert places(text) == [
        ("heading", "One", "1:3"),
        ("heading", "Two", "3:9"),
        ("item", "a: b", "4:5"),
        ("item", "c", "5:7"),
        ("paragraph", "para", "7:3"),
        ("code", "code", "9:1"),
        ("html", "<div>x</div>", "11:1"),
    ]


@pytest.mark.parametrize("text", ["a: b", "a：b", "a :  b", "**a**: b"])
def test_value_of_an_item_has_a_place_of_its_own(text):
    (block,) = parse(f"- {text}").blocks

    assert f"- {text}"[block.value.column - 1 :] == "b"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("**bold** and `code`", "bold and code"),
        ("a\\*b &amp; c", "a*b & c"),
        ("[x](http://y.example/ü#z)", "[x](http://y.example/ü#z)"),
        ("[x][r]", "[x](http://r.example)"),
        ("![i](a b.png)", "![i](a b.png)"),
        ("a<br>b<!-- c -->d", "a bd"),
        ("a\nb  \nc", "a b c"),
    ],
)
def test_text_is_without_markup(written, expected):
    text = f"{written}\n\n[r]: http://r.example\n"

    assert places(text)[0][1] == expected


@pytest.mark.parametrize("prefix", ["", "> ", "- ", "1. "])
def test_cells_have_line_and_column(prefix):
    inside = "> " if prefix == "> " else " " * len(prefix)
    lines = [f"{prefix}| a | b\\|c |", f"{inside}| --- | --- |", f"{inside}|  1 || 3 |"]

    (table,) = tables("\n".join(lines))

    assert [cell.text for cell in table.header] == ["a", "b|c"]
    assert [cell.text for cell in table.rows[0]] == ["1", "", "3"]
    for number, row in ((1, table.header), (3, table.rows[0])):
        for cell in row:
            assert cell.place.line == number
            assert lines[number - 1][cell.place.column - 1 :].startswith(cell.text.replace("|", "\\|"))


def test_table_without_outer_bars_and_with_fewer_cells():
    (table,) = tables("a | b\n--- | ---\n1\n| 2 |\n")

    assert [[cell.text for cell in row] for row in table.rows] == [["1"], ["2"]]


def test_links_and_images_have_their_address_and_place():
    text = "see [a](b.md#c) and\n![d](e.png)\n\n| x |\n| --- |\n| [f](g) |\n"

    found = [(link.target, link.is_image, str(link.place)) for link in parse(text).links]

    assert found == [("b.md#c", False, "1:9"), ("e.png", True, "2:6"), ("g", False, "6:7")]


def test_comments_of_blocks_and_texts():
    text = "<!-- one -->\n\ntext <!-- two --> more\nand <!--\nthree --> end\n\n`<!-- code -->`\n"

    found = [(comment.text, str(comment.place), comment.last_line) for comment in parse(text).comments]

    assert found == [("one", "1:1", 1), ("two", "3:6", 3), ("three", "4:5", 5)]


@pytest.mark.parametrize("newline", ["\r\n", "\r"])
def test_other_line_ends_make_no_difference(newline):
    text = "# a\n\n- b: c\n"

    assert parse(text.replace("\n", newline)) == parse(text)


@settings(max_examples=60, deadline=None)
@given(st.text("|-#*_ \n`[]()<>!/\\:：&;.1a卡\t\0\r", max_size=120) | st.text(max_size=120))
def test_every_place_is_in_the_text(text):
    parsed = parse(text)

    for block in parsed.blocks:
        cells = [*block.header, *(cell for row in block.rows for cell in row)] if isinstance(block, Table) else []
        for place in (block.place, *(cell.place for cell in cells), *(link.place for link in block.links)):
            assert 1 <= place.line <= len(parsed.lines)
            assert 1 <= place.column <= len(parsed.lines[place.line - 1]) + 1
    for comment in parsed.comments:
        assert 1 <= comment.place.line <= comment.last_line <= len(parsed.lines)
