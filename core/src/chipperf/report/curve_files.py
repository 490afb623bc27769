"""The files of convergence curves: their points, their picture, and the links to both."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote, unquote

from pydantic import AfterValidator

from chipperf.documents.format import csv_table, quality
from chipperf.languages import ENGLISH, LANGUAGES, Language, Phrase, in_language, phrase, read_translation
from chipperf.records.schema import Missing, StrictModel
from chipperf.report import figures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    from chipperf.cases.base import ReportProfile
    from chipperf.report.curves import Curve, Curves

_LONGEST_METRIC = 40
_PICTURE_FORMATS: tuple[figures.PictureFormat, ...] = ("png", "svg")

_WIDTH_INCHES = 7.2
_PLOT_HEIGHT_INCHES = 4.0
_LEGEND_LINE_INCHES = 0.2
_MARKED_POINTS = 40
"""Curves with more points have no markers."""
_DENSE_POINTS = 500
"""Curves with more points are thin and translucent, so that their noise does not hide other curves."""
_LONGEST_NAME = 40

_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
"""The colors of Okabe and Ito that are legible on white. They are distinguishable with any kind of color vision."""
_BASELINE_STYLES = ("--", ":")
_STYLES = ("-", "-.")

_PLACES: Mapping[str, Phrase] = {
    "epoch": phrase("epoch", context="picture"),
    "step": phrase("optimizer step", context="picture"),
    "s": phrase("training time (s)", context="picture"),
    "min": phrase("training time (min)", context="picture"),
    "h": phrase("training time (h)", context="picture"),
}


def is_plain_name(name: str) -> bool:
    """Return whether this can only be the name of a file in the same directory."""
    return name not in ("", ".", "..") and not set(name) & set("/\\\0")


def is_plain_link(link: str) -> bool:
    """Return whether a link leads to a file in the same directory."""
    name = unquote(link)
    return is_plain_name(name) and quote(name) == link


def _checked(is_valid: Callable[[str], bool], fault: str) -> AfterValidator:
    def check(text: str) -> str:
        if not is_valid(text):
            raise ValueError(fault)
        return text

    return AfterValidator(check)


PlainName = Annotated[str, _checked(is_plain_name, "not the name of a file in the same directory")]
PlainLink = Annotated[str, _checked(is_plain_link, "not a link to a file in the same directory")]
KnownLanguage = Annotated[str, _checked(lambda language: language in LANGUAGES, "not a language of reports")]


class CurveFiles(StrictModel):
    """Links to the files of the curves, next to the report: points and picture. The names are percent-encoded.

    Attributes:
        language: Language of the texts in the picture. It differs from the report's if no font can write that.
        unwritten: Curves whose name no font can write. The picture shows only their number.
    """

    csv: PlainLink
    png: PlainLink | None = None
    svg: PlainLink | None = None
    language: KnownLanguage | None = None
    unwritten: tuple[int, ...] = ()

    @property
    def names(self) -> list[str]:
        """The names of the linked files."""
        return [unquote(link) for link in (self.csv, self.png, self.svg) if link]


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePicture:
    """A picture of curves, in memory, in every requested format; see :class:`CurveFiles` for the other attributes."""

    files: Mapping[figures.PictureFormat, bytes]
    language: Language
    unwritten: tuple[int, ...]


def make_curve_files(
    curves: Curves, profile: ReportProfile, language: Language, report: Path
) -> tuple[CurveFiles, dict[str, bytes]]:
    """Return the links and, by name, the files to write next to a report: points, and a picture with matplotlib."""
    stem = _stem(report, profile.quality_column)
    files = {f"{stem}.csv": points_csv(curves).encode()}
    if not figures.has_matplotlib():
        return CurveFiles(csv=quote(f"{stem}.csv")), files
    picture = draw_curves(curves, profile, language, _PICTURE_FORMATS)
    files |= {f"{stem}.{kind}": content for kind, content in picture.files.items()}
    csv_link, png, svg = map(quote, files)
    links = CurveFiles(csv=csv_link, png=png, svg=svg, language=picture.language, unwritten=picture.unwritten)
    return links, files


def points_csv(curves: Curves) -> str:
    """Return every point of every run as CSV with a header line. Qualities are fractions."""
    columns = ("curve", "name", "baseline", "run", "seed", "epoch", "step", "elapsed_s", curves.quantity)
    rows = []
    for curve in curves.curves:
        for run in curve.runs:
            seed = "" if isinstance(run.record.seed, Missing) else run.record.seed
            first = (curve.number, curve.name, "yes" if curve.baseline else "no", run.record.run_id, seed)
            for point in run.points:
                values = (*first, point.epoch, point.step, point.elapsed_s, point.value)
                rows.append(dict(zip(columns, values, strict=True)))
    return csv_table(columns, rows)


def _stem(report: Path, metric: str) -> str:
    """Return the files' name without its ending: ``mAP`` for ``README.md``; others, which may lie beside it, differ."""
    # The metric's name becomes part of a path, and a plugin's case can use any characters in it.
    name = re.sub(r"[^\w-]+", "_", metric)[:_LONGEST_METRIC]
    return name if report.name == "README.md" else f"{report.stem}-{name}"


def draw_curves(
    curves: Curves, profile: ReportProfile, language: Language, formats: Iterable[figures.PictureFormat]
) -> CurvePicture:
    """Draw curves, with texts in a language if there is a font for it; needs matplotlib.

    A curve of several runs has a thin line for each run. Where all of them have a point, it also has their median and a
    band from the lowest to the highest value.
    """
    fonts = figures.find_fonts()
    if not figures.can_write("".join(read_translation(language).spellings("picture")), fonts):
        language = ENGLISH
    unwritten = tuple(curve.number for curve in curves.curves if not figures.can_write(_short(curve.name), fonts))
    with figures.drawing_style(fonts):
        figure = _draw(curves, profile, language, fonts, unwritten)
        files = {picture_format: figures.picture_bytes(figure, picture_format) for picture_format in formats}
    return CurvePicture(files=files, language=language, unwritten=unwritten)


def time_unit(seconds: float) -> tuple[str, float]:
    """Return a unit in which a time is easy to read, and the seconds in this unit."""
    return next(((name, size) for name, size in (("h", 3600.0), ("min", 60.0)) if seconds >= 2 * size), ("s", 1.0))


def _draw(
    curves: Curves, profile: ReportProfile, language: Language, fonts: Sequence[str], unwritten: Sequence[int]
) -> Figure:
    from matplotlib.ticker import MaxNLocator

    entries = len(curves.curves) + len(curves.targets)
    figure = figures.make_figure(_WIDTH_INCHES, _PLOT_HEIGHT_INCHES + _LEGEND_LINE_INCHES * entries)
    axes = figure.subplots()
    unit: str = curves.axis
    unit_size = 1.0
    if curves.axis == "time":
        unit, unit_size = time_unit(max(curve.last_place for curve in curves.curves))
    percent = curves.quantity == "quality" and profile.quality_as_percent
    scale = 100.0 if percent else 1.0
    lines = [_draw_curve(axes, curve, curves, 1 / unit_size, scale) for curve in curves.curves]
    labels: list[Phrase] = [_label(curve, named=curve.number not in unwritten) for curve in curves.curves]
    for target in curves.targets:
        lines.append(axes.axhline(target * scale, color="0.4", linestyle=(0, (1, 1)), linewidth=1.2))
        shown = quality(target, as_percent=percent)
        labels.append(phrase("target %(target)s", context="picture", target=shown))
    axes.set_xlabel(in_language(_PLACES[unit], language))
    column = profile.quality_column if figures.can_write(profile.quality_column, fonts) else "quality"
    if curves.quantity == "loss":
        axes.set_ylabel(in_language(phrase("training loss", context="picture"), language))
    else:
        axes.set_ylabel(f"{column} (%)" if percent else column)
    axes.set_title(_title(curves, language, fonts), fontsize="medium")
    axes.grid(visible=True, color="0.9")
    axes.set_axisbelow(True)
    if curves.axis != "time":
        axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))
    texts = [in_language(label, language) for label in labels]
    figure.legend(lines, texts, loc="outside lower center", fontsize="small", frameon=False)
    return figure


def _draw_curve(axes: Axes, curve: Curve, curves: Curves, place_scale: float, value_scale: float) -> Line2D:
    """Draw one curve and return its line for the legend."""
    repeat, color = divmod(curve.number - 1, len(_COLORS))
    styles = _BASELINE_STYLES if curve.baseline else _STYLES
    look: dict[str, Any] = {"color": _COLORS[color], "linestyle": styles[repeat % len(styles)]}
    dense = curve.points > _DENSE_POINTS
    main: dict[str, Any] = {
        "linewidth": 0.7 if dense else 1.5,
        "alpha": 0.6 if dense else 1.0,
        "marker": "o" if curve.points <= _MARKED_POINTS else "",
        "markersize": 3,
    }
    single = len(curve.runs) == 1
    details: dict[str, Any] = main if single else {"linewidth": 0.5, "alpha": 0.6}
    lines: list[Line2D] = []
    for run in curve.runs:
        line = run.line(curves.axis)
        places = [place * place_scale for place, _ in line]
        lines += axes.plot(places, [value * value_scale for _, value in line], **look, **details)
    if single:
        return lines[0]
    places = [position.place * place_scale for position in curve.positions]
    low = [position.low * value_scale for position in curve.positions]
    median = [position.median * value_scale for position in curve.positions]
    high = [position.high * value_scale for position in curve.positions]
    axes.fill_between(places, low, high, color=look["color"], alpha=0.2, linewidth=0)
    return axes.plot(places, median, **look, **main)[0]


def _label(curve: Curve, *, named: bool) -> Phrase:
    # The number comes first: it refers to the text, and matplotlib leaves out labels that start with an underscore.
    name: Phrase | str = f"{curve.number}: {_short(curve.name)}" if named else str(curve.number)
    if curve.baseline:
        name = phrase("%(curve)s, baseline", context="picture", curve=name)
    if not curve.finished:
        name = phrase("%(curve)s, not completed", context="picture", curve=name)
    count = len(curve.runs)
    if count == 1:
        return phrase("%(curve)s (1 run)", context="picture", curve=name)
    if curve.positions:
        return phrase(
            "%(curve)s (%(count)s runs: median, lowest to highest)", context="picture", curve=name, count=count
        )
    return phrase("%(curve)s (%(count)s runs)", context="picture", curve=name, count=count)


def _title(curves: Curves, language: Language, fonts: Sequence[str]) -> str:
    """Return a title with the case and dataset, and the marks of sample or simulated data, for use without a report."""
    records = [run.record for curve in curves.curves for run in curve.runs]
    dataset = records[0].dataset
    parts = [_short(text) for text in (records[0].case.name, dataset.name) if figures.can_write(_short(text), fonts)]
    if dataset.is_sample:
        parts.append(in_language(phrase("sample dataset", context="picture"), language))
    if any(record.kind == "simulated" for record in records):
        parts.append(in_language(phrase("simulated", context="picture"), language))
    return ", ".join(parts)


def _short(name: str) -> str:
    """Return a name as one line that fits into the picture."""
    name = re.sub(r"\s+", " ", name).strip()
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
