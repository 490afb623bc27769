"""The files of convergence curves, picture and points, their names, and the links to them."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote, unquote

from pydantic import AfterValidator

from chipperf.languages import LANGUAGES
from chipperf.records.files import write_atomically
from chipperf.records.schema import Missing, _Model
from chipperf.report.figures import PictureFormat, has_matplotlib

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from chipperf.cases.base import ReportProfile
    from chipperf.languages import Language
    from chipperf.report.curves import Curves

_LONGEST_METRIC = 40
_PICTURE_FORMATS: tuple[PictureFormat, ...] = ("png", "svg")


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


class CurveFiles(_Model):
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
class CurveContent:
    """The files of a report's curves, in memory, and the links to them."""

    links: CurveFiles
    files: Mapping[Path, bytes]

    def write(self) -> None:
        """Write all files."""
        for path, content in self.files.items():
            write_atomically(path, content)

    def files_by_name(self) -> dict[str, bytes]:
        """Return the content of each file by its name."""
        return {path.name: content for path, content in self.files.items()}


def make_curve_files(curves: Curves, profile: ReportProfile, language: Language, report: Path) -> CurveContent:
    """Return the files to write next to a report: points as CSV, and the picture if matplotlib is installed."""
    stem = _stem(report, profile.quality_column)
    points = report.with_name(f"{stem}.csv")
    files = {points: points_csv(curves).encode()}
    if not has_matplotlib():
        return CurveContent(links=CurveFiles(csv=quote(points.name)), files=files)

    from chipperf.report.curve_figure import draw_curves

    picture = draw_curves(curves, profile, language, _PICTURE_FORMATS)
    files |= {report.with_name(f"{stem}.{kind}"): content for kind, content in picture.files.items()}
    csv_link, png, svg = (quote(path.name) for path in files)
    links = CurveFiles(csv=csv_link, png=png, svg=svg, language=picture.language, unwritten=picture.unwritten)
    return CurveContent(links=links, files=files)


def points_csv(curves: Curves) -> str:
    """Return every point of every run as CSV with a header line. Qualities are fractions."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["curve", "name", "baseline", "run", "seed", "epoch", "step", "elapsed_s", curves.quantity])
    for curve in curves.curves:
        for run in curve.runs:
            seed = "" if isinstance(run.record.seed, Missing) else run.record.seed
            first = [curve.number, curve.name, "yes" if curve.baseline else "no", run.record.run_id, seed]
            for point in run.points:
                table.writerow([*first, point.epoch, point.step, point.elapsed_s, point.value])
    return text.getvalue()


def _stem(report: Path, metric: str) -> str:
    """Return the files' name without its ending: for ``README.md``, the metric's name, as in ``mAP.png``.

    For other reports it starts with the report's name, because several reports, for example in several languages, can
    share a directory.
    """
    # The metric's name becomes part of a path, and a plugin's case can use any characters in it.
    name = re.sub(r"[^\w-]+", "_", metric)[:_LONGEST_METRIC]
    return name if report.name == "README.md" else f"{report.stem}-{name}"
