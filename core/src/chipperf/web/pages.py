"""Rendering pages with Jinja templates: the user's, the vendor's and core's."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

import chipperf
from chipperf.documents.format import number, quality
from chipperf.errors import PerfError, UsageError
from chipperf.languages import (
    ENGLISH,
    LANGUAGES,
    Language,
    Phrase,
    Stored,
    Translated,
    in_language,
    phrase,
    read_translation,
)
from chipperf.plugin.types import Title
from chipperf.records.schema import Record, Throughput
from chipperf.report import templating
from chipperf.report.figures import has_matplotlib
from chipperf.web import charts
from chipperf.web.board import CONDITIONS, VERDICTS, Board, RunRow, curve_of, make_boards, mark_doubles
from chipperf.web.details import Section, describe
from chipperf.web.trend_inputs import RATES, SOFTWARE
from chipperf.web.trends import Trend, TrendPoint, find_trends

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path


MOST_ROWS = 2000
"""Largest number of rows on a page, in all boards together."""
MOST_DETAILED = 50
"""Largest number of runs that one page shows in full."""
_MOST_CHARTED = 12
_MOST_TRENDS = 60
_MOST_POINTS = 30
"""Largest number of trends on a page, and of points in the table of one; a table has every step."""

_SUFFIX = ".html.j2"
_TRANSLATABLE = (Phrase, Translated)
_TITLE_BLOCKS = frozenset({"title_zh", "title_en"})
"""Blocks of chipperf 0.1 for the window's title. Templates that define them are refused: no page shows them."""

_SIMULATED = (
    phrase(
        "⚠ Simulated: no number on this page was measured on a real device, and none says anything about a product."
    ),
    phrase(
        "⚠ Some results on this page are simulated: not measured on a real device, they say nothing about a product."
    ),
)
_SAMPLE = (
    phrase("⚠ Sample dataset: these runs used a generated dataset; the results are no benchmark scores."),
    phrase("⚠ Some results on this page are of a generated sample dataset; those are no benchmark scores."),
)
"""Banner of a page if all of its results are of this kind, and banner if only some are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A picture with its title and the numbers of its runs. Without matplotlib there is no picture."""

    title: Phrase
    note: Phrase | str = ""
    picture: Markup | None


@dataclass(frozen=True, slots=True)
class Bar:
    """A throughput: its name, its text, and its length as a part of the longest bar of the board."""

    name: str
    text: Phrase | str
    part: float


@dataclass(frozen=True, slots=True)
class ChartedRun:
    """A run in the charts of a board, with its throughputs as bars."""

    row: RunRow
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardView:
    """A board with its charts. ``charted`` lists the runs that the charts refer to by number."""

    board: Board
    charted: tuple[ChartedRun, ...]
    convergence: Chart | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrendView:
    """The trend of a row with its picture. Of a long trend, ``omitted`` old points are in the picture only."""

    board: Board
    trend: Trend
    points: tuple[TrendPoint, ...]
    omitted: int
    chart: Chart


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """The full content of a record. ``convergence`` is the curve of a run that is in no board's chart."""

    row: RunRow
    sections: tuple[Section, ...]
    windows: Chart | None
    convergence: Chart | None


@dataclass(frozen=True, slots=True, kw_only=True)
class UnshownRecord:
    """A record that could not be shown: its path, and the reason."""

    place: str
    message: str


def render_runs(
    records: Sequence[Record],
    rows: Sequence[RunRow],
    *,
    language: Language,
    user_templates: Path | None = None,
    vendor_templates: Path | None = None,
    index: str | None = None,
    record_file: str | None = None,
    with_charts: bool = True,
) -> str:
    """Return the page of one or several runs of any vendors and cases, with the full content of their records.

    The template is ``CASE.html.j2`` or else ``report.html.j2``, from the user's directory, the vendor's, or core's.

    Args:
        records: At least one record.
        rows: The row of each record.
        language: Language that the page shows first.
        index: Link to the page that lists this one.
        record_file: Link to a copy of the only record.
    """
    if not records:
        raise UsageError("there are no records to report", hint="name one run directory or more")
    rows = mark_doubles(rows)
    boards = make_boards(rows, most_rows=MOST_ROWS)
    cases = {record.case.name for record in records}
    return _render(
        (*cases, "report") if len(cases) == 1 else ("report",),
        boards,
        language=language,
        user_templates=user_templates,
        vendor_templates=vendor_templates,
        with_charts=with_charts,
        runs=[
            RunView(
                row=row,
                sections=describe(record),
                windows=_windows(record) if with_charts else None,
                convergence=_implausible_curve(record, row, boards) if with_charts else None,
            )
            for record, row in zip(records[:MOST_DETAILED], rows, strict=False)
        ],
        runs_omitted=max(0, len(records) - MOST_DETAILED),
        title=rows[0].label if len(rows) == 1 else phrase("Training report"),
        index=index,
        record_file=record_file,
    )


def render_leaderboard(
    boards: Sequence[Board],
    *,
    language: Language,
    problems: Sequence[UnshownRecord] = (),
    copies: int = 0,
    csv_file: str | None = None,
    user_templates: Path | None = None,
) -> str:
    """Return the page that lists all runs, from the user's or core's ``leaderboard.html.j2``.

    ``copies`` counts the omitted records that are equal to another one, and ``csv_file`` is a link to the values of all
    runs. The other arguments are those of :func:`render_runs`.
    """
    rows, trends = [row for board in boards for row in board.rows], _trends(boards)
    return _render(
        ["leaderboard"],
        boards,
        language=language,
        user_templates=user_templates,
        title=phrase("Training leaderboard"),
        problems=problems,
        copies=copies,
        csv_file=csv_file,
        trends=[_trend_view(*each) for each in trends[:_MOST_TRENDS]],
        trends_omitted=max(0, len(trends) - _MOST_TRENDS),
        filters={
            "vendor": sorted({row.vendor for row in rows}),
            "case": sorted({board.key.case for board in boards}),
            "topology": sorted(
                {row.topology for row in rows}, key=lambda label: [int(part) for part in label.split("x")]
            ),
            "precision": sorted({row.precision for row in rows}),
        },
    )


def render_texts(
    template: str,
    title: Phrase,
    parts: Sequence[tuple[Phrase, Sequence[Phrase]]],
    *,
    language: Language,
    **more: Any,
) -> str:
    """Return a page of core's ``template`` with lists of texts under headings, in all languages."""
    return _render([template], [], language=language, user_templates=None, title=title, parts=parts, **more)


def _banner(boards: Iterable[Board]) -> Markup:
    rows = [row for board in boards for row in board.rows]
    banner = Markup("")
    simulated, sample = [row.key.kind == "simulated" for row in rows], [row.key.sample for row in rows]
    for marked, texts in ((simulated, _SIMULATED), (sample, _SAMPLE)):
        if any(marked):
            of_all, of_some = texts
            text = _in_each_language(of_all if all(marked) else of_some)
            banner += Markup('<p class="banner">{}</p>').format(text)
    return banner


def _board_view(board: Board, *, with_charts: bool) -> BoardView:
    drawn = tuple(row for row in board.rows if row.curve or any(row.throughputs))[:_MOST_CHARTED] if with_charts else ()
    fastest = max((rate for row in drawn for rate in row.throughputs if rate), default=1.0)

    def bars(row: RunRow) -> tuple[Bar, ...]:
        texts = {heading.name: cell.text for heading, cell in zip(board.columns, row.cells, strict=True)}
        rates = zip(RATES, row.throughputs, strict=True)
        return tuple(Bar(each.key, texts[each.key], rate / fastest) for each, rate in rates if rate)

    charted = tuple(ChartedRun(row, bars(row)) for row in drawn)
    return BoardView(board=board, charted=charted, convergence=_convergence(board, [row.curve for row in drawn]))


def _implausible_curve(record: Record, row: RunRow, boards: Iterable[Board]) -> Chart | None:
    """Return the curve of a run that no board draws because it is implausible."""
    if not row.implausible or record.status.state != "completed":
        return None
    board = next(board for board in boards if board.key == row.key)
    return _convergence(board, [curve_of(record)])


def _convergence(board: Board, curves: Sequence[Sequence[tuple[float, float]]]) -> Chart | None:
    percent = board.quality_as_percent
    if not any(curves):
        return None
    targets = [quality(target, as_percent=percent) for target in board.targets]
    column = f"{board.quality_column} (%)" if percent else board.quality_column
    return Chart(
        title=phrase("Convergence: %(column)s over epochs", column=column),
        note=phrase("; dotted: target %(targets)s", targets=targets) if targets else "",
        picture=charts.draw_convergence(curves, board.targets, column, as_percent=percent)
        if has_matplotlib()
        else None,
    )


def _trends(boards: Sequence[Board]) -> list[tuple[Board, Trend]]:
    """Return the trends of all boards, those with a step first."""
    found = [(board, trend) for board in boards for trend in find_trends(board)]
    return sorted(found, key=lambda each: each[1].steps == 0)


def _trend_view(board: Board, trend: Trend) -> TrendView:
    oldest = len(trend.points) - _MOST_POINTS
    shown = [point for place, point in enumerate(trend.points) if point.steps or place >= oldest]
    picture = None
    if has_matplotlib():
        picture = charts.draw_trend(
            [point.measured.created for point in trend.points],
            [point.run.throughputs for point in trend.points],
            [point.directions for point in trend.points],
        )
    title = phrase("Throughput over time, %(samples)s", samples=board.samples)
    return TrendView(
        board=board,
        trend=trend,
        # The newest is read first.
        points=tuple(reversed(shown)),
        omitted=len(trend.points) - len(shown),
        chart=Chart(title=title, note=phrase("; triangles: steps"), picture=picture),
    )


def _windows(record: Record) -> Chart | None:
    throughput = record.metrics.p_train
    if record.status.state != "completed" or not isinstance(throughput, Throughput):
        return None
    windows = throughput.timed_windows
    if len(windows) < 2:
        return None
    title = phrase("p_train of %(count)s measurement windows over steps", count=len(windows))
    return Chart(title=title, picture=charts.draw_windows(windows) if has_matplotlib() else None)


def _render(
    names: Sequence[str],
    boards: Sequence[Board],
    *,
    language: Language,
    user_templates: Path | None,
    vendor_templates: Path | None = None,
    with_charts: bool = True,
    **variables: Any,
) -> str:
    environment = _environment(templating.checked_directory(user_templates, _SUFFIX), vendor_templates)
    environment.foreign.clear()
    banner, views = _banner(boards), [_board_view(board, with_charts=with_charts) for board in boards]
    documented = "docs/site.md lists what a template can use"
    with templating.naming_broken_templates(_SUFFIX, documented=documented):
        template = environment.select_template(templating.template_names(names, _SUFFIX))
        variables |= {"language": language, "banner": banner, "boards": views, "with_charts": with_charts}
        page = "".join(templating.generate(template, variables))
    if not _TITLE_BLOCKS.isdisjoint(template.blocks):
        raise PerfError(
            f"template {template.filename} has a block title_zh or title_en, which a page no longer has",
            hint="write {% set title = both('中文', 'English') %} instead",
        )
    if banner not in page:
        raise PerfError(
            f"template {template.filename} does not say that results are simulated or of a sample dataset",
            hint="write {{ banner }} at the start of the page",
        )
    if environment.foreign:
        names = ", ".join(sorted(environment.foreign))
        others = phrase("Not only chipperf's own templates made this page, but also: %(names)s.", names=names)
        content, _, after = page.partition("</body>")
        page = f'{content}<p class="absent">{_in_each_language(others)}</p>\n</body>{after}'
    return page


@lru_cache(maxsize=16)
def _environment(user_templates: Path | None, vendor_templates: Path | None) -> templating.SandboxedTemplates:
    environment = templating.SandboxedTemplates(user_templates, vendor_templates, finalize=_finalize)
    web = templating.CORE_TEMPLATES / "web"
    style, script = ((web / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    environment.globals |= {
        "languages": LANGUAGES,
        "gettext": phrase,
        "pgettext": lambda context, english, /, **values: Phrase(english, tuple(values.items()), context),
        "both": lambda zh, en: Title(zh=zh, en=en),
        "conditions": CONDITIONS,
        "throughputs": [column.name for column in RATES],
        "software": list(SOFTWARE.values()),
        "verdicts": VERDICTS,
        "version": chipperf.__version__,
        "style": Markup(style),
        "script": Markup(script),
        # The browser runs only this script, even if a name in a record contains another.
        "script_hash": f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}",
        "dash": charts.dash,
        "series": charts.SERIES,
    }
    environment.filters |= {"number": number, "in_language": in_language, "stored": _stored}
    return environment


def _finalize(value: Any) -> Any:
    return _in_each_language(value) if isinstance(value, _TRANSLATABLE) else value


def _stored(text: Phrase | str) -> Phrase | Stored:
    return Stored(text) if isinstance(text, str) else text


def _in_each_language(text: object) -> Markup:
    """Return a text in one element for each language, or as plain text if it is the same in all languages."""
    # Most texts are headings, the same on every page. Of equal texts a template may have marked one as HTML.
    if isinstance(text, Phrase) and not text.values and type(text.english) is str:
        return _heading(text)
    return _elements(text)


@lru_cache(maxsize=1024)
def _heading(text: Phrase) -> Markup:
    return _elements(text)


def _elements(text: object) -> Markup:
    texts = {language: _escaped(text, language) for language in LANGUAGES}
    if len(set(texts.values())) == 1:
        return texts[ENGLISH]
    return Markup("".join(f'<span lang="{language}">{escaped}</span>' for language, escaped in texts.items()))


def _escaped(text: object, language: Language) -> Markup:
    if isinstance(text, Phrase):
        found = read_translation(language).find(text.english, text.context)
        return escape(found) % {name: _escaped(value, language) for name, value in text.values}
    return escape(text if isinstance(text, str) else in_language(text, language))
