"""The pages in a real browser: sorting, filters, languages, dark, narrow, by keyboard, and nothing from the network."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from chipperf.web.board import make_boards, summarize
from chipperf.web.pages import render_leaderboard
from headless import DESKTOP, PHONE
from web_records import make_run

if TYPE_CHECKING:
    from pathlib import Path

    from headless import Page

BOARD = ".board[data-case=mobilenetv2]"
RUNS = f"{BOARD} .runs"


def cell(name: str) -> str:
    return "tbody th" if name == "device" else f"tbody .{name}"


def sort(page: Page, name: str) -> None:
    page.click(f"{RUNS} thead .{name} button")


def column(page: Page, name: str) -> list[str]:
    return page.texts(f"{RUNS} {cell(name)}")


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


@pytest.mark.parametrize(
    ("name", "numeric"), [("p_core", True), ("quality", True), ("device", False), ("time_to_target", True)]
)
def test_columns_sort_both_ways_and_missing_values_last(page: Page, leaderboard: Path, name: str, numeric: bool):
    page.open(leaderboard)
    sort(page, name)
    upwards = column(page, name)
    heading = page.run(
        """return Object.fromEntries([...document.querySelectorAll(arguments[0])]
             .map(e => [e.classList[e.classList.length - 1], e.ariaSort]))""",
        f"{RUNS} thead th",
    )
    sort(page, name)
    downwards = column(page, name)

    assert heading[name] == "ascending"
    assert set(heading.values()) == {"ascending", "none"}
    present = [text for text in upwards if "未" not in text]
    assert present == sorted(present, key=(lambda text: float(text.rstrip("%"))) if numeric else None)
    assert [text for text in downwards if "未" not in text] == present[::-1]
    assert upwards[len(present) :] == downwards[len(present) :] == ["未达到"] * (len(upwards) - len(present))
    assert (name == "time_to_target") == (len(upwards) > len(present))


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
    page.run("for (const folded of document.querySelectorAll('.failed')) folded.open = true")
    rows = page.run("return [...document.querySelectorAll('.cells tbody tr')].filter(e => e.checkVisibility()).length")

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
    assert page.texts("[role=status]") == ["Runs: 2 of 20"]

    page.click("button[type=reset]")
    page.run("return new Promise(done => setTimeout(done, 20))")
    assert page.texts("[role=status]") == ["Runs: 20 of 20"]
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
    selector = f"{RUNS} tbody tr:first-child .p_train"
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

    page.run("document.querySelector(arguments[0]).focus()", f"{RUNS} thead .device button")
    page.press(Keys.SPACE)
    assert page.run("return document.activeElement.closest('th').getAttribute('aria-sort')") == "ascending"
    # From the last heading on, one Tab leads into the cells, and the arrow keys through them.
    page.run("document.querySelector(arguments[0]).focus()", f"{RUNS} thead th:last-child button")
    page.press(Keys.TAB)
    assert focused(page)["tag"] == "TD"
    assert page.texts("#provenance .hint") == ["Arrow keys lead to the other values."]
    assert page.run("return document.activeElement.closest('table').getAttribute('role')") == "grid"
    place = page.run("return document.querySelector(arguments[0]).cellIndex", f"{RUNS} .p_whole")
    page.press(Keys.ARROW_DOWN, *[Keys.ARROW_RIGHT] * place)
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
        f"{RUNS} tbody tr:first-child td",
    )

    assert {"Vendor", "Topology", "acc", "p_core", "fix_hp"} <= set(labels)
    sizes = page.run(
        "return [...document.querySelectorAll('main *')].map(e => parseFloat(getComputedStyle(e).fontSize))"
    )
    assert min(sizes) >= 9


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("name", ["leaderboard", "run_page"])
def test_what_ranks_is_seen_at_every_width(page: Page, request: pytest.FixtureRequest, name: str, language: str):
    """Without scrolling: in the table, or in cards if it has no room for p_core; a wide table's end fades."""
    forms = set()
    for width in (390, 700, 850, 900, 1000, 1100, 1440, 1920):
        page.open(request.getfixturevalue(name), f"#lang={language}", size=(width, 900))
        rights, is_cards, fades, end = page.run(
            """const tables = [...document.querySelectorAll('.runs')].filter(e => e.checkVisibility());
               return [[...document.querySelectorAll('.runs tbody .p_core')].map(e => e.getBoundingClientRect().right),
                       tables.map(e => e.matches('.cards')),
                       tables.every(e => (getComputedStyle(e.parentElement).maskImage !== 'none') ===
                                         (e.scrollWidth > e.parentElement.clientWidth)),
                       Math.min(...tables.map(e => e.parentElement.getBoundingClientRect().right -
                                                   (e.scrollWidth > e.parentElement.clientWidth ? 32 : 0)))]"""
        )
        forms.update(is_cards)

        assert 0 < max(rights) <= end < width
        assert fades
        assert width != 390 or all(is_cards)
        assert width != 1920 or not any(is_cards)
    assert forms == {True, False}


def test_table_becomes_cards_as_soon_as_the_window_is_narrow(page: Page, leaderboard: Path):
    page.open(leaderboard, "#lang=en", size=(1440, 900))
    for width, is_cards in ((500, True), (1440, False)):
        page._devtools("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        page.run("return new Promise(done => setTimeout(done, 100))")
        assert page.run("return document.querySelector(arguments[0]).matches('.cards')", RUNS) is is_cards


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

    assert page.texts(".board .verdict") == ["Verdict", "failed (oom)"]
    assert page.texts(".board .p_core") == []
    assert page.run("return [...document.querySelectorAll('.board[data-case=detr] svg')].length") == 0


def test_failed_runs_are_folded_until_they_are_asked_for(page: Page, leaderboard: Path):
    page.open(leaderboard, "#lang=en")
    assert page.texts(f"{BOARD} .failed tbody tr") == []
    assert page.texts(f"{BOARD} summary")[-1] == "Runs that did not complete: 1"

    page.choose("vendor", "acme")
    assert page.texts(f"{BOARD} .failed") == []
    page.choose("vendor", "")
    page.choose("verdict", "not_completed")
    assert len(page.texts(f"{BOARD} .failed tbody tr")) == 1
    assert page.texts(RUNS) == []


def ratios(page: Page) -> dict[str, str]:
    names = [
        " ".join(texts)
        for texts in zip(*(column(page, name) for name in ("device", "topology", "precision")), strict=True)
    ]
    return dict(zip(names, column(page, "ratio"), strict=True))


def test_ratio_is_to_the_chosen_baseline_and_only_under_its_conditions(page: Page, leaderboard: Path):
    page.open(leaderboard, "#lang=en")
    rates = dict(zip(ratios(page), (float(text) for text in column(page, "per_card")), strict=True))
    for base in ("simulated B200 1x8 amp", "simulated C7 1x8 fp32"):
        page.run("document.querySelectorAll(arguments[0])[arguments[1]].click()", f"{RUNS} .base", [*rates].index(base))
        shown = ratios(page)

        assert shown.pop(base) == "baseline"
        for name, text in shown.items():
            if name.split()[-1] == base.split()[-1]:
                assert float(text) == pytest.approx(rates[name] / rates[base], abs=0.001)
            else:
                assert text == "-"
    reason = page.run(
        "return document.querySelector(arguments[0]).dataset.reason", f"{RUNS} .ratio[data-reason*=other]"
    )
    assert reason == "No ratio, other than of the baseline: requested precision, effective precision"


def test_what_a_filter_hides_is_no_baseline(page: Page, leaderboard: Path):
    page.open(leaderboard, "#lang=en")
    base = next(name for name, text in ratios(page).items() if text == "baseline")
    page.choose("vendor", "birch")

    shown = ratios(page)

    assert base not in shown
    assert list(shown.values()).count("baseline") == 1


def test_selected_runs_are_side_by_side(page: Page, leaderboard: Path):
    page.open(leaderboard, "#lang=en")
    for place in (0, 2):
        page.run("document.querySelectorAll(arguments[0])[arguments[1]].click()", f"{RUNS} .select", place)
    lines = dict(text.split("\t", 1) for text in page.texts(f"{BOARD} .side tr"))

    assert lines["Precision"] == "amp\tfp32"
    assert lines["p_core"] == "\t".join(column(page, "p_core")[place] for place in (0, 2))
    assert page.texts(f"{BOARD} .differs th") == ["requested precision", "effective precision"]
    page.click("[data-language=zh]")
    assert page.texts(f"{BOARD} .side h3") == ["并列比较"]
    page.choose("precision", "amp")
    assert page.texts(f"{BOARD} .side") == []
    page.choose("precision", "")
    page.click(f"{BOARD} .clear")
    assert page.texts(f"{BOARD} .side") == []
    assert page.run("return document.querySelectorAll('.select:checked').length") == 0


@pytest.mark.parametrize("size", [DESKTOP, PHONE, (820, 1180)], ids=["desktop", "phone", "tablet"])
@pytest.mark.parametrize("name", ["leaderboard", "run_page"])
def test_no_heading_breaks_a_chinese_word(page: Page, request: pytest.FixtureRequest, name: str, size: tuple[int, int]):
    page.open(request.getfixturevalue(name), "#lang=zh", size=size)
    broken = page.run(
        """
        const found = [];
        for (const element of document.querySelectorAll('h1, h2, h3, thead th, label, figcaption, summary')) {
          const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
          for (let node = walker.nextNode(); node; node = walker.nextNode()) {
            for (let i = 1; i < node.length; i++) {
              if (!/^\\p{Script=Han}{2}$/u.test(node.data.slice(i - 1, i + 1))) continue;
              const tops = [i - 1, i].map(start => {
                const range = document.createRange();
                range.setStart(node, start);
                range.setEnd(node, start + 1);
                return range.getBoundingClientRect().top;
              });
              if (Math.abs(tops[0] - tops[1]) > 2) found.push(node.data);
            }
          }
        }
        return found;
        """
    )

    assert broken == []


def test_numbers_are_at_the_right(page: Page, leaderboard: Path):
    page.open(leaderboard)
    edges = page.run(
        """return [...document.querySelectorAll(arguments[0])].map(cell => {
             const range = document.createRange();
             range.selectNodeContents(cell);
             return Math.round(range.getBoundingClientRect().right);
           })""",
        f"{RUNS} tbody .p_core",
    )

    assert len(edges) > 5
    assert max(edges) - min(edges) <= 1


@pytest.fixture
def long_page(tmp_path: Path) -> Path:
    """A leaderboard with a table of more rows than a sheet of paper has room for."""
    runs = [make_run(run_id=f"run-{number}", seed=number) for number in range(60)]
    file = tmp_path / "index.html"
    boards = make_boards([summarize(run) for run in runs], most_rows=100)
    file.write_text(render_leaderboard(boards, language="en"), encoding="utf-8")
    return file


@pytest.mark.skipif(
    shutil.which("pdftotext") is None, reason="pdftotext is not installed: apt-get install poppler-utils"
)
def test_every_sheet_of_paper_names_the_columns(page: Page, long_page: Path, tmp_path: Path):
    page.open(long_page)
    with_rows = [sheet for sheet in page.printed(tmp_path) if sheet.count("converged") > 3]

    assert len(with_rows) > 1
    for sheet in with_rows:
        assert {"Vendor", "Verdict", "p_core"} <= set(sheet.split())


def test_rank_is_explained_where_there_is_one(page: Page, long_page: Path, leaderboard: Path):
    page.open(long_page)
    assert "A rank is the place by p_core" in page.texts(".facts")[0]
    assert page.texts("tbody .rank")[0] == "1/60"

    page.open(leaderboard, "#lang=en")
    assert "A rank is" not in page.texts(".facts")[0]
    assert page.texts(".rank") == []
