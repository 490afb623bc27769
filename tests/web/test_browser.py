"""The pages in a real browser: sorting, filters, languages, dark, narrow, by keyboard, and nothing from the network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from chipperf.web.board import COLUMNS
from headless import DESKTOP, PHONE

if TYPE_CHECKING:
    from pathlib import Path

    from headless import Page

PLACE = {column.name: place for place, column in enumerate(COLUMNS, start=1)}
BOARD = ".board[data-case=mobilenetv2]"


def sort(page: Page, name: str) -> None:
    page.click(f"{BOARD} thead th:nth-child({PLACE[name]}) button")


def column(page: Page, name: str) -> list[str]:
    return page.texts(f"{BOARD} tbody tr > :nth-child({PLACE[name]})")


def focused(page: Page) -> dict[str, str | None]:
    return page.run(
        """const e = document.activeElement;
           return {tag: e.tagName, text: e.innerText?.trim(), outline: getComputedStyle(e).outlineStyle}"""
    )


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("name", ["leaderboard", "run_page"])
def test_page_is_whole(page: Page, request: pytest.FixtureRequest, name: str, dark: bool, size: tuple[int, int]):
    """No complaint, no request but for the page itself, nothing wider than the window, and no script of a record."""
    path: Path = request.getfixturevalue(name)
    page.open(path, size=size, dark=dark)

    assert page.console() == []
    assert page.requests() == [path.as_uri()]
    assert page.run("return document.documentElement.scrollWidth <= innerWidth")
    assert page.run("return document.title").endswith("chipperf")
    assert page.run("return document.scripts.length") == 1
    assert page.run("return new Set([...document.querySelectorAll('[id]')].map(e => e.id)).size") == page.run(
        "return document.querySelectorAll('[id]').length"
    )


def test_names_are_shown_as_they_are(page: Page, leaderboard: Path):
    page.open(leaderboard)

    assert any(text.startswith("</script><script>document.title") for text in page.texts("tbody th"))
    page.click("tbody tr[data-record^='</script>'] a")
    assert page.run("return document.title").startswith("</script>")
    assert page.console() == []
    assert page.run("return document.scripts.length") == 1


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("name", ["leaderboard", "run_page"])
def test_text_has_contrast(page: Page, request: pytest.FixtureRequest, name: str, dark: bool):
    """Every text has the 4.5:1 to its background that WCAG's level AA asks for."""
    page.open(request.getfixturevalue(name), dark=dark)
    low = page.run(
        """
        const parse = text => text.match(/[\\d.]+/g).map(Number);
        const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
          .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
          .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
        const behind = e => {
          for (; e; e = e.parentElement) {
            const color = parse(getComputedStyle(e).backgroundColor);
            if (color.length < 4 || color[3]) return color;
          }
        };
        return [...document.querySelectorAll('body *')].filter(e => e.checkVisibility() &&
          [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())).map(e => {
            const style = getComputedStyle(e);
            const text = light(parse(e.closest('svg') ? style.fill : style.color)), back = light(behind(e));
            return [(Math.max(text, back) + 0.05) / (Math.min(text, back) + 0.05), e.outerHTML.slice(0, 120)];
          }).filter(([ratio]) => ratio < 4.5);
        """
    )

    assert low == []


def test_dark_page_is_dark(page: Page, leaderboard: Path):
    colors = {}
    for dark in (False, True):
        page.open(leaderboard, dark=dark)
        colors[dark] = page.run(
            """return [getComputedStyle(document.body).backgroundColor,
                       getComputedStyle(document.querySelector('svg text')).fill]"""
        )

    assert colors[False][0] == "rgb(255, 255, 255)"
    assert colors[True][0] == "rgb(13, 17, 23)"
    assert colors[False][1] != colors[True][1]


@pytest.mark.parametrize(("name", "numeric"), [("p_core", True), ("quality", True), ("device", False)])
def test_columns_sort_both_ways_and_missing_values_last(page: Page, leaderboard: Path, name: str, numeric: bool):
    page.open(leaderboard)
    sort(page, name)
    upwards = column(page, name)
    heading = page.run(
        "return [...document.querySelectorAll(arguments[0])].map(e => e.getAttribute('aria-sort'))", f"{BOARD} thead th"
    )
    sort(page, name)
    downwards = column(page, name)

    assert heading[PLACE[name] - 1] == "ascending"
    assert set(heading) == {"ascending", "none"}
    present = [text for text in upwards if "失败" not in text]
    assert present == sorted(present, key=(lambda text: float(text.rstrip("%"))) if numeric else None)
    assert [text for text in downwards if "失败" not in text] == present[::-1]
    if numeric:
        assert "失败(device_lost)" in upwards[-1]
        assert "失败(device_lost)" in downwards[-1]


@pytest.mark.parametrize(
    ("name", "value", "count"),
    [
        ("vendor", "acme", 7),
        ("case", "resnet50", 10),
        ("topology", "2x8", 6),
        ("precision", "amp", 12),
        ("verdict", "not_completed", 2),
        ("verdict", "converged", 7),
    ],
)
def test_filter(page: Page, leaderboard: Path, name: str, value: str, count: int):
    page.open(leaderboard)
    page.choose(name, value)
    rows = page.run("return [...document.querySelectorAll('tbody tr')].filter(e => e.checkVisibility()).length")

    assert rows == count
    assert page.texts("[role=status] .shown") == [str(count)]
    # A board without any row has no heading either.
    assert page.run(
        """return [...document.querySelectorAll('.board')].every(
             board => board.checkVisibility() === [...board.querySelectorAll('tbody tr')].some(row => !row.hidden))"""
    )
    assert f"{name}={value}" in page.run("return location.hash")


def test_filters_add_up_are_remembered_and_cleared(page: Page, leaderboard: Path):
    page.open(leaderboard, "#lang=en&vendor=acme&topology=2x8&precision=none&nothing=1")
    assert page.texts("[role=status]") == ["2 of 20 runs"]

    page.click("button[type=reset]")
    page.run("return new Promise(done => setTimeout(done, 20))")
    assert page.texts("[role=status]") == ["20 of 20 runs"]
    assert page.run("return location.hash") == "#lang=en"


def test_language(page: Page, leaderboard: Path):
    page.open(leaderboard)
    assert page.run("return [document.documentElement.lang, document.title]") == ["zh", "训练性能榜 · chipperf"]
    assert page.texts("h1") == ["训练性能榜"]
    assert "达到目标" in column(page, "verdict")

    page.click("[data-language=en]")
    assert page.run("return [document.documentElement.lang, document.title]") == [
        "en",
        "Training leaderboard · chipperf",
    ]
    assert page.texts("h1") == ["Training leaderboard"]
    assert "converged" in column(page, "verdict")
    assert page.run("return document.querySelector('select[name=verdict]').innerText").split("\n")[:2] == [
        "all",
        "converged",
    ]
    assert page.run("return location.hash") == "#lang=en"
    # The page that a link leads to has the language, too.
    page.click(f"{BOARD} tbody a")
    assert page.run("return document.documentElement.lang") == "en"
    page.click(".back a")
    assert page.texts("h1") == ["Training leaderboard"]


def test_provenance_of_the_cell_below_the_pointer(page: Page, leaderboard: Path):
    from selenium.webdriver import ActionChains

    page.open(leaderboard, "#lang=en")
    selector = f"{BOARD} tbody tr:first-child > :nth-child({PLACE['p_train']})"
    ActionChains(page.browser).move_to_element(page.browser.find_element("css selector", selector)).perform()

    record, sha = page.run(
        "const d = document.querySelector(arguments[0]).parentElement.dataset; return [d.record, d.sha]", selector
    )
    assert page.texts("#provenance") == [f"metrics.p_train.median of record {record} SHA-256 {sha}"]
    assert len(sha) == 12


def test_keyboard(page: Page, leaderboard: Path):
    from selenium.webdriver.common.keys import Keys

    page.open(leaderboard, "#lang=en")
    page.press(Keys.TAB)
    assert focused(page) == {"tag": "BUTTON", "text": "中文", "outline": "solid"}
    page.press(Keys.ENTER)
    assert page.texts("h1") == ["训练性能榜"]
    page.press(Keys.TAB, Keys.ENTER, Keys.TAB)
    assert focused(page)["tag"] == "SELECT"
    assert page.run("return document.activeElement.labels[0].firstElementChild.parentElement.innerText").startswith(
        "Vendor"
    )

    page.run("document.querySelector(arguments[0]).focus()", f"{BOARD} thead th:nth-child(2) button")
    page.press(Keys.SPACE)
    assert page.run("return document.activeElement.closest('th').getAttribute('aria-sort')") == "ascending"
    # From the last heading on, one Tab leads into the cells, and the arrow keys through them.
    page.run("document.querySelector(arguments[0]).focus()", f"{BOARD} thead th:last-child button")
    page.press(Keys.TAB)
    assert focused(page)["tag"] == "TD"
    page.press(Keys.ARROW_DOWN, *[Keys.ARROW_RIGHT] * (PLACE["p_whole"] - 1))
    assert page.texts("#provenance .field") == ["metrics.p_whole"]
    assert focused(page)["outline"] == "solid"
    assert page.run("return document.activeElement.getAttribute('aria-describedby')") == "provenance"
    page.press(Keys.ESCAPE)
    assert page.texts("#provenance") == []


def test_keyboard_reaches_the_details_of_a_run(page: Page, run_page: Path):
    from selenium.webdriver.common.keys import Keys

    page.open(run_page, "#lang=en")
    page.run("document.querySelector('dl [tabindex=\"0\"]').focus()")
    page.press(Keys.ARROW_DOWN)

    assert page.texts("#provenance .field") == ["status.state"]
    assert page.texts("#provenance .record") == ["simulated-resnet50-acme-1x8-fp32"]


def test_phone_shows_cards_that_say_which_column_a_value_is_of(page: Page, leaderboard: Path):
    page.open(leaderboard, "#lang=en", size=PHONE)
    labels = page.run(
        """return [...document.querySelectorAll(arguments[0])]
             .map(e => getComputedStyle(e, '::before').content.slice(1, -1))""",
        f"{BOARD} tbody tr:first-child td",
    )

    assert {"Vendor", "Topology", "acc", "p_core", "fix_hp"} <= set(labels)
    sizes = page.run(
        "return [...document.querySelectorAll('main *')].map(e => parseFloat(getComputedStyle(e).fontSize))"
    )
    assert min(sizes) >= 9


def test_page_without_scripts_shows_one_language_and_no_dead_controls(page: Page, leaderboard: Path):
    page.without_scripts(True)
    try:
        page.open(leaderboard)
        visible = page.static_texts()
    finally:
        page.without_scripts(False)

    assert "训练性能榜" in visible
    assert "Training leaderboard" not in visible
    assert "清除" not in visible


def test_failed_run_is_listed_as_such(page: Page, leaderboard: Path):
    page.open(leaderboard, "#lang=en&verdict=not_completed&case=detr")

    assert page.texts(".board tbody tr > :nth-child(6)") == ["failed"]
    assert set(page.texts(".board tbody tr > td[data-missing=failed]")) == {"failed (oom)"}
    assert page.run("return [...document.querySelectorAll('.board[data-case=detr] svg')].length") == 0
