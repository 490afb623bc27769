"""Rendering pages with Jinja templates: the user's, the vendor's and core's."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

import chipperf
from chipperf.documents.format import number, quality
from chipperf.errors import PerfError, UsageError
from chipperf.records.schema import Throughput
from chipperf.report.figures import has_matplotlib
from chipperf.report.templating import (
    CORE_TEMPLATES,
    checked_directory,
    make_environment,
    naming_broken_templates,
)
from chipperf.web import charts
from chipperf.web.board import COLUMNS, VERDICTS, Board, RunRow, board_key, make_boards
from chipperf.web.details import Section, describe
from chipperf.web.text import Bilingual

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from jinja2 import Environment

    from chipperf.documents.format import Language
    from chipperf.records.schema import Record

MOST_ROWS = 2000
"""Rows of all boards of a page together."""
MOST_DETAILED = 50
"""Runs of which one page shows everything."""
_MOST_BARS = 12

_SUFFIX = ".html.j2"

_SIMULATED = (
    Bilingual(
        "⚠ 模拟数据（simulated）：本页的数值不是在真实设备上测得的，不代表任何产品的性能。",
        "⚠ Simulated: no number on this page was measured on a real device, and none says anything about a product.",
    ),
    Bilingual(
        "⚠ 本页的部分结果是模拟数据（simulated），不是在真实设备上测得的，不代表任何产品的性能。",
        "⚠ Some results on this page are simulated: not measured on a real device, they say nothing about a product.",
    ),
)
_SAMPLE = (
    Bilingual(
        "⚠ 样例数据集：本页的结果在生成的数据集上得到，不能作为基准成绩。",
        "⚠ Sample dataset: these runs used a generated dataset; the results are no benchmark scores.",
    ),
    Bilingual(
        "⚠ 本页的部分结果在生成的样例数据集上得到，不能作为基准成绩。",
        "⚠ Some results on this page are of a generated sample dataset; those are no benchmark scores.",
    ),
)
"""What a page says if all of its results are such, and if some are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A picture, what it shows, and the runs whose numbers are in it; no picture without matplotlib."""

    title: Bilingual
    note: Bilingual
    picture: Markup | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardView:
    """A board with its charts; ``charted`` are the runs that the numbers in the charts stand for."""

    board: Board
    charted: tuple[RunRow, ...]
    convergence: Chart | None
    throughput: Chart | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """Everything a record says."""

    row: RunRow
    sections: tuple[Section, ...]
    windows: Chart | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A record that could not be shown: its place, and why."""

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
    with_charts: bool = True,
) -> str:
    """Return the page of one run or of several, with everything their records say.

    In the user's directory, then the vendor's, then core's, ``CASE.html.j2`` is looked for before ``report.html.j2``.

    Args:
        records: At least one; of any vendors and cases.
        rows: The row of each of them.
        language: Language that the page shows first.
        user_templates: Directory whose templates come first.
        vendor_templates: Directory of the vendor plugin's templates.
        index: Link to the page that lists this one.
        with_charts: False leaves the charts out.

    Raises:
        UsageError: There are no records, or a directory does not exist.
        PerfError: A template is broken; names the template and what is wrong.
    """
    if not records:
        raise UsageError("there are no records to report", hint="name one run directory or more")
    boards = make_boards(
        ((board_key(record), row) for record, row in zip(records, rows, strict=True)), most_rows=MOST_ROWS
    )
    cases = {record.case.name for record in records}
    names = (*cases, "report") if len(cases) == 1 else ("report",)
    shown = zip(records[:MOST_DETAILED], rows, strict=False)
    return _render(
        names,
        language=language,
        user_templates=user_templates,
        vendor_templates=vendor_templates,
        boards=[_board_view(board, with_charts=with_charts) for board in boards],
        runs=[
            RunView(row=row, sections=describe(record), windows=_windows(record) if with_charts else None)
            for record, row in shown
        ],
        runs_omitted=max(0, len(records) - MOST_DETAILED),
        index=index,
        with_charts=with_charts,
        banner=_banner(boards),
    )


def render_leaderboard(
    boards: Sequence[Board],
    *,
    language: Language,
    problems: Sequence[Problem] = (),
    copies: int = 0,
    user_templates: Path | None = None,
) -> str:
    """Return the page that lists all runs; from ``leaderboard.html.j2`` of the user or core.

    Args:
        boards: The runs.
        language: Language that the page shows first.
        problems: What could not be read.
        copies: How many records were left out because another is the same.
        user_templates: Directory whose templates come first.

    Raises:
        UsageError: The directory does not exist.
        PerfError: The template is broken.
    """
    rows = [row for board in boards for row in board.rows]
    return _render(
        ["leaderboard"],
        language=language,
        user_templates=user_templates,
        vendor_templates=None,
        boards=[_board_view(board) for board in boards],
        problems=problems,
        copies=copies,
        filters={
            "vendor": sorted({row.vendor for row in rows}),
            "case": sorted({board.key.case for board in boards}),
            "topology": sorted({row.topology for row in rows}, key=_by_numbers),
            "precision": sorted({row.precision for row in rows}),
        },
        banner=_banner(boards),
    )


def _by_numbers(label: str) -> list[int]:
    return [int(part) for part in label.split("x")]


def _banner(boards: Iterable[Board]) -> Markup:
    """Return what a page says of results that are no measurements of the real thing."""
    rows = [row for board in boards for row in board.rows]
    lines = []
    for marked, texts in (([row.simulated for row in rows], _SIMULATED), ([row.sample for row in rows], _SAMPLE)):
        if any(marked):
            of_all, of_some = texts
            lines.append(of_all if all(marked) else of_some)
    return Markup("").join(Markup('<p class="banner">{}</p>').format(line) for line in lines)


def _board_view(board: Board, *, with_charts: bool = True) -> BoardView:
    drawn = tuple(row for row in board.rows if row.curve or any(row.throughputs))[:_MOST_BARS]
    return BoardView(
        board=board,
        charted=drawn if with_charts else (),
        convergence=_convergence(board, drawn) if with_charts else None,
        throughput=_throughput(board, drawn) if with_charts else None,
    )


def _convergence(board: Board, drawn: Sequence[RunRow]) -> Chart | None:
    if not any(row.curve for row in drawn):
        return None
    column = f"{board.quality_column} (%)" if board.quality_as_percent else board.quality_column
    targets = [quality(target, as_percent=board.quality_as_percent) for target in board.targets]
    lines = f"，点线为目标 {'、'.join(map(str, targets))}", f"; dotted: target {', '.join(map(str, targets))}"
    return Chart(
        title=Bilingual(f"收敛曲线：{column} 随 epoch 的变化", f"Convergence: {column} over epochs"),
        note=Bilingual(*lines) if targets else Bilingual("", ""),
        picture=_drawn(
            lambda: charts.draw_convergence(
                [row.curve for row in drawn], board.targets, as_percent=board.quality_as_percent
            )
        ),
    )


def _throughput(board: Board, drawn: Sequence[RunRow]) -> Chart | None:
    if not any(any(row.throughputs) for row in drawn):
        return None
    return Chart(
        title=Bilingual(f"吞吐量，{board.samples.zh}", f"Throughput, {board.samples.en}"),
        note=Bilingual("", ""),
        picture=_drawn(lambda: charts.draw_throughputs([row.throughputs for row in drawn])),
    )


def _windows(record: Record) -> Chart | None:
    throughput = record.metrics.p_train
    if record.status.state != "completed" or not isinstance(throughput, Throughput):
        return None
    windows = throughput.timed_windows
    if len(windows) < 2:
        return None
    return Chart(
        title=Bilingual(
            f"{len(windows)} 个测量窗口的吞吐量（p_train）随步数的变化",
            f"p_train of {len(windows)} measurement windows over steps",
        ),
        note=Bilingual("", ""),
        picture=_drawn(lambda: charts.draw_windows(windows)),
    )


def _drawn(draw: Callable[[], Markup]) -> Markup | None:
    return draw() if has_matplotlib() else None


def _render(
    names: Sequence[str],
    *,
    language: Language,
    user_templates: Path | None,
    vendor_templates: Path | None,
    banner: Markup,
    **variables: Any,
) -> str:
    environment = _environment(checked_directory(user_templates, _SUFFIX), vendor_templates)
    places = [f"{place}/{name}{_SUFFIX}" for place in ("user", "vendor", "core") for name in names]
    with naming_broken_templates(
        _SUFFIX, example="core/report.html.j2", documented="docs/site.md lists what a template can use"
    ):
        template = environment.select_template(places)
        page = template.render(language=language, banner=banner, **variables)
    if banner not in page:
        raise PerfError(
            f"template {template.filename} leaves out that results are simulated or of a sample dataset",
            hint="write {{ banner }} where the page begins",
        )
    return page


@lru_cache(maxsize=16)
def _environment(user_templates: Path | None, vendor_templates: Path | None) -> Environment:
    environment = make_environment(user_templates, vendor_templates)
    style, script = ((CORE_TEMPLATES / "web" / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    environment.globals |= {
        "both": Bilingual,
        "columns": COLUMNS,
        "verdicts": VERDICTS,
        "version": chipperf.__version__,
        "style": Markup(style),
        "script": Markup(script),
        # The browser runs this script and no other, whatever a name in a record looks like.
        "script_hash": f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}",
        "dash": charts.dash,
        "series": charts.SERIES,
        "has_matplotlib": has_matplotlib(),
    }
    environment.filters["number"] = number
    return environment
