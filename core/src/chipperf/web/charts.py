"""Charts for the pages, drawn by matplotlib as SVG with the colors of the page.

A chart contains numbers and names that are the same in all languages. The page's text explains them, because it has all
languages. Colors are CSS variables, so that one picture works on light and dark pages.
"""

from __future__ import annotations

import re
import statistics
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from chipperf.report.figures import can_write, drawing_style, find_fonts, picture_bytes
from chipperf.web.trend_inputs import RATES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from chipperf.records.schema import Window

SERIES = 6
"""Number of colors of curves in the page's style. Further curves reuse them with another dash."""
DASHES = ("solid", "dashed", "dotted")
MOST_POINTS = 400
"""Largest number of points of a line. A line with more points is drawn from medians of neighboring points."""

_WIDTH_INCHES, _HEIGHT_INCHES = 5.0, 3.0
_NUMBER_WIDTH_POINTS, _NUMBER_HEIGHT_POINTS = 12.0, 9.0
"""Room that the number of a curve takes."""
_SHORT_TREND = timedelta(days=3)
"""A shorter trend has times of day on its axis."""
_LINE_STYLES: dict[str, Any] = {"solid": "-", "dashed": (0, (5, 2)), "dotted": (0, (1, 1.5))}

# matplotlib does not support CSS variables, so these otherwise unused colors are replaced in the file.
_INK, _GRID = "#fe0001", "#fe0002"
_VARIABLES = {_INK: "--ink-soft", _GRID: "--line"} | {
    f"#fe01{number:02x}": f"--series-{number}" for number in range(1, SERIES + 1)
}


def draw_convergence(
    curves: Sequence[Sequence[tuple[float, float]]], targets: Sequence[float], quality_column: str, *, as_percent: bool
) -> Markup:
    """Draw quality over epochs, and the targets as horizontal lines; needs matplotlib.

    Curves are numbered from 1. A curve without points has a number but is not drawn. ``quality_column`` is the title of
    its axis.
    """
    scale = 100.0 if as_percent else 1.0
    with _axes("epoch", quality_column) as (figure, axes):
        ends = {}
        for index, curve in enumerate(curves):
            if curve:
                points = [(epoch, value * scale) for epoch, value in curve]
                ends[index] = _draw_line(axes, points, index, linewidth=1.8)[-1]
        for target in targets:
            axes.axhline(target * scale, color=_INK, linestyle=(0, (1, 1)), linewidth=1.2)
        axes.margins(x=0.06)
        _number(axes, ends)
        return _svg(figure)


def draw_windows(windows: Sequence[Window]) -> Markup:
    """Draw the throughput of measurement windows over optimizer steps; needs matplotlib."""
    with _axes("step", "p_train") as (figure, axes):
        _draw_line(axes, [(float(each.first_step), each.samples_per_s) for each in windows], 0, linewidth=1.4)
        axes.set_ylim(bottom=0)
        return _svg(figure)


def draw_trend(
    times: Sequence[datetime], rows: Sequence[Sequence[float | None]], steps: Sequence[Sequence[str]]
) -> Markup:
    """Draw throughputs over time, with a triangle at each step; needs matplotlib.

    Args:
        times: Time of each run, in ascending order.
        rows: Throughputs of each run; ``None`` is left out.
        steps: For each run and throughput ``higher``, ``lower``, or an empty text.
    """
    from matplotlib.dates import AutoDateLocator, DateFormatter, date2num

    form = "%m-%d %H:%M" if times[-1] - times[0] < _SHORT_TREND else "%Y-%m-%d"
    places = [float(each) for each in date2num(times)]  # type: ignore[no-untyped-call]
    with _axes("UTC", ", ".join(column.key for column in RATES)) as (figure, axes):
        for measure, series in enumerate(zip(*rows, strict=True)):
            points = zip(places, series, steps, strict=True)
            known = [(place, rate, step[measure]) for place, rate, step in points if rate]
            if not known:
                continue
            _draw_line(axes, [(place, rate) for place, rate, _ in known], measure, linewidth=1.4)
            for place, rate, step in known:
                if step:
                    marker = "^" if step == "higher" else "v"
                    axes.plot([place], [rate], color=_series(measure), marker=marker, markersize=9)
        axes.xaxis.set_major_locator(AutoDateLocator(minticks=2, maxticks=5))  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_formatter(DateFormatter(form))  # type: ignore[no-untyped-call]
        axes.margins(x=0.06)
        # A triangle at the highest point fits below the edge.
        axes.set_ylim(0, 1.08 * max((rate for row in rows for rate in row if rate), default=1))
        return _svg(figure)


def dash(index: int) -> str:
    """Return the dash of a curve in CSS. ``index`` counts from 0."""
    return DASHES[index // SERIES % len(DASHES)]


def _series(index: int) -> str:
    return f"#fe01{index % SERIES + 1:02x}"


def _draw_line(
    axes: Axes, points: Sequence[tuple[float, float]], index: int, *, linewidth: float
) -> Sequence[tuple[float, float]]:
    """Draw a line with the color and dash of its index, and return its points."""
    if len(points) > MOST_POINTS:
        size = -(-len(points) // MOST_POINTS)
        groups = [points[start : start + size] for start in range(0, len(points), size)]
        points = [(group[0][0], statistics.median(value for _, value in group)) for group in groups]
    axes.plot(
        [place for place, _ in points],
        [value for _, value in points],
        color=_series(index),
        linestyle=_LINE_STYLES[dash(index)],
        linewidth=linewidth,
        marker="o" if len(points) <= 40 else "",
        markersize=3,
    )
    return points


def _number(axes: Axes, ends: Mapping[int, tuple[float, float]]) -> None:
    """Write the number of each curve at its end. Numbers that would cover others evade them towards the middle."""
    # The limits are those of what is drawn only after somebody asked for them.
    middle = statistics.fmean(axes.get_ylim())
    is_high = statistics.fmean(value for _, value in ends.values()) > middle
    points_per_pixel = 72 / axes.figure.dpi
    taken: list[tuple[float, float]] = []
    for index in sorted(ends, key=lambda index: ends[index][1], reverse=is_high):
        across, height = (float(each) * points_per_pixel for each in axes.transData.transform(ends[index]))
        place = height
        for other_across, other in taken:
            if abs(other_across - across) < _NUMBER_WIDTH_POINTS:
                place = (
                    min(place, other - _NUMBER_HEIGHT_POINTS) if is_high else max(place, other + _NUMBER_HEIGHT_POINTS)
                )
        taken.append((across, place))
        axes.annotate(
            str(index + 1),
            ends[index],
            xytext=(4, place - height),
            textcoords="offset points",
            verticalalignment="center",
            color=_series(index),
        )


@contextmanager
def _axes(x_title: str, y_title: str) -> Iterator[tuple[Figure, Axes]]:
    """Return a figure with fixed space for the texts of its axes, because automatic layout takes most of the time.

    The titles are names that are the same in all languages. What is drawn on it is taken off again, so that the next
    chart with the same title below finds it empty.
    """
    import matplotlib

    settings: Any = {
        # The page shows the numbers in its own font. The font of the drawing only determines their width.
        "svg.fonttype": "none",
        "font.size": 9,
        "text.color": _INK,
        "axes.labelcolor": _INK,
        "axes.edgecolor": _GRID,
        "axes.facecolor": "none",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "xtick.color": _INK,
        "ytick.color": _INK,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
        "grid.color": _GRID,
        "figure.facecolor": "none",
    }
    fonts = find_fonts()
    with drawing_style(fonts), matplotlib.rc_context(settings):
        figure, axes = _empty_axes(x_title, fonts)
        axes.set_ylabel(y_title if can_write(y_title, fonts) else "")
        try:
            yield figure, axes
        finally:
            for kept in ("lines", "texts"):
                for artist in tuple(getattr(axes, kept)):
                    artist.remove()
            axes.relim()
            axes.autoscale()


@lru_cache(maxsize=32)
def _empty_axes(x_title: str, fonts: tuple[str, ...]) -> tuple[Figure, Axes]:
    """Return the axes of one kind of chart. They keep their ticks, whose making takes half of the time of a picture."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH_INCHES, _HEIGHT_INCHES))
    axes = figure.add_axes((0.16, 0.155, 0.81, 0.81))
    axes.set_xlabel(x_title)
    axes.grid(visible=True)
    axes.set_axisbelow(True)
    axes.ticklabel_format(useOffset=False)
    # At fixed places, because finding where the titles fit takes long.
    axes.xaxis.set_label_coords(0.5, -0.1)
    axes.yaxis.set_label_coords(-0.14, 0.5)
    return figure, axes


def _svg(figure: Figure) -> Markup:
    """Return a figure as an SVG element without ids that another picture on the page might have."""
    text = picture_bytes(figure, "svg").decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<defs>\s*<style.*?</defs>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"<g id=\"[^\"]*\">", "<g>", text)
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)
    mark = sha256(text.encode()).hexdigest()[:8]
    text = re.sub(r"(id=\"|url\(#|href=\"#)", rf"\g<1>{mark}-", text)
    text = re.sub(r" width=\"[^\"]*\" height=\"[^\"]*\"", ' aria-hidden="true" focusable="false"', text, count=1)
    text = re.sub(r"#fe0[01][0-9a-f]{2}", lambda found: f"var({_VARIABLES[found[0]]})", text)
    return Markup(re.sub(r"\s*\n\s*", " ", text).strip())
