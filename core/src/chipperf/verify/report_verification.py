"""Verifying a report: find its records, render the page again, and compare."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from chipperf.documents.case_document import read_document
from chipperf.documents.markdown import parse, read_text
from chipperf.errors import PerfError, RecordError
from chipperf.languages import ENGLISH
from chipperf.records.schema import METRICS_VERSION
from chipperf.report.curve_files import CurveFiles, is_plain_link, is_plain_name, points_csv
from chipperf.report.provenance import describe_page, provenance_file, read_provenance
from chipperf.report.render import render_page
from chipperf.report.tracing import read_traced
from chipperf.report.view import build_view
from chipperf.verify.differences import ReportDifference, compare_pages, compare_provenances
from chipperf.verify.named_records import named_by_page, named_by_provenance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from chipperf.documents.markdown import Markdown
    from chipperf.languages import Language
    from chipperf.records.schema import Record
    from chipperf.report.provenance import Provenance
    from chipperf.report.view import ReportView
    from chipperf.verify.named_records import NamedRecord
    from chipperf.verify.records import RecordFinder

_WEB_PAGE: Final = ("<!doctype html", "<html")
_PICTURES: Final = (".png", ".svg")


@dataclass(frozen=True, slots=True)
class Templates:
    """Directories of the templates of a report.

    Attributes:
        user: The user's directory.
        of_vendor: Returns the template directory of the vendor of the given records.
    """

    user: Path | None
    of_vendor: Callable[[Sequence[Record]], Path | None]


@dataclass(slots=True, kw_only=True)
class ReportResult:
    """The result of verifying one report.

    Attributes:
        file: The page.
        with_provenance: True if the records are from its provenance file, False if from the short hashes on the page.
        records: Files of the records by run.
        cells: Number of cells and facts on the page that come from a record.
        differences: Differences from the records.
        notes: Notes for the reader.
    """

    file: Path
    with_provenance: bool = False
    records: dict[str, Path] = field(default_factory=dict)
    cells: int = 0
    differences: list[ReportDifference] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Expected:
    """The page rendered from the records, and its provenance."""

    text: str
    provenance: Provenance


def verify_report(
    path: Path, finder: RecordFinder, templates: Templates, *, baseline: Sequence[Path] = ()
) -> ReportResult:
    """Render a report again from its records, and compare.

    Args:
        path: The page. Its provenance file must be in the same directory.
        finder: Finds the records.
        templates: Directories of templates.
        baseline: Runs whose curves the page shows. Used if the page has no provenance.

    Raises:
        DocumentError: The page cannot be read.
        UsageError: A template directory does not exist.
        RecordError: A record of ``baseline`` cannot be read.
        PerfError: A template is broken.
    """
    text = read_text(path).replace("\r\n", "\n")
    result = ReportResult(file=path)
    if text.lstrip().casefold().startswith(_WEB_PAGE):
        message = "a web page cannot be verified: give a Markdown report, as 'perf report --out README.md' writes it"
        result.differences.append(ReportDifference(kind="page", file=str(path), message=message))
        return result
    if not text.endswith("\n"):
        text += "\n"
    page = parse(text, str(path))
    provenance = _provenance(path, result)
    named = named_by_provenance(provenance) if provenance else named_by_page(page)
    if not named:
        message = "the page names no record by its hash: it is not a report of chipperf, or its evidence was removed"
        result.differences.append(ReportDifference(kind="page", file=str(path), message=message))
        return result
    found = [_find(each, path, finder, result) for each in named]
    records = [record for record in found if record]
    if len(records) < len(named):
        result.notes.append("not compared with the records: some cannot be used")
        return result
    is_baseline = {id(record): each.is_baseline for each, record in zip(named, records, strict=True)}
    reported = [record for record in records if not is_baseline[id(record)]]
    baselines = [record for record in records if is_baseline[id(record)]]
    if provenance is None:
        baselines += [read_traced(run) for run in baseline]
    try:
        view = build_view(reported, baseline=baselines)
    except PerfError as error:
        result.differences.append(ReportDifference(kind="page", file=str(path), message=error.message))
        return result
    _compare(text, page, view, (reported, baselines), provenance, templates, result)
    return result


def _provenance(path: Path, result: ReportResult) -> Provenance | None:
    file = provenance_file(path)
    try:
        provenance = read_provenance(file)
    except FileNotFoundError:
        result.notes.append(f"there is no {file.name}: the records were found by the short hashes on the page")
        return None
    except RecordError as error:
        message = error.message.removeprefix(f"{file}: ")
        result.differences.append(ReportDifference(kind="provenance", file=str(file), message=message))
        return None
    result.with_provenance = True
    return provenance


def _find(named: NamedRecord, path: Path, finder: RecordFinder, result: ReportResult) -> Record | None:
    """Return the record that a report names or, if it was edited, the record of the same run."""
    file = finder.by_digest(named.digest) if named.digest else None
    if file is None:
        file = finder.by_run(named.run_id)
        if file is None:
            _add_record_difference(result, named, path, f"there is no record of {named}")
            return None
        if named.digest:
            message = f"the record was edited: {file} differs from the record of {named}"
            _add_record_difference(result, named, path, message)
    try:
        record = read_traced(file)
    except RecordError as error:
        result.differences.append(ReportDifference(kind="record", file=str(file), message=error.message))
        return None
    version = record.metrics_version
    if version != METRICS_VERSION:
        message = f"metrics version {version} of {named}; this chipperf reports version {METRICS_VERSION}"
        result.differences.append(ReportDifference(kind="record", file=str(file), message=message))
        return None
    result.records[record.run_id] = file
    return record


def _add_record_difference(result: ReportResult, named: NamedRecord, path: Path, message: str) -> None:
    line, column = (named.place.line, named.place.column) if named.place else (0, 0)
    file = path if named.place else provenance_file(path)
    result.differences.append(
        ReportDifference(kind="record", file=str(file), message=message, line=line, column=column)
    )


def _compare(
    text: str,
    page: Markdown,
    view: ReportView,
    records: tuple[Sequence[Record], Sequence[Record]],
    provenance: Provenance | None,
    templates: Templates,
    result: ReportResult,
) -> None:
    name = str(result.file)
    language = provenance.language if provenance else read_document(text, name).language
    vendor_templates = templates.of_vendor(records[0])

    def expected(curve: CurveFiles | None) -> _Expected:
        shown = view
        if view.convergence:
            shown = replace(view, convergence=replace(view.convergence, files=curve))
        rendered = render_page(
            shown, language=language, user_templates=templates.user, vendor_templates=vendor_templates
        )
        # Only the points depend on the records alone; pictures also depend on matplotlib and fonts.
        points = points_csv(view.convergence.curves).encode() if view.convergence else b""
        described = describe_page(
            rendered,
            language=language,
            records=records[0],
            baseline=records[1],
            curve=curve,
            files={unquote(curve.csv): points} if curve else {},
        )
        return _Expected(rendered.text, described)

    best: tuple[list[ReportDifference], _Expected] | None = None
    for curve in _possible_curves(page, view, language, provenance):
        candidate = expected(curve)
        differences = compare_pages(text, candidate.text, candidate.provenance, name)
        if best is None or len(differences) < len(best[0]):
            best = differences, candidate
    if best is None:
        return
    differences, chosen = best
    result.cells = len(chosen.provenance.cells)
    result.differences += differences
    if provenance:
        file = str(provenance_file(result.file))
        of_provenance = list(compare_provenances(provenance, chosen.provenance, file))
        result.differences += _first_of(of_provenance) if differences else of_provenance
        if differences and provenance.template != chosen.provenance.template:
            result.notes.append(
                f"the page was rendered with the template {provenance.template}, but compared with "
                f"{chosen.provenance.template}: name the directory with --templates, or install the vendor's plugin"
            )
    result.differences += _linked_files(view, page, provenance, result.file)
    if provenance is None and any(name.endswith(_PICTURES) for name in _linked_names(page)):
        result.notes.append("the pictures were not checked: only the provenance has their checksums")


def _first_of(differences: list[ReportDifference]) -> list[ReportDifference]:
    """Return the first difference with the number of the others, which repeat the differences of the page."""
    first, more = differences[:1], len(differences) - 1
    return [replace(each, message=f"{each.message}, and {more} more") for each in first] if more > 0 else first


def _possible_curves(
    page: Markdown, view: ReportView, language: Language, provenance: Provenance | None
) -> Iterator[CurveFiles | None]:
    """Yield the possible files of the page's curves. Records do not contain these names, a provenance does."""
    if view.convergence is None:
        yield None
    elif provenance:
        curve = provenance.curve
        yield (
            None
            if curve is None
            else CurveFiles(
                csv=curve.csv,
                png=curve.png,
                svg=curve.svg,
                language=curve.language,
                unwritten=tuple(curve.unwritten),
            )
        )
    else:
        links = {PurePath(link.target).suffix: link.target for link in page.links if is_plain_link(link.target)}
        if ".csv" not in links:
            yield None
            return
        drawn = ".png" in links
        languages: tuple[Language | None, ...] = (language, ENGLISH) if drawn and language != ENGLISH else (language,)
        for written in languages if drawn else (None,):
            yield CurveFiles(csv=links[".csv"], png=links.get(".png"), svg=links.get(".svg"), language=written)


def _linked_files(
    view: ReportView, page: Markdown, provenance: Provenance | None, path: Path
) -> Iterator[ReportDifference]:
    """Yield linked files that were changed. Files of points are made again, pictures are compared by their digest."""
    digests: dict[str, str | None] = dict.fromkeys(_linked_names(page))
    if provenance:
        digests |= {file.name: file.sha256 for file in provenance.files}
    points = [name for name in digests if name.endswith(".csv")]
    if view.convergence:
        digests |= dict.fromkeys(points, hashlib.sha256(points_csv(view.convergence.curves).encode()).hexdigest())
    for name, digest in sorted(digests.items()):
        file = path.with_name(name)
        try:
            content = file.read_bytes()
        except (OSError, ValueError) as error:
            yield ReportDifference(
                kind="file", file=str(file), message=f"the page links this file, which cannot be read: {error}"
            )
            continue
        if digest and hashlib.sha256(content).hexdigest() != digest:
            yield ReportDifference(kind="file", file=str(file), message="the file differs from the records")


def _linked_names(page: Markdown) -> list[str]:
    """Return the names of the pictures and files of points in the page's directory that the page links."""
    names = (unquote(link.target) for link in page.links)
    return [name for name in names if name.endswith((".csv", *_PICTURES)) and is_plain_name(name)]
