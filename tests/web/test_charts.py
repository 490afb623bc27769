"""Charts: numbers and titles of axes, in the page's colors, and harmless beside others on one page."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from datetime import datetime, timezone
from itertools import pairwise

import pytest
from chipperf.records.schema import Window
from chipperf.web import charts
from chipperf.web.charts import (
    DASHES,
    MOST_POINTS,
    SERIES,
    dash,
    draw_convergence,
    draw_trend,
    draw_windows,
)

LINE = [(float(epoch), epoch / 100) for epoch in range(1, 31)]


DAYS = [datetime(2026, 1, day, tzinfo=timezone.utc) for day in (1, 2, 9)]


def windows(count: int) -> list[Window]:
    return [
        Window(epoch=1, first_step=step * 50, steps=50, samples=3200, seconds=1 + step % 3) for step in range(count)
    ]


PICTURES = {
    "convergence": lambda: draw_convergence([LINE, LINE[:5]], [0.2], "acc (%)", as_percent=True),
    "windows": lambda: draw_windows(windows(20)),
    "trend": lambda: draw_trend(DAYS, [(1.0, 2.0), (None, 1.5), (1.0, None)], [("", ""), ("", "lower"), ("", "")]),
}


@pytest.mark.parametrize("draw", PICTURES.values(), ids=PICTURES)
def test_picture_is_one_element_without_size_or_colors_of_its_own(draw):
    text = draw()
    root = ElementTree.fromstring(text)

    assert root.tag.endswith("svg")
    assert root.get("width") is None
    assert root.get("viewBox")
    assert not re.findall(r"#[0-9a-f]{6}(?![0-9a-f\-])", text)
    assert set(re.findall(r"var\((--[a-z]+)", text)) <= {"--ink", "--line", "--series"}
    assert draw() == text


@pytest.mark.parametrize("top", [0.3, 0.6], ids=["low", "high"])
def test_numbers_of_curves_that_end_at_one_place_are_apart(top: float):
    ends = [*[top - 0.001 * (number % 2) for number in range(9)], 0.3]
    curves = [[*LINE[:10], (30.0, end)] for end in ends[:-1]]
    text = draw_convergence([*curves, LINE[:20], [(1.0, 0.9)]], [0.3], "acc (%)", as_percent=True)
    found = re.findall(r"text-anchor: start; fill: var\(--series[^>]* x=\"([\d.]+)\" y=\"([\d.]+)\"[^>]*>(\d+)<", text)
    places = sorted((float(x), float(y)) for x, y, _ in found)

    assert sorted(int(number) for _, _, number in found) == list(range(1, 12))
    for (x, y), (other_x, other_y) in pairwise(places):
        assert other_x - x > 10 or abs(other_y - y) > 8
    assert all(0 < y < 216 for _, y in places)


OTHERS = {
    "convergence": lambda: draw_convergence([[(0.0, 9e3), (400.0, 7e4)], LINE], [0.5, 8e4], "loss", as_percent=False),
    "windows": lambda: draw_windows(windows(3 * MOST_POINTS)[7:]),
    "trend": lambda: draw_trend(
        [DAYS[0], DAYS[0].replace(hour=5)], [(8e4, None), (9e4, 2e3)], [("", ""), ("lower", "")]
    ),
}


@pytest.mark.parametrize("kind", PICTURES)
def test_picture_does_not_depend_on_those_before(kind):
    alone = PICTURES[kind]()
    other = OTHERS[kind]()
    again = PICTURES[kind]()
    charts._empty_axes.cache_clear()

    assert again == alone
    assert OTHERS[kind]() == other != alone


def test_different_pictures_share_no_ids():
    ids = [re.findall(r" id=\"([^\"]+)\"", draw()) for draw in PICTURES.values()]

    assert len({each for some in ids for each in some}) == sum(map(len, ids))


@pytest.mark.parametrize("draw", PICTURES.values(), ids=PICTURES)
def test_every_reference_leads_somewhere(draw):
    text = draw()

    assert set(re.findall(r"(?:url\(#|href=\"#)([\w-]+)", text)) <= set(re.findall(r" id=\"([^\"]+)\"", text))


@pytest.mark.parametrize(
    ("name", "titles"),
    [
        ("convergence", {"epoch", "acc (%)"}),
        ("windows", {"step", "p_train"}),
        ("trend", {"UTC", "p_whole, p_train, p_core"}),
    ],
)
def test_texts_are_numbers_and_titles_of_axes(name, titles):
    texts = set(re.findall(r"<text[^>]*>([^<]*)</text>", PICTURES[name]()))

    assert titles < texts
    assert all(re.fullmatch(r"[−-]?[\d.]+|\d{4}(-\d\d){2}", text) for text in texts - titles), texts


def test_title_that_no_font_can_write_is_left_out():
    assert "\U0001f9ea" not in draw_convergence([LINE], [], "\U0001f9ea", as_percent=False)


@pytest.mark.parametrize("count", [1, SERIES * len(DASHES) + 3])
def test_any_number_of_curves(count):
    assert str(draw_convergence([LINE] * count, [], "acc", as_percent=False)).count(f">{count}</text>") >= 1


def test_curve_without_points_keeps_its_number():
    text = draw_convergence([LINE, [], LINE], [], "acc", as_percent=False)

    assert ">3</text>" in text
    assert "--series-2" not in text


def test_size_of_a_picture_is_bounded():
    few, many = draw_windows(windows(MOST_POINTS)), draw_windows(windows(20 * MOST_POINTS))

    assert len(many) < 1.5 * len(few)


def test_curves_of_one_color_differ_in_their_dash():
    assert [dash(index) for index in (0, 5, 6, 12)] == ["solid", "solid", "dashed", "dotted"]
