"""The files of convergence curves, picture and points, and their names."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from chipperf.records.files import write_atomically
from chipperf.records.schema import Missing
from chipperf.report.convergence_curves import CurveFiles
from chipperf.report.figures import PictureFormat, has_matplotlib

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from chipperf.cases.base import ReportProfile
    from chipperf.languages import Language
    from chipperf.report.curves import Curves

_LONGEST_METRIC = 40
_PICTURE_FORMATS: tuple[PictureFormat, ...] = ("png", "svg")


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveContent:
    """The files of a report's curves, in memory, and the links to them."""

    links: CurveFiles
    files: Mapping[Path, str | bytes]

    def write(self) -> None:
        """Write all files.

        Raises:
            RecordError: A file cannot be written.
        """
        for path, content in self.files.items():
            write_atomically(path, content)

    def files_by_name(self) -> dict[str, bytes]:
        """Return the content of each file by its name."""
        return {
            path.name: content.encode() if isinstance(content, str) else content for path, content in self.files.items()
        }


def make_curve_files(curves: Curves, profile: ReportProfile, language: Language, report: Path) -> CurveContent:
    """Return the files to write next to a report: points as CSV, and the picture if matplotlib is installed.

    Args:
        curves: The curves.
        profile: Name and format of the case's quality.
        language: Language of the picture, if there is a font for it.
        report: File of the report.
    """
    stem = _stem(report, profile.quality_column)
    paths = {kind: report.with_name(f"{stem}.{kind}") for kind in ("csv", *_PICTURE_FORMATS)}
    links = {kind: quote(path.name) for kind, path in paths.items()}
    files: dict[Path, str | bytes] = {paths["csv"]: points_csv(curves)}
    if not has_matplotlib():
        return CurveContent(links=CurveFiles(csv=links["csv"]), files=files)

    from chipperf.report.curve_figure import draw_curves

    picture = draw_curves(curves, profile, language, _PICTURE_FORMATS)
    return CurveContent(
        links=CurveFiles(
            csv=links["csv"],
            png=links["png"],
            svg=links["svg"],
            language=picture.language,
            unwritten=picture.unwritten,
        ),
        files=files | {paths[kind]: content for kind, content in picture.files.items()},
    )


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
